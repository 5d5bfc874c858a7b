//! All that a correct speaker could say (point 2), and what goes wrong without its safeguards.
//!
//! A run with any bus lets every instance hear each of these at any time, in any order, any number of times, or never: loss,
//! delay, repeats, a trimmed log and two speakers at once are all in that.

use std::collections::BTreeSet;

use permcached::freshness::Moment;

use super::{
    histories::{Event, Place},
    protocol::Protocol,
    run::May,
    safeguards::Safeguard,
    world::{ChangeBatch, Marks, moment},
};

/// Every statement that can be made while this is the newest moment.
pub fn all(protocol: &Protocol, database: usize) -> Vec<ChangeBatch> {
    let mut all = BTreeSet::new();
    for to in 0..=database {
        for from in 0..=to {
            add(protocol, database, from, to, &mut all);
        }
    }
    if !protocol.keeps(Safeguard::SameCluster) {
        // Another database: the same moments, but nothing of what happened here.
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
        // What a stream has shown is earlier than its resume token, and that is no later than the database.
        if to < database {
            all.insert(batch(from, to, marked(&mut history.events(from, to))));
            // The next change is said early.
            all.insert(batch(from, to, marked(&mut history.events(from, to + 1))));
            if !protocol.keeps(Safeguard::SamePipeline) {
                // A speaker whose pipeline sees only what is found by key A, and so nothing that leaves it.
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
