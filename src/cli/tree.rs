//! Draws an explanation as a tree: what the evaluation looked at, in which documents, and the result of each step. Adds
//! nothing to the response.

use super::text::{faint, green, red, time, visible, yellow};
use crate::transport::proto::{
    ExplainResponse, Explanation, Reason,
    explanation::{Fact, Grant, Outcome, Step},
};

/// The most characters of a condition that are shown.
const CONDITION_MAX: usize = 160;

/// The most grants to other subjects that are shown for one step.
const OTHERS_MAX: usize = 3;

/// The whole tree. A step that has one child and adds nothing to it shares its line: a `!` and what it excludes, a permission
/// and its `&` or `|`, a relation and the relation of the subject that it stands for.
pub(super) fn draw(response: &ExplainResponse) -> String {
    let mut lines = Vec::new();
    if let Some((root, rest)) = response.steps.split_first() {
        write(root, rest, "", "", &mut lines);
    }
    if response.truncated {
        lines.push(yellow("… the explanation was cut here: there are more steps"));
    }
    lines.join("\n")
}

/// Writes a step and its descendants, which are the first steps of `rest`.
fn write(step: &Explanation, rest: &[Explanation], first: &str, further: &str, lines: &mut Vec<String>) {
    let (mut headline, mut last, mut inner) = (headline(step), step, beneath(step, rest));
    while let Some((only, below)) = joined(last, inner) {
        let separator = if last.step() == Step::Not { " " } else { ": " };
        headline = format!("{headline}{separator}{}", self::headline(only));
        (last, inner) = (only, below);
    }
    let why = match step.reason() {
        Reason::Unspecified => String::new(),
        reason => faint(&format!("  {}", reason.as_str_name())),
    };
    lines.push(format!("{}{} {headline}{why}", faint(first), mark(step.outcome())));
    let bar = if inner.is_empty() { "    " } else { "│   " };
    lines.extend(
        details(last, inner.is_empty())
            .into_iter()
            .map(|detail| format!("{}{detail}", faint(&format!("{further}{bar}")))),
    );
    while let Some((child, later)) = inner.split_first() {
        let own = beneath(child, later);
        inner = later.get(own.len()..).unwrap_or_default();
        let (branch, indent) = if inner.is_empty() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        write(child, own, &format!("{further}{branch}"), &format!("{further}{indent}"), lines);
    }
}

/// The descendants of a step: the steps that follow it and are deeper.
pub(super) fn beneath<'a>(step: &Explanation, rest: &'a [Explanation]) -> &'a [Explanation] {
    let count = rest.iter().take_while(|other| other.depth > step.depth).count();
    rest.get(..count).unwrap_or_default()
}

/// The only child of a step, if both share a line, and its descendants.
fn joined<'a>(step: &Explanation, inner: &'a [Explanation]) -> Option<(&'a Explanation, &'a [Explanation])> {
    let (only, rest) = inner.split_first()?;
    let is_only = beneath(only, rest).len() == rest.len();
    let fits = match step.step() {
        Step::Not => true,
        Step::Permission => matches!(only.step(), Step::All | Step::Any | Step::Not),
        Step::Relation => step.fact.is_none(),
        Step::Unspecified | Step::Question | Step::Gate | Step::Document | Step::Edge | Step::All | Step::Any => false,
    };
    (is_only && fits).then_some((only, rest))
}

pub(super) fn mark(outcome: Outcome) -> String {
    match outcome {
        Outcome::Holds => green("✓"),
        Outcome::Fails => red("✗"),
        Outcome::Indeterminate | Outcome::Unspecified => yellow("?"),
    }
}

pub(super) fn headline(step: &Explanation) -> String {
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
    format!("{}{until}", visible(&what))
}

