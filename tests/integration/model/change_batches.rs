//! Every change batch that a correct leader could publish (docs/freshness.md, point 2), and the wrong ones that it could
//! publish without its safeguards.
//!
//! Does not decide what is received. In a run with `Bus::AnythingTrue` every instance may receive each of these at any
//! time, in any order, any number of times, or never. This covers loss, delay, repeats, a trimmed log and two leaders at
//! once.

use std::collections::BTreeSet;

use permcached::freshness::Moment;

use super::{
    histories::{Event, Place},
    protocol::Protocol,
    run::May,
    safeguards::Safeguard,
    world::{ChangeBatch, Marks, moment},
};

/// Every change batch that can be published while `database` is the newest moment.
pub fn all(protocol: &Protocol, database: usize) -> Vec<ChangeBatch> {
    let mut all = BTreeSet::new();
    for to in 0..=database {
        for from in 0..=to {
            add(protocol, database, from, to, &mut all);
        }
    }
    if !protocol.keeps(Safeguard::SameCluster) {
        // A leader over another database: it has the same moments, but nothing of what happened here.
        all.extend((0..=database).map(|from| batch(from, database, Marks::default())));
    }
    all.into_iter().collect()
}

fn add(protocol: &Protocol, database: usize, from: usize, to: usize, all: &mut BTreeSet<ChangeBatch>) {
    let history = &protocol.run.history;
    let mut lookups = vec![None];
    if protocol.may(May::LookUpLate) {
        lookups.push(Some(database));
    }
    for looked_up in lookups {
        let marked = |events: &mut dyn Iterator<Item = (usize, Event)>| {
            let mut marks = Marks::default();
            events.for_each(|(at, event)| protocol.mark_event(&mut marks, at, event, looked_up));
            marks
        };
        // What a stream has shown is earlier than its resume token, which is no later than the newest moment.
        if to < database {
            all.insert(batch(from, to, marked(&mut history.events(from, to))));
            // The next change is published early.
            all.insert(batch(from, to, marked(&mut history.events(from, to + 1))));
            if !protocol.keeps(Safeguard::SamePipeline) {
                // A leader whose pipeline sees only what key A finds, and so no document that leaves it.
                let seen = |(_, event): &(usize, Event)| event.place == Place::A;
                all.insert(batch(from, to, marked(&mut history.events(from, to).filter(seen))));
            }
        } else if !protocol.keeps(Safeguard::StrictTo) {
            all.insert(batch(from, to, marked(&mut history.events(from, to))));
            // The resume token is in the middle of the transaction at `to`: only its first event has been shown.
            if from < to {
                let shown = history.events(from, to - 1).chain(history.events(to - 1, to).take(1));
                all.insert(batch(from, to, marked(&mut { shown })));
            }
        }
    }
}

fn batch(from: usize, to: usize, marks: Marks) -> ChangeBatch {
    let (from, to): (Moment, Moment) = (moment(from), moment(to));
    ChangeBatch { from, to, marks }
}
