//! Lists in a run: each is judged as if it answered about every resource that may be on it, whether it is there or not.
//!
//! Does not choose what is asked; `checkers` does.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use mongodb::bson::Bson;
use permcached::{
    check::{CheckError, Consistency},
    diagnosis::error_chain,
    freshness::{Moment, Token},
    list::{Asker, ListError, ListQuestion, PlanKind, PlanOptions, ResourcePage},
    question::Millis,
    schema::Path,
    source::Deadline,
};

use super::{
    instances::Instance,
    judge::{Answered, Verdict, judge},
    kinds::{Kind, PLACES},
    register::Shown,
    run::{Earlier, Run, wall},
    tally::Mode,
};

/// What a list is asked for, and how fresh it must be.
pub struct Asked {
    pub mode: Mode,
    pub consistency: Consistency,
    pub bound: Duration,
    pub token: Option<Moment>,
    /// The write that the list must not be older than, about this register.
    pub seen_before: Option<usize>,
    pub register: usize,
    pub place: u8,
}

/// What a list shows.
struct List {
    what: &'static str,
    /// The ids, each with what that shows.
    ids: Vec<(String, Shown)>,
    as_of: Token,
}

/// Asks for a list of what a register may grant at a place, and has it judged.
pub async fn list(run: &Run, instance: &Arc<Instance>, asked: &Asked, deadline: Deadline, rng: &mut Rng) {
    let question = run.question(asked.register, asked.place);
    let question = ListQuestion {
        asker: Asker::new(question.subject),
        permission: question.permission,
        kind: question.resource.kind,
    };
    let (began, first) = (run.now(), wall());
    let listed = if rng.bool() {
        resources(instance, &question, asked.consistency, deadline).await
    } else {
        ids(run, instance, &question, asked, deadline).await
    };
    let times = (began, run.now(), [first, wall()]);
    match listed {
        Ok(listed) => {
            for wrong in objections(run, asked, &listed, times) {
                run.tally().violated(format!(
                    "{} {:?} {asked_at}: {wrong}",
                    listed.what,
                    asked.mode,
                    asked_at = asked.place
                ));
            }
        }
        Err(ListError::Check(error)) => {
            run.tally().failed(&error);
            if !matches!(error, CheckError::Unavailable(_) | CheckError::DeadlineExceeded) {
                run.tally().violated(format!("a list: {}", error_chain(&error)));
            }
        }
        Err(error) => run.tally().violated(format!("a list: {error}")),
    }
}

/// The resources on a page, which has all of them.
async fn resources(
    instance: &Instance,
    question: &ListQuestion,
    consistency: Consistency,
    deadline: Deadline,
) -> Result<List, ListError> {
    let page = ResourcePage { size: 100, after: None, within: None };
    let list = instance.app.lister.list_resources(question, consistency, page, deadline).await?;
    if list.next.is_some() {
        // The deadline was near.
        return Err(CheckError::DeadlineExceeded.into());
    }
    let ids = list.resources.iter().map(|resource| (resource.id.to_string(), Shown::Allowed(resource.valid_until)));
    Ok(List { what: "list_resources", ids: ids.collect(), as_of: list.as_of })
}

/// The ids in the filter of a plan: of folders those that the filter itself has, of others those for another collection.
async fn ids(
    run: &Run,
    instance: &Instance,
    question: &ListQuestion,
    asked: &Asked,
    deadline: Deadline,
) -> Result<List, ListError> {
    let is_of_folders = run.registers[asked.register].kind == Kind::Folder;
    let reference = (!is_of_folders).then(|| Path::parse("resource_id").expect("a path"));
    let options = PlanOptions { reference, ..PlanOptions::default() };
    let plan = instance.app.lister.plan_filter(question, asked.consistency, options, deadline).await?;
    let field = if is_of_folders { "parent_id" } else { "resource_id" };
    let mut ids = Vec::new();
    add_ids(&Bson::Document(plan.filter.clone()), field, &mut ids);
    assert_eq!(ids.len(), plan.ids, "{plan:?}");
    assert!(plan.kind == PlanKind::Exact || ids.is_empty(), "{plan:?}");
    let ids = ids.into_iter().map(|id| (id, Shown::Included)).collect();
    Ok(List { what: "plan_filter", ids, as_of: plan.as_of })
}

/// Adds the ids with which a field is compared anywhere in a query.
fn add_ids(query: &Bson, field: &str, ids: &mut Vec<String>) {
    let texts = |value: &Bson| -> Vec<String> {
        let values = match value {
            Bson::Document(test) => match test.get("$eq") {
                Some(only) => vec![only.clone()],
                None => test.get_array("$in").cloned().unwrap_or_default(),
            },
            value => vec![value.clone()],
        };
        values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    };
    match query {
        Bson::Document(document) => {
            for (name, value) in document {
                if name == field { ids.extend(texts(value)) } else { add_ids(value, field, ids) }
            }
        }
        Bson::Array(items) => items.iter().for_each(|item| add_ids(item, field, ids)),
        _ => {}
    }
}

/// What is wrong with a list, about each register that it may show something of.
fn objections(run: &Run, asked: &Asked, list: &List, times: (Duration, Duration, [Millis; 2])) -> Vec<String> {
    let Asked { mode, bound, token, register: first, place, .. } = *asked;
    let kind = run.registers[first].kind;
    // A user has several notes, teams and folders, but a share's user has files at any place.
    let shown_of: Vec<(usize, u8)> = match kind {
        Kind::Share => (0..PLACES).map(|place| (first, place)).collect(),
        Kind::Note | Kind::Team | Kind::Folder => {
            let of_kind = |register: &usize| run.registers[*register].kind == kind;
            (0..run.registers.len()).filter(of_kind).map(|register| (register, place)).collect()
        }
    };
    let mut wrong = Vec::new();
    let root = format!("root{place}");
    if kind == Kind::Folder && !list.ids.iter().any(|(id, _)| *id == root) {
        wrong.push(format!("{root} is missing, which its owner always has: {:?}", list.ids));
    }
    let (begun, received, wall) = times;
    for (register, place) in shown_of {
        let [_, resource] = kind.question(run.registers[register].number, place);
        let id = resource.split_once(':').expect("type:id").1.to_owned();
        let shown = match list.ids.iter().find(|(listed, _)| *listed == id) {
            Some((_, shown)) => *shown,
            None => Shown::Denied,
        };
        let seen_before = asked.seen_before.filter(|_| register == first);
        let answered = Answered { place, shown, asked: begun, received, wall, bound, token, seen_before };
        let verdict = judge(&run.registers[register].history(), &answered);
        match verdict {
            Verdict::Right { oldest, staleness } => {
                if register == first {
                    run.keep(Earlier { register, place, token: list.as_of, seen: oldest });
                }
                run.tally().listed(mode, shown, staleness);
            }
            Verdict::Wrong(why) => {
                let as_of = list.as_of.moment.as_u64();
                wrong.push(format!("{resource} {shown:?}, as of {as_of:#x}, token {token:?}, within {bound:?}: {why}"));
            }
        }
    }
    wrong
}