/// Where a step's fact was read, and the grants of each document. `is_last` is whether there are no steps inside.
fn details(step: &Explanation, is_last: bool) -> Vec<String> {
    let Some(fact) = &step.fact else {
        let is_for_others = step.step() == Step::Relation && is_last;
        return if is_for_others { vec![format!("leads only to {}", step.leads_to.join(", "))] } else { Vec::new() };
    };
    let mut lines = vec![format!("{}: {}", place(fact), found(fact, step))];
    if !fact.condition.is_empty() && step.outcome() != Outcome::Holds {
        let shown: String = fact.condition.chars().take(CONDITION_MAX).collect();
        let more = if shown.len() < fact.condition.len() { "…" } else { "" };
        lines.push(faint(&format!("where {}{more}", visible(&shown))));
    }
    if matches!(step.step(), Step::Gate | Step::Document) && step.outcome() == Outcome::Holds {
        return lines;
    }
    let (others, relevant): (Vec<&Grant>, Vec<&Grant>) =
        step.grants.iter().partition(|grant| grant.reason() == Reason::NoGrant && step.step() != Step::Edge);
    lines.extend(relevant.into_iter().map(|grant| self::grant(fact, grant)));
    // Grants to other subjects are shown only if nothing else explains the failure.
    if step.outcome() == Outcome::Fails && step.reason() == Reason::NoGrant {
        lines.extend(others.iter().take(OTHERS_MAX).map(|grant| self::grant(fact, grant)));
        if others.len() > OTHERS_MAX {
            lines.push(faint("…"));
        }
    }
    lines
}

/// Where a fact was read.
pub(super) fn place(fact: &Fact) -> String {
    visible(&format!("{} by {} = {}", fact.collection, fact.field, fact.key))
}

/// What was found there.
pub(super) fn found(fact: &Fact, step: &Explanation) -> String {
    let grants = step.grants_total;
    match (fact.over_limit, fact.documents_total, grants) {
        (true, _, _) => "more than a fact may hold".to_owned(),
        (_, 0, _) if fact.condition.is_empty() || fact.field == "_id" => "no document".to_owned(),
        (_, 0, _) => "no document that fits any relation".to_owned(),
        (_, documents, 0) if step.step() == Step::Edge => {
            format!("{}, which leads nowhere", plural(documents, "document"))
        }
        (_, documents, 0) if step.step() == Step::Document => {
            format!("{}, which fails the condition of its type", plural(documents, "document"))
        }
        (_, documents, 0) => format!("{}, none of which grants", plural(documents, "document")),
        (_, documents, _)
            if step.outcome() == Outcome::Fails
                && step.reason() == Reason::NoGrant
                && step.step() == Step::Relation =>
        {
            format!("{}, {} to others", plural(documents, "document"), plural(grants, "grant"))
        }
        (_, documents, _) => plural(documents, "document"),
    }
}

fn plural(count: u32, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn grant(fact: &Fact, grant: &Grant) -> String {
    let why = match grant.reason() {
        Reason::Unspecified | Reason::NoGrant => String::new(),
        reason => format!(" {}", reason.as_str_name()),
    };
    format!("{} {}{}", mark(grant.outcome()), grant_text(fact, grant), faint(&why))
}

/// The document and field of a grant, and to whom it leads.
pub(super) fn grant_text(fact: &Fact, grant: &Grant) -> String {
    let leads_to = match grant.grantee.as_str() {
        "" => String::new(),
        "?" => " is not an id of the right type".to_owned(),
        text if text.starts_with('?') => {
            format!(": {:?} is not an id or a type that is expected here", text.get(1..).unwrap_or_default())
        }
        grantee => format!(" = {grantee}"),
    };
    let since = grant.since.as_ref().map(|since| format!(", since {}", time(since))).unwrap_or_default();
    let until = grant.until.as_ref().map(|until| format!(", until {}", time(until))).unwrap_or_default();
    let wrong = "a value in its condition or dates has a wrong type";
    let doubt = match fact.field.as_str() {
        _ if !grant.doubtful => String::new(),
        "_id" => format!(", {wrong}"),
        by => format!(", its `{by}` names {} in another way, or {wrong}", fact.key),
    };
    visible(&format!("{}/{} {}{leads_to}{since}{until}{doubt}", fact.collection, grant.document, grant.field))
}
