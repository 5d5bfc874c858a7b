//! The judge judged: histories made by hand, with answers that are right, too old, before their token, or of nothing there was.

use std::time::Duration;

use permcached::freshness::Moment;

use super::{
    judge::{Answered, Verdict, judge},
    register::{History, Shown, State},
};

const BOUND: Duration = Duration::from_secs(2);

/// In seconds after the run began, by both clocks.
fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(until: i64) -> State {
    State { place: Some(1), is_active: true, until }
}

/// Granted from 10 to 11 s at moment 10, moved away from 20 to 21 s at moment 20, granted again from 30 s, not acknowledged.
/// The two grants end at 1,000,000 and at 35,000 ms.
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

/// An answer to a question about place 1 that was asked then, and answered half a second later.
fn answered(shown: Shown, asked: Duration) -> Answered {
    let received = asked + Duration::from_millis(500);
    let wall = [asked, received].map(|time| i64::try_from(time.as_millis()).expect("it is small"));
    Answered { place: 1, shown, asked, received, wall, bound: BOUND, token: None, seen_before: None }
}

/// How stale the answer is that is right, in seconds; the oldest write that explains it.
fn right(answered: Answered) -> (u64, usize) {
    match judge(&history(), &answered) {
        Verdict::Right { oldest, staleness } => (staleness.as_secs(), oldest),
        Verdict::Wrong(why) => panic!("{answered:?}: {why}"),
    }
}

/// What is wrong with an answer.
fn wrong(answered: Answered) -> String {
    match judge(&history(), &answered) {
        Verdict::Wrong(why) => why.lines().next().expect("a reason").to_owned(),
        Verdict::Right { .. } => panic!("{answered:?}: right"),
    }
}

#[test]
fn an_answer_from_the_state_there_is_is_right() {
    assert_eq!(right(answered(Shown::Denied, seconds(5))), (0, 0));
    assert_eq!(right(answered(FIRST, seconds(15))), (0, 1));
    assert_eq!(right(answered(Shown::Denied, seconds(25))), (0, 2));
    assert_eq!(right(Answered { place: 2, ..answered(Shown::Allowed(Some(1_000_001)), seconds(25)) }), (0, 2));
}

#[test]
fn while_a_write_goes_on_both_states_are_right() {
    for shown in [Shown::Denied, FIRST] {
        right(Answered { bound: Duration::ZERO, ..answered(shown, seconds(10)) });
        right(Answered { bound: Duration::ZERO, ..answered(shown, seconds(20)) });
    }
    for shown in [Shown::Denied, SECOND] {
        right(Answered { bound: Duration::ZERO, ..answered(shown, seconds(33)) });
    }
    // It may have begun while the answer was on its way, and not before.
    right(answered(FIRST, Duration::from_millis(9_500)));
    assert!(wrong(answered(FIRST, Duration::from_millis(9_499))).contains("no state"));
}

#[test]
fn an_answer_is_wrong_once_it_is_older_than_its_bound() {
    assert_eq!(right(answered(FIRST, seconds(23))), (2, 1));
    let late = Duration::from_millis(23_001);
    assert_eq!(
        wrong(answered(FIRST, late)),
        "it shows write 1, replaced 2.001s before the asking: older than the bound"
    );
    assert!(wrong(answered(Shown::Denied, Duration::from_millis(13_001))).contains("older than the bound"));
    for bound in [Duration::ZERO, Duration::from_millis(500)] {
        assert!(wrong(Answered { bound, ..answered(FIRST, seconds(22)) }).contains("older than the bound"));
    }
}

#[test]
fn an_answer_is_wrong_that_ignores_its_token() {
    let token = |moment| Answered { token: Some(Moment::from_count(moment)), ..answered(FIRST, seconds(22)) };
    right(token(19));
    let why = "it shows write 1, replaced 1s before the asking: replaced before the token";
    assert_eq!(wrong(token(20)), why);
    assert_eq!(wrong(token(21)), why);
}

#[test]
fn an_answer_is_wrong_that_goes_behind_the_one_whose_token_it_had() {
    let seen = |write| Answered { seen_before: Some(write), ..answered(FIRST, seconds(22)) };
    right(seen(1));
    assert!(wrong(seen(2)).ends_with("older than what the token's answer saw"));
}

#[test]
fn an_answer_is_wrong_that_does_not_see_what_an_invalidation_covers() {
    let mut history = History::default();
    assert_eq!(history.acknowledged(), 0);
    history.begin(at(1_000_000), seconds(10));
    assert_eq!(history.acknowledged(), 0, "it may not have taken effect yet");
    history.acknowledge(seconds(11), Moment::from_count(10));
    assert_eq!(history.acknowledged(), 1);
    // Within the bound, and of an earlier moment than the write's: but the one who is asked was told.
    let denied = |seen| {
        let told = Answered {
            token: Some(Moment::from_count(9)),
            seen_before: Some(seen),
            ..answered(Shown::Denied, seconds(12))
        };
        matches!(judge(&history, &told), Verdict::Right { .. })
    };
    assert!(denied(0));
    assert!(!denied(1));
}

#[test]
fn an_answer_is_wrong_that_no_state_explains() {
    // Of no write, of another place, of one that was not begun.
    assert!(wrong(answered(Shown::Allowed(Some(7)), seconds(22))).contains("no state"));
    assert!(wrong(answered(Shown::Allowed(Some(1_000_001)), seconds(22))).contains("no state"));
    assert!(wrong(answered(SECOND, seconds(25))).contains("no state"));
    assert!(wrong(answered(Shown::Allowed(None), seconds(15))).contains("no state"));
}

#[test]
fn a_grant_ends_by_the_clock_alone() {
    // At 35 s the second grant is over; until then it may have been there.
    right(answered(SECOND, Duration::from_millis(34_999)));
    assert!(wrong(answered(SECOND, seconds(35))).contains("no state"));
    let mut history = history();
    history.acknowledge(seconds(31), Moment::from_count(30));
    let denied = answered(Shown::Denied, Duration::from_millis(34_500));
    assert!(matches!(judge(&history, &denied), Verdict::Right { oldest: 3, .. }));
    let too_early = answered(Shown::Denied, Duration::from_millis(34_499));
    assert!(matches!(judge(&history, &too_early), Verdict::Wrong(_)));
}
