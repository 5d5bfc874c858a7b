//! How an instance applies change batches and probes while its facts are tested.
//!
//! Needs no database: `Freshness` and `Bus` are called directly.

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
    telemetry::ChangeMetrics,
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
fn change_batch(from: u64, to: u64, lookup: LookupId, id: &Id) -> ChangeBatch {
    let what = Changed::Key(FactKey::whole(lookup, id.clone()));
    ChangeBatch { from: at(from), to: at(to), changes: vec![Change { at: at(to), what }] }
}

fn absent(lookup: LookupId, id: &Id, stamp: Moment) -> Fact {
    Fact::absent(FactKey::whole(lookup, id.clone()), stamp)
}

#[test]
fn facts_from_before_the_end_of_a_gap_do_not_count() {
    let schema = schema("live.toml", SCHEMA);
    let (lookup, freshness) = (shares(&schema), Freshness::new(&schema));
    let (id, other) = (Id::Integer(1), Id::Integer(2));
    let as_of = |stamp| freshness.as_of(&absent(lookup, &id, at(stamp)), Moment::default(), freshness.epoch());
    freshness.begin_at(at(10));
    assert_eq!((as_of(9), as_of(10)), (None, Some(at(10))), "nothing is known from before the start");
    freshness.apply(&change_batch(10, 12, lookup, &other), freshness.epoch());
    assert_eq!(as_of(11), Some(at(12)), "nothing was missed");
    freshness.apply(&change_batch(11, 14, lookup, &other), freshness.epoch());
    assert_eq!(as_of(11), Some(at(14)), "an overlap is no gap");
    // No change batch covered (14, 20].
    freshness.apply(&change_batch(20, 22, lookup, &other), freshness.epoch());
    assert_eq!(as_of(14), None);
    assert_eq!(as_of(19), None);
    assert_eq!(as_of(20), Some(at(22)), "it saw what was missed");
}

#[test]
fn all_marks_of_a_change_batch_are_set_before_the_watermark() {
    const CHANGES: i64 = 20_000;
    let schema = schema("live.toml", SCHEMA);
    let (lookup, freshness) = (shares(&schema), Freshness::new(&schema));
    freshness.begin_at(at(1));
    let changes = (0..CHANGES).map(|id| {
        let what = Changed::Key(FactKey::whole(lookup, Id::Integer(id)));
        Change { at: at(2), what }
    });
    let change_batch = ChangeBatch { from: at(1), to: at(2), changes: changes.collect() };
    let last = Id::Integer(CHANGES - 1);
    thread::scope(|scope| {
        scope.spawn(|| freshness.apply(&change_batch, freshness.epoch()));
        let fact = absent(lookup, &last, at(1));
        while let Some(moment) = freshness.as_of(&fact, Moment::default(), freshness.epoch()) {
            assert_eq!(moment, at(1), "a fact of 1 that changed at 2");
        }
    });
}

/// The one fact changes at each moment. So a fact that was read at a moment is true as of that moment and no later one,
/// at whatever point of applying a change batch it is tested.
#[test]
fn a_change_during_the_test_of_a_fact_is_later_than_the_moment_of_the_result() {
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
                freshness.apply(&change_batch(moment - 1, moment, lookup, &id), freshness.epoch());
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
fn a_source_whose_time_has_gone_back_begins_a_new_epoch() {
    let schema = schema("live.toml", SCHEMA);
    let lookup = shares(&schema);
    let freshness = Arc::new(Freshness::new(&schema));
    let bus = Bus::new(Arc::clone(&freshness), None, ChangeMetrics::default());
    let id = Id::Integer(1);
    let as_of = |stamp| freshness.as_of(&absent(lookup, &id, at(stamp)), Moment::default(), freshness.epoch());
    let record_probe = |moment, applied, epoch| {
        let mut forgotten = 0;
        let probe = Probe { sent: LocalTime::now(), moment: at(moment) };
        let has_gone_back = freshness.record_probe(probe, at(applied), epoch, || forgotten += 1);
        assert_eq!(has_gone_back, forgotten == 1);
        has_gone_back
    };
    let before = freshness.epoch();
    bus.begin_at(at(100));
    assert!(!record_probe(100, 100, before), "the time stands still");
    bus.apply(change_batch(100, 120, lookup, &id), before);
    assert_eq!(as_of(120), Some(at(120)));
    // A probe that was sent before the watermark rose may return an earlier moment.
    assert!(!record_probe(110, 100, before));
    assert!(record_probe(50, 120, before));
    let after = freshness.epoch();
    assert_ne!(before, after);
    assert_eq!((freshness.watermark(), freshness.floor(), freshness.newest_moment()), (at(50), at(50), at(50)));
    assert_eq!(as_of(49), None, "a fact from before does not count");
    let of_before = absent(lookup, &id, at(120));
    assert_eq!(
        freshness.as_of(&of_before, Moment::default(), before),
        None,
        "nor does a fact that was looked up just before"
    );
    assert_eq!(as_of(50), Some(at(50)), "no mark of the old epoch is left");
    assert!(
        freshness.fresh_since(at(120)).is_some_and(|sent| freshness.fresh_since(at(50)) == Some(sent)),
        "nor is a probe"
    );
    // What was in flight in the old epoch is dropped in the new one.
    bus.apply(change_batch(100, 130, lookup, &id), before);
    bus.apply_hint(change_batch(0, 130, lookup, &id).changes, before);
    assert!(!record_probe(130, 0, before));
    assert_eq!(freshness.newest_moment(), at(50));
    bus.apply(change_batch(50, 60, lookup, &id), after);
    assert_eq!((as_of(50), as_of(60)), (None, Some(at(60))));
}
