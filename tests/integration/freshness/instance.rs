//! What an instance makes of what it hears, while it is asked.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use permcached::{
    bus::Bus,
    fact::{Fact, FactKey},
    freshness::{Change, ChangeBatch, Changed, Freshness, LocalTime, Moment, Probe},
    question::{Id, LookupId},
    schema::Schema,
};

use super::SCHEMA;
use crate::support::both::schema;

fn at(count: u64) -> Moment {
    Moment::from_count(count)
}

/// A lookup by another field than `_id`.
fn shares(schema: &Schema) -> LookupId {
    schema.lookups().find(|(_, lookup)| &*lookup.collection == "shares").expect("there is one").0
}

/// "In (from, to] only this key has changed, at `to`."
fn batch(from: u64, to: u64, lookup: LookupId, id: &Id) -> ChangeBatch {
    let what = Changed::Key(FactKey { lookup, id: id.clone() });
    ChangeBatch { from: at(from), to: at(to), changes: vec![Change { at: at(to), what }] }
}

fn absent(lookup: LookupId, id: &Id, stamp: Moment) -> Fact {
    Fact::absent(FactKey { lookup, id: id.clone() }, stamp)
}

#[test]
fn a_gap_in_what_is_heard_counts_against_all_that_was_read_before_its_end() {
    let schema = schema("live.toml", SCHEMA);
    let (lookup, freshness) = (shares(&schema), Freshness::new(&schema));
    let (id, other) = (Id::Integer(1), Id::Integer(2));
    let as_of = |stamp| freshness.as_of(&absent(lookup, &id, at(stamp)), Moment::default(), freshness.epoch());
    freshness.begin_at(at(10));
    assert_eq!((as_of(9), as_of(10)), (None, Some(at(10))), "nothing is known of what was before");
    freshness.apply(&batch(10, 12, lookup, &other), freshness.epoch());
    assert_eq!(as_of(11), Some(at(12)), "nothing was missed");
    freshness.apply(&batch(11, 14, lookup, &other), freshness.epoch());
    assert_eq!(as_of(11), Some(at(14)), "an overlap is no gap");
    // What happened in (14, 20] nobody has said.
    freshness.apply(&batch(20, 22, lookup, &other), freshness.epoch());
    assert_eq!(as_of(14), None);
    assert_eq!(as_of(19), None);
    assert_eq!(as_of(20), Some(at(22)), "it saw what was missed");
}

#[test]
fn all_marks_of_a_statement_are_there_before_the_moment_that_covers_them() {
    const CHANGES: i64 = 20_000;
    let schema = schema("live.toml", SCHEMA);
    let (lookup, freshness) = (shares(&schema), Freshness::new(&schema));
    freshness.begin_at(at(1));
    let changes = (0..CHANGES).map(|id| {
        let what = Changed::Key(FactKey { lookup, id: Id::Integer(id) });
        Change { at: at(2), what }
    });
    let batch = ChangeBatch { from: at(1), to: at(2), changes: changes.collect() };
    let last = Id::Integer(CHANGES - 1);
    thread::scope(|scope| {
        scope.spawn(|| freshness.apply(&batch, freshness.epoch()));
        let fact = absent(lookup, &last, at(1));
        while let Some(moment) = freshness.as_of(&fact, Moment::default(), freshness.epoch()) {
            assert_eq!(moment, at(1), "a fact of 1 that changed at 2");
        }
    });
}

/// Each moment changes the one fact there is: one that was read at a moment is true as of that one and no later, at whatever
/// point of a statement's application it is looked at.
#[test]
fn a_change_that_comes_while_a_fact_is_tested_is_later_than_what_the_test_says() {
    const MOMENTS: u64 = 300_000;
    let schema = schema("live.toml", SCHEMA);
    let (lookup, freshness) = (shares(&schema), Freshness::new(&schema));
    let id = Id::Integer(1);
    freshness.begin_at(at(1));
    let (is_over, start) = (AtomicBool::new(false), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            for moment in 2..MOMENTS {
                freshness.apply(&batch(moment - 1, moment, lookup, &id), freshness.epoch());
            }
            is_over.store(true, Ordering::Release);
        });
        start.wait();
        while !is_over.load(Ordering::Acquire) {
            let stamp = freshness.watermark();
            if let Some(moment) = freshness.as_of(&absent(lookup, &id, stamp), Moment::default(), freshness.epoch()) {
                assert_eq!(moment, stamp, "it changed at the next one");
            }
        }
    });
}

/// Another replica set behind the same name, or the same one restored from an older backup.
#[test]
fn a_source_whose_time_has_gone_back_begins_another_history() {
    let schema = schema("live.toml", SCHEMA);
    let lookup = shares(&schema);
    let freshness = Arc::new(Freshness::new(&schema));
    let bus = Bus::new(Arc::clone(&freshness));
    let id = Id::Integer(1);
    let as_of = |stamp| freshness.as_of(&absent(lookup, &id, at(stamp)), Moment::default(), freshness.epoch());
    let record_probe = |moment, applied, epoch| {
        let mut forgot = 0;
        let probe = Probe { sent: LocalTime::now(), moment: at(moment) };
        let has_gone_back = freshness.record_probe(probe, at(applied), epoch, || forgot += 1);
        assert_eq!(has_gone_back, forgot == 1);
        has_gone_back
    };
    let before = freshness.epoch();
    bus.begin_at(at(100));
    assert!(!record_probe(100, 100, before), "it stands still");
    bus.apply(batch(100, 120, lookup, &id), before);
    assert_eq!(as_of(120), Some(at(120)));
    // A probe that was sent before W was raised may say less.
    assert!(!record_probe(110, 100, before));
    assert!(record_probe(50, 120, before));
    let after = freshness.epoch();
    assert_ne!(before, after);
    assert_eq!((freshness.watermark(), freshness.floor(), freshness.newest_moment()), (at(50), at(50), at(50)));
    assert_eq!(as_of(49), None, "what was read before counts for nothing");
    let of_before = absent(lookup, &id, at(120));
    assert_eq!(freshness.as_of(&of_before, Moment::default(), before), None, "nor what was found just before");
    assert_eq!(as_of(50), Some(at(50)), "no mark of the other history is left");
    assert!(
        freshness.fresh_since(at(120)).is_some_and(|sent| freshness.fresh_since(at(50)) == Some(sent)),
        "nor a probe"
    );
    // What was under way in the other history is not heard in this one.
    bus.apply(batch(100, 130, lookup, &id), before);
    bus.apply_hint(batch(0, 130, lookup, &id).changes, before);
    assert!(!record_probe(130, 0, before));
    assert_eq!(freshness.newest_moment(), at(50));
    bus.apply(batch(50, 60, lookup, &id), after);
    assert_eq!((as_of(50), as_of(60)), (None, Some(at(60))));
}
