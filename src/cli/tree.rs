//! An explanation drawn as a tree: what was looked at, where, and what came of it.

use super::text::{faint, green, red, time, yellow};
use crate::transport::proto::{
    ExplainResponse, Explanation, Reason,
    explanation::{Fact, Grant, Outcome, Step},
};

/// How wide a condition is shown at most.
const CONDITION_MAX: usize = 160;

/// The whole tree, a line a step.
pub(super) fn draw(response: &ExplainResponse) -> String {
    let steps = &response.steps;
    let mut lines = Vec::new();
    let mut open: Vec<bool> = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        let depth = usize::try_from(step.depth).unwrap_or(0);
        let later = steps.get(place + 1..).unwrap_or_default();
        let has_sibling = later.iter().take_while(|other| other.depth >= step.depth).any(|other| other.depth == step.depth);
        let has_children = later.first().is_some_and(|next| next.depth > step.depth);
        open.truncate(depth.saturating_sub(1));
        let mut indent: String = open.iter().map(|more| if *more { "│  " } else { "   " }).collect();
        let branch = match (depth, has_sibling) {
            (0, _) => "",
            (_, true) => "├─ ",
            (_, false) => "└─ ",
        };
        lines.push(format!("{}{} {}", faint(&format!("{indent}{branch}")), mark(step.outcome()), headline(step)));
        if depth > 0 {
            open.push(has_sibling);
            indent.push_str(if has_sibling { "│  " } else { "   " });
        }
        let below = if has_children { "│    " } else { "     " };
        for detail in details(step) {
            lines.push(format!("{}{}", faint(&format!("{indent}{below}")), detail));
        }
    }
    if response.truncated {
        lines.push(yellow("… there are more steps than are shown"));
    }
    lines.join("\n")
}

fn mark(outcome: Outcome) -> String {
    match outcome {
        Outcome::Holds => green("✓"),
        Outcome::Fails => red("✗"),
        Outcome::Indeterminate | Outcome::Unspecified => yellow("?"),
    }
}

fn headline(step: &Explanation) -> String {
    let Explanation { object, name, .. } = step;
    let what = match step.step() {
        Step::Question => format!("{name} {object}"),
        Step::Gate => format!("{object} is active"),
        Step::Document => format!("{object} exists"),
        Step::Permission | Step::Relation | Step::Edge => format!("{name} of {object}"),
        Step::Not => "not".to_owned(),
        Step::All => "all of".to_owned(),
        Step::Any => "any of".to_owned(),
        Step::Unspecified => String::new(),
    };
    let until = step.valid_until.as_ref().map(|until| format!(" until {}", time(until))).unwrap_or_default();
    match step.reason() {
        Reason::Unspecified => format!("{what}{until}"),
        reason => format!("{what}  {}", faint(reason.as_str_name())),
    }
}

/// Where a step was read, and what each document says.
fn details(step: &Explanation) -> Vec<String> {
    let Some(fact) = &step.fact else { return Vec::new() };
    let mut lines = vec![format!("{}: {}", place(fact), found(fact, step))];
    if !fact.condition.is_empty() && step.grants.is_empty() {
        let shown: String = fact.condition.chars().take(CONDITION_MAX).collect();
        let more = if shown.len() < fact.condition.len() { "…" } else { "" };
        lines.push(faint(&format!("where {shown}{more}")));
    }
    let telling = step.grants.iter().filter(|grant| grant.reason() != Reason::NoGrant || step.step() == Step::Edge);
    lines.extend(telling.map(|grant| self::grant(fact, grant)));
    lines
}

fn place(fact: &Fact) -> String {
    format!("{} by {} = {}", fact.collection, fact.field, fact.key)
}

fn found(fact: &Fact, step: &Explanation) -> String {
    let grants = step.grants_total;
    match (fact.over_limit, fact.documents_total, grants) {
        (true, _, _) => "more than a fact may hold".to_owned(),
        (_, 0, _) => "no document".to_owned(),
        (_, documents, 0) => format!("{}, none says so", plural(documents, "document")),
        (_, documents, _) if step.outcome() == Outcome::Fails && step.reason() == Reason::NoGrant && step.step() == Step::Relation => {
            format!("{}, {} to others", plural(documents, "document"), plural(grants, "grant"))
        }
        (_, documents, _) => plural(documents, "document"),
    }
}

fn plural(count: u32, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn grant(fact: &Fact, grant: &Grant) -> String {
    let leads_to = match grant.grantee.as_str() {
        "" => String::new(),
        "?" => " is no id of the right type".to_owned(),
        grantee => format!(" = {grantee}"),
    };
    let since = grant.since.as_ref().map(|since| format!(", since {}", time(since))).unwrap_or_default();
    let until = grant.until.as_ref().map(|until| format!(", until {}", time(until))).unwrap_or_default();
    let doubt = if grant.doubtful { ", a value in its condition or dates has a wrong type" } else { "" };
    let why = match grant.reason() {
        Reason::Unspecified | Reason::NoGrant => String::new(),
        reason => format!(" {}", reason.as_str_name()),
    };
    let line = format!("{}/{} {}{leads_to}{since}{until}{doubt}", fact.collection, grant.document, grant.field);
    format!("{} {}{}", mark(grant.outcome()), line, faint(&why))
}
