//! Whether the permissions of a schema mean anything: none runs in circles, none reaches itself through a `!`.
//!
//! Works on the compiled tables; the declarations only say where to point.

use super::{
    Expression, Member, Schema, Target,
    declaration::Declarations,
    expression::Name,
    mistake::Mistake,
};
use crate::question::PermissionId;

/// How deep the permissions of one resource may be made of each other, expressions included. It bounds the evaluator's
/// stack, together with the depth of a resource tree.
const NESTING_MAX: usize = 32;

/// Notes what is wrong with the permissions.
pub(crate) fn check(schema: &Schema, declarations: &Declarations, mistakes: &mut Vec<Mistake>) {
    let names: Vec<&Name> = declarations
        .resources
        .iter()
        .flat_map(|resource| resource.permissions.iter().map(|permission| &permission.name))
        .collect();
    let before = mistakes.len();
    let mut note = |test: &dyn Fn(PermissionId) -> bool, message: &str, help: &str| {
        for (id, name) in (0..).map(PermissionId).zip(&names) {
            if test(id) {
                mistakes.push(Mistake::new(&name.span, format!("permission `{}` {message}", name.text)).help(help));
            }
        }
        mistakes.len() > before
    };
    let circles = note(
        &|id| refers_to_itself(schema, id),
        "only refers to itself",
        "follow an edge on the way, or name a relation instead",
    );
    if circles {
        return;
    }
    note(
        &|id| nesting(schema, Member::Permission(id), NESTING_MAX).is_none(),
        "is made of permissions that nest deeper than 32",
        "name relations directly",
    );
    let grounded = grounded(schema);
    note(
        &|id| !grounded.get(id.index()).copied().unwrap_or(true),
        "only refers to itself: nothing ever grants it",
        "add a relation that grants it, for example: owner | parent.read",
    );
    note(
        &|id| {
            let mut excluded = Vec::new();
            under_exclusion(&schema.permission(id).expression, false, &mut excluded);
            excluded.into_iter().any(|member| reaches(schema, member, Member::Permission(id)))
        },
        "reaches itself through a `!`",
        "what is excluded must not depend on what is granted: exclude by a relation",
    );
}

/// Whether a permission is made of itself on the same resource.
fn refers_to_itself(schema: &Schema, start: PermissionId) -> bool {
    let mut seen = vec![false; schema.permissions.len()];
    let mut todo = vec![start];
    while let Some(id) = todo.pop() {
        let mut found = false;
        same_resource(&schema.permission(id).expression, &mut |inner| {
            found |= inner == start;
            if let Some(mark) = seen.get_mut(inner.index()).filter(|mark| !**mark) {
                *mark = true;
                todo.push(inner);
            }
        });
        if found {
            return true;
        }
    }
    false
}

/// Visits the permissions of the same resource that an expression names.
fn same_resource(expression: &Expression, visit: &mut impl FnMut(PermissionId)) {
    match expression {
        Expression::Permission(id) => visit(*id),
        Expression::Relation(_) | Expression::Walk { .. } => {}
        Expression::Not(inner) => same_resource(inner, visit),
        Expression::And(sides) | Expression::Or(sides) => sides.iter().for_each(|side| same_resource(side, visit)),
    }
}

/// How deep a permission nests, if that is within `left`. Only for permissions that do not run in circles.
fn nesting(schema: &Schema, member: Member, left: usize) -> Option<usize> {
    let Member::Permission(id) = member else { return Some(0) };
    expression_nesting(schema, &schema.permission(id).expression, left.checked_sub(1)?)
}

fn expression_nesting(schema: &Schema, expression: &Expression, left: usize) -> Option<usize> {
    match expression {
        Expression::Relation(_) | Expression::Walk { .. } => Some(0),
        Expression::Permission(id) => nesting(schema, Member::Permission(*id), left).map(|depth| depth + 1),
        Expression::Not(inner) => expression_nesting(schema, inner, left.checked_sub(1)?).map(|depth| depth + 1),
        Expression::And(sides) | Expression::Or(sides) => {
            let left = left.checked_sub(1)?;
            let mut deepest = 0;
            for side in sides {
                deepest = deepest.max(expression_nesting(schema, side, left)?);
            }
            Some(deepest + 1)
        }
    }
}

/// Which permissions can be granted at all: by some relation, however far away.
fn grounded(schema: &Schema) -> Vec<bool> {
    let mut grounded = vec![false; schema.permissions.len()];
    loop {
        let next: Vec<bool> =
            schema.permissions.iter().map(|permission| can_hold(schema, &permission.expression, &grounded)).collect();
        if next == grounded {
            return grounded;
        }
        grounded = next;
    }
}

fn can_hold(schema: &Schema, expression: &Expression, grounded: &[bool]) -> bool {
    let member_holds = |member: Member| match member {
        Member::Relation(_) => true,
        Member::Permission(id) => grounded.get(id.index()).copied().unwrap_or(true),
    };
    match expression {
        Expression::Relation(_) | Expression::Not(_) => true,
        Expression::Permission(id) => member_holds(Member::Permission(*id)),
        Expression::Walk { member, .. } => member_holds(*member),
        Expression::And(sides) => sides.iter().all(|side| can_hold(schema, side, grounded)),
        Expression::Or(sides) => sides.iter().any(|side| can_hold(schema, side, grounded)),
    }
}

/// Collects what stands under a `!`.
fn under_exclusion(expression: &Expression, under: bool, found: &mut Vec<Member>) {
    match expression {
        Expression::Not(inner) => under_exclusion(inner, true, found),
        Expression::And(sides) | Expression::Or(sides) => {
            sides.iter().for_each(|side| under_exclusion(side, under, found));
        }
        _ if !under => {}
        _ => members(expression, found),
    }
}

/// Collects every member that an expression names, edges included.
fn members(expression: &Expression, found: &mut Vec<Member>) {
    match expression {
        Expression::Relation(id) => found.push(Member::Relation(*id)),
        Expression::Permission(id) => found.push(Member::Permission(*id)),
        Expression::Walk { edge, member } => found.extend([Member::Relation(*edge), *member]),
        Expression::Not(inner) => members(inner, found),
        Expression::And(sides) | Expression::Or(sides) => sides.iter().for_each(|side| members(side, found)),
    }
}

/// Whether `goal` is part of what `start` is made of, on whatever resource.
fn reaches(schema: &Schema, start: Member, goal: Member) -> bool {
    let mut seen = Vec::new();
    let mut todo = vec![start];
    while let Some(member) = todo.pop() {
        if member == goal {
            return true;
        }
        if seen.contains(&member) {
            continue;
        }
        seen.push(member);
        match member {
            Member::Permission(id) => members(&schema.permission(id).expression, &mut todo),
            Member::Relation(id) => {
                let targets = schema.relation(id).ids.iter().flat_map(|ids| &ids.targets);
                todo.extend(targets.filter_map(|target| match target {
                    Target::Set(_, member) => Some(*member),
                    _ => None,
                }));
            }
        }
    }
    false
}
