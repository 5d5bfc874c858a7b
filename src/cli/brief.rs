//! Shows an explanation in short: for a grant the way that grants, for a denial one line for each relation that could have granted
//! or has excluded. Of many resources of one type, it shows a few. `tree` shows everything.

use std::collections::BTreeMap;

use super::{
    text::{faint, yellow},
    tree::{beneath, found, grant_text, headline, mark, place},
};
use crate::transport::proto::{
    ExplainResponse, Explanation, Reason,
    explanation::{Outcome, Step},
};

/// How many resources of one type are shown at most for which the same relation does not hold for the same reason.
const ALIKE_MAX: usize = 5;

/// A step and its descendants.
type Node<'a> = (&'a Explanation, &'a [Explanation]);

/// The lines so far.
#[derive(Default)]
struct Lines<'a> {
    all: Vec<String>,
    /// How many lines there are for each relation that does not hold, by its name, the type of the resource and the reason, and the place
    /// of the line that counts those that are not shown.
    alike: BTreeMap<(&'a str, &'a str, Reason), (usize, usize)>,
}

impl<'a> Lines<'a> {
    /// Adds the line of a step. `before` is what is shown before its own words.
    fn add(&mut self, step: &'a Explanation, before: &str) {
        if step.outcome() != Outcome::Holds {
            let kind = step.object.split_once(':').map_or("", |(kind, _)| kind);
            let (count, place) = self.alike.entry((&step.name, kind, step.reason())).or_default();
            *count += 1;
            if *count == ALIKE_MAX + 1 {
                *place = self.all.len();
                self.all.push(String::new());
            }
            let more = count.saturating_sub(ALIKE_MAX);
            if more > 0 {
                let (resources, mark) = (if more == 1 { "resource" } else { "resources" }, mark(step.outcome()));
                let line = format!("{mark} {before}{} of {more} more {resources} of type {kind}", step.name);
                if let Some(counting) = self.all.get_mut(*place) {
                    *counting = with_reason(line, step);
                }
                return;
            }
        }
        self.all.push(line(step, before));
    }
}

/// The lines, and a last one that says how to see the rest.
pub(super) fn draw(response: &ExplainResponse) -> String {
    let mut lines = Lines::default();
    if let Some((root, rest)) = response.steps.split_first() {
        add((root, rest), "", &mut lines);
    }
    let mut lines = lines.all;
    if response.truncated {
        lines.push(yellow("… the explanation was cut here: there are more steps"));
    }
    lines.push(faint("--all shows every step, and every document that was used"));
    lines.join("\n")
}

/// Adds the lines of a step and of those beneath it that decided. `before` is what is shown before its own words.
fn add<'a>(node: Node<'a>, before: &str, lines: &mut Lines<'a>) {
    let (step, inner) = node;
    if step.step() == Step::Not && step.outcome() == Outcome::Holds {
        lines.all.push(excluding(node));
        return;
    }
    let deciding = deciding(node);
    let is_shown = match step.step() {
        Step::Relation => step.fact.is_some(),
        Step::Edge => step.outcome() == Outcome::Holds,
        _ => false,
    };
    if deciding.is_empty() || is_shown {
        lines.add(step, before);
    }
    // A relation that stands for one of the subject.
    let is_alias = step.step() == Step::Relation && step.fact.is_none() && !inner.is_empty();
    let before = if is_alias { format!("{}: ", headline(step)) } else { String::new() };
    for node in deciding {
        add(node, &before, lines);
    }
}

