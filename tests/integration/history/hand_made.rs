//! Tests of the judge, over histories made by hand: answers that are right, too old, older than their token, or explained
//! by no state.
//!
//! Uses no server.

use std::time::Duration;

use permcached::freshness::Moment;

use super::{
    judge::{Answered, Verdict, judge},
    register::{History, Shown, State},
};

const BOUND: Duration = Duration::from_secs(2);

/// A time in seconds after the run began, by both clocks.
fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(until: i64) -> State {
    State { place: Some(1), is_active: true, until }
}

/// Granted from 10 to 11 s at moment 10, moved away from 20 to 21 s at moment 20, granted again from 30 s, not
/// acknowledged. The two grants end at 1,000,000 and at 35,000 ms.
fn history() -> History {
    let mut history = History::default();
    history.begin(at(1_000_000), seconds(10));
    history.acknowledge(seconds(11), Moment::from_count(10));
    history.begin(State { place: Some(2), ..at(1_000_001) }, seconds(20));
    history.acknowledge(seconds(21), Moment::from_count(20));
    history.begin(at(35_000), seconds(30));
    history
}

const FIRST: Shown = Shown::Allowed(Some(1_000_000));
const SECOND: Shown = Shown::Allowed(Some(35_000));

/// An answer to a question about place 1, half a second after the question.
fn answered(shown: Shown, asked: Duration) -> Answered {
    let received = asked + Duration::from_millis(500);
    let wall = [asked, received].map(|time| i64::try_from(time.as_millis()).expect("it is small"));
    Answered { place: 1, shown, asked, received, wall, bound: BOUND, token: None, seen_before: None }
}

/// The staleness of an answer that must be right, in seconds, and the oldest write that explains it.
fn right(answered: Answered) -> (u64, usize) {
    match judge(&history(), &answered) {
        Verdict::Right { oldest, staleness } => (staleness.as_secs(), oldest),
        Verdict::Wrong(why) => panic!("{answered:?}: {why}"),
    }
}

/// What is wrong with an answer that must be wrong.
fn wrong(answered: Answered) -> String {
    match judge(&history(), &answered) {
        Verdict::Wrong(why) => why.lines().next().expect("a reason").to_owned(),
        Verdict::Right { .. } => panic!("{answered:?}: right"),
    }
}

#[test]
fn an_answer_from_the_current_state_is_right() {
    assert_eq!(right(answered(Shown::Denied, seconds(5))), (0, 0));
    assert_eq!(right(answered(FIRST, seconds(15))), (0, 1));
    assert_eq!(right(answered(Shown::Denied, seconds(25))), (0, 2));
    assert_eq!(right(Answered { place: 2, ..answered(Shown::Allowed(Some(1_000_001)), seconds(25)) }), (0, 2));
}

#[test]
fn while_a_write_is_in_progress_both_states_are_right() {
    for shown in [Shown::Denied, FIRST] {
        right(Answered { bound: Duration::ZERO, ..answered(shown, seconds(10)) });
        right(Answered { bound: Duration::ZERO, ..answered(shown, seconds(20)) });
    }
    for shown in [Shown::Denied, SECOND] {
        right(Answered { bound: Duration::ZERO, ..answered(shown, seconds(33)) });
    }
    // The write may have begun before the answer was received, but no later.
    right(answered(FIRST, Duration::from_millis(9_500)));
    assert!(wrong(answered(FIRST, Duration::from_millis(9_499))).contains("no state"));
}

#[test]
fn an_answer_is_wrong_once_it_is_older_than_its_bound() {
    assert_eq!(right(answered(FIRST, seconds(23))), (2, 1));
    let late = Duration::from_millis(23_001);
    assert_eq!(
        wrong(answered(FIRST, late)),
        "it shows write 1, replaced 2.001s before the question: older than the bound"
    );
    assert!(wrong(answered(Shown::Denied, Duration::from_millis(13_001))).contains("older than the bound"));
    for bound in [Duration::ZERO, Duration::from_millis(500)] {
        assert!(wrong(Answered { bound, ..answered(FIRST, seconds(22)) }).contains("older than the bound"));
    }
}

#[test]
fn an_answer_that_ignores_its_token_is_wrong() {
    let token = |moment| Answered { token: Some(Moment::from_count(moment)), ..answered(FIRST, seconds(22)) };
    right(token(19));
    let why = "it shows write 1, replaced 1s before the question: replaced before the token";
    assert_eq!(wrong(token(20)), why);
    assert_eq!(wrong(token(21)), why);
}

#[test]
fn an_answer_older_than_the_answer_that_gave_its_token_is_wrong() {
    let seen = |write| Answered { seen_before: Some(write), ..answered(FIRST, seconds(22)) };
    right(seen(1));
    assert!(wrong(seen(2)).ends_with("older than what the token's answer saw"));
}

#[test]
fn an_answer_that_does_not_show_what_an_invalidation_covers_is_wrong() {
    let mut history = History::default();
    assert_eq!(history.acknowledged(), 0);
    history.begin(at(1_000_000), seconds(10));
    assert_eq!(history.acknowledged(), 0, "it may not have taken effect yet");
    history.acknowledge(seconds(11), Moment::from_count(10));
    assert_eq!(history.acknowledged(), 1);
    // Within the bound, and with a token before the write. But the instance received an invalidation after the write.
    let denied = |seen| {
        let answered = Answered {
            token: Some(Moment::from_count(9)),
            seen_before: Some(seen),
            ..answered(Shown::Denied, seconds(12))
        };
        matches!(judge(&history, &answered), Verdict::Right { .. })
    };
    assert!(denied(0));
    assert!(!denied(1));
}

#[test]
fn an_answer_that_no_state_explains_is_wrong() {
    // The expiry of no write, of a write at another place, of a write that had not begun.
    assert!(wrong(answered(Shown::Allowed(Some(7)), seconds(22))).contains("no state"));
    assert!(wrong(answered(Shown::Allowed(Some(1_000_001)), seconds(22))).contains("no state"));
    assert!(wrong(answered(SECOND, seconds(25))).contains("no state"));
    assert!(wrong(answered(Shown::Allowed(None), seconds(15))).contains("no state"));
}

#[test]
fn a_grant_ends_by_the_clock_alone() {
    // The second grant ends at 35 s. Until then it may have been in effect.
    right(answered(SECOND, Duration::from_millis(34_999)));
    assert!(wrong(answered(SECOND, seconds(35))).contains("no state"));
    let mut history = history();
    history.acknowledge(seconds(31), Moment::from_count(30));
    let denied = answered(Shown::Denied, Duration::from_millis(34_500));
    assert!(matches!(judge(&history, &denied), Verdict::Right { oldest: 3, .. }));
    let too_early = answered(Shown::Denied, Duration::from_millis(34_499));
    assert!(matches!(judge(&history, &too_early), Verdict::Wrong(_)));
}
