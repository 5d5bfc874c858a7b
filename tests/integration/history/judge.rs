//! The judge: whether an answer is right, by the history of the one register that it depends on.
//!
//! It is exact for one register: an answer is right if, and only if, some state explains it that the bound and the token
//! allow. It does not compute what an answer should have been.

use std::{fmt::Write as _, time::Duration};

use permcached::{freshness::Moment, question::Millis};

use super::register::{History, Shown};

/// How many writes a report shows before and after those that matter.
const WRITES_AROUND: usize = 3;

/// One question and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// What was asked: whether the register grants at this place.
    pub place: u8,
    pub shown: Shown,
    /// When the question was sent and the answer received, since the run began.
    pub asked: Duration,
    pub received: Duration,
    /// The same two times by the wall clock, with which expiries are compared.
    pub wall: [Millis; 2],
    /// How much older than the question the shown state may be.
    pub bound: Duration,
    /// The answer must show everything up to this moment.
    pub token: Option<Moment>,
    /// The oldest write that explains the answer which gave the token.
    pub seen_before: Option<usize>,
}

/// The judgement of one answer.
#[derive(Debug)]
pub enum Verdict {
    /// A state explains it.
    Right {
        /// The oldest write that explains it.
        oldest: usize,
        /// For how long the newest write that explains it had been replaced when the question was asked.
        staleness: Duration,
    },
    /// No allowed state explains it: the reason, and the writes around.
    Wrong(String),
}

/// Judges one answer, at once or later. A write that is not yet known to be acknowledged counts as still in progress.
pub fn judge(history: &History, answered: &Answered) -> Verdict {
    let writes = history.writes();
    let explains = |index: &usize| writes[*index].state.explains(answered.place, answered.shown, answered.wall);
    let first = first_allowed(history, answered);
    let begun = writes.partition_point(|write| write.begun <= answered.received);
    let Some(oldest) = (first..begun).find(explains) else {
        return Verdict::Wrong(why(history, answered, first, (0..first).rev().find(explains)));
    };
    let newest = (first..begun).rev().find(explains).unwrap_or(oldest);
    let staleness = history.replaced(newest).map_or(Duration::ZERO, |at| answered.asked.saturating_sub(at));
    Verdict::Right { oldest, staleness }
}

/// The newest write that the answer must show: earlier ones are too old.
fn first_allowed(history: &History, answered: &Answered) -> usize {
    let earliest = answered.asked.saturating_sub(answered.bound);
    let last = |is: &dyn Fn(Duration, Moment) -> bool| {
        history.writes().iter().rposition(|write| write.acknowledged.is_some_and(|(at, moment)| is(at, moment)))
    };
    let by_time = last(&|at, _| at < earliest);
    let by_token = answered.token.and_then(|token| last(&|_, moment| moment <= token));
    [by_time, by_token, answered.seen_before].into_iter().flatten().max().unwrap_or(0)
}

/// What is wrong with an answer, and the writes from the one that explains it to the ones that should.
fn why(history: &History, answered: &Answered, first: usize, explained: Option<usize>) -> String {
    let mut text = match explained.map(|index| (index, history.replaced(index))) {
        None => "no state explains it".to_owned(),
        Some((index, at)) => {
            let mut broken = Vec::new();
            let age = at.map_or(Duration::ZERO, |at| answered.asked.saturating_sub(at));
            if age > answered.bound {
                broken.push("older than the bound");
            }
            let next = history.writes()[index + 1].acknowledged;
            if next.is_some_and(|(_, moment)| answered.token.is_some_and(|token| moment <= token)) {
                broken.push("replaced before the token");
            }
            if answered.seen_before.is_some_and(|seen| index < seen) {
                broken.push("older than what the token's answer saw");
            }
            format!("it shows write {index}, replaced {age:?} before the question: {}", broken.join(", "))
        }
    };
    let from = explained.unwrap_or(first).min(first).saturating_sub(WRITES_AROUND);
    let to = (first + WRITES_AROUND).min(history.writes().len() - 1);
    for (index, write) in history.writes().iter().enumerate().take(to + 1).skip(from) {
        let mark = if index == first { "must be shown" } else { "" };
        let _always_written = write!(text, "\n  {index:>5}  {write}  {mark}");
    }
    text
}