/// The children of a step that decided its outcome: of a grant those that grant, else those that do not.
fn deciding<'a>((step, inner): Node<'a>) -> Vec<Node<'a>> {
    let mut children = Vec::new();
    let mut rest = inner;
    while let Some((child, later)) = rest.split_first() {
        let own = beneath(child, later);
        rest = later.get(own.len()..).unwrap_or_default();
        children.push((child, own));
    }
    let holds = |node: &Node<'_>| node.0.outcome() == Outcome::Holds;
    match (step.step(), step.outcome()) {
        (Step::All, Outcome::Holds) | (Step::Not, _) => children,
        (_, Outcome::Holds) => {
            // That the subject is active and the resource exists is part of every grant.
            let grants = |(child, _): &Node<'_>| !matches!(child.step(), Step::Gate | Step::Document);
            children.into_iter().filter(|node| holds(node) && grants(node)).take(1).collect()
        }
        (_, Outcome::Fails | Outcome::Indeterminate | Outcome::Unspecified) => {
            let mut others: Vec<Node<'a>> = children.into_iter().filter(|node| !holds(node)).collect();
            // Without the subject or the resource, no relation matters.
            let is_ground = |(child, _): &Node<'_>| matches!(child.step(), Step::Gate | Step::Document);
            if others.iter().any(is_ground) {
                others.retain(is_ground);
            }
            let able: Vec<Node<'a>> = others.iter().copied().filter(|node| !is_for_others(*node)).collect();
            if able.is_empty() { others } else { able }
        }
    }
}

/// Whether a relation cannot lead to the type of the subject that asks.
fn is_for_others((step, inner): Node<'_>) -> bool {
    step.step() == Step::Relation && step.fact.is_none() && inner.is_empty()
}

/// The line of a `!` that holds: what it excludes, and where that was looked up. If it excludes several, each of those beneath
/// that were looked up.
fn excluding((step, inner): Node<'_>) -> String {
    let only = inner.first();
    let what = only.map(headline).unwrap_or_default();
    let places: Vec<String> = match only.and_then(|only| only.fact.as_ref()) {
        Some(fact) => vec![place(fact)],
        None => {
            let looked_up = inner.iter().filter_map(|step| Some((step, step.fact.as_ref()?)));
            looked_up.map(|(step, fact)| format!("{}: {}", headline(step), place(fact))).collect()
        }
    };
    let places = if places.is_empty() { String::new() } else { faint(&format!(": {}", places.join("; "))) };
    format!("{} {} {what}{places}", mark(step.outcome()), headline(step))
}

/// The line of a step: where its fact was read, and the document that decided or what was found.
fn line(step: &Explanation, before: &str) -> String {
    let mut line = format!("{} {before}{}", mark(step.outcome()), headline(step));
    if let Some(fact) = &step.fact {
        let mut useful = step.grants.iter().filter(|grant| {
            grant.outcome() == step.outcome() && (step.outcome() == Outcome::Holds || grant.reason() != Reason::NoGrant)
        });
        line += &match useful.next() {
            Some(grant) if step.step() != Step::Gate && step.step() != Step::Document => {
                format!(": {}", grant_text(fact, grant))
            }
            _ => format!(": {}: {}", place(fact), found(fact, step)),
        };
        let more = useful.count();
        if more > 0 && step.outcome() != Outcome::Holds {
            line += &format!(", and {more} more");
        }
    } else if !step.leads_to.is_empty() {
        line += &format!(": leads only to {}", step.leads_to.join(", "));
    }
    with_reason(line, step)
}

fn with_reason(line: String, step: &Explanation) -> String {
    match step.reason() {
        Reason::Unspecified => line,
        reason => line + &faint(&format!("  {}", reason.as_str_name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::proto::explanation::Fact;

    #[test]
    fn a_negation_of_several_relations_names_each_place_that_was_looked_up() {
        let step = |kind: Step, depth: u32, name: &str, is_fact: bool| Explanation {
            step: kind.into(),
            outcome: if kind == Step::Not { Outcome::Holds } else { Outcome::Fails }.into(),
            depth,
            name: name.to_owned(),
            object: "file:f".to_owned(),
            fact: is_fact.then(|| Fact {
                collection: format!("{name}s"),
                field: "file".to_owned(),
                key: "f".to_owned(),
                ..Fact::default()
            }),
            ..Explanation::default()
        };
        let steps = [
            step(Step::Not, 0, "", false),
            step(Step::Any, 1, "", false),
            step(Step::Relation, 2, "banned", true),
            step(Step::Relation, 2, "suspended", true),
        ];
        let several = excluding((&steps[0], &steps[1..]));
        for place in ["banned of file:f: banneds by file = f", "suspended of file:f: suspendeds by file = f"] {
            assert!(several.contains(place), "{several}");
        }
        let one = excluding((&steps[0], &steps[2..3]));
        assert!(one.contains("banned of file:f") && one.contains(": banneds by file = f"), "{one}");
    }
}
