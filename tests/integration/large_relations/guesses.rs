//! Facts that are read on a guess: they take nothing from those that are required, and a request that ends early does not keep an
//! instance from learning whether it guessed right.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bson::doc;
use permcached::{
    check::{CheckError, Checked, Consistency},
    fact::{Fact, FactKey},
    freshness::Moment,
    question::LookupId,
    schema::Schema,
    source::{Deadline, Source, SourceError, documents::Documents},
};

use super::{MANY, NOW, cost::SCHEMA};
use crate::support::{
    both::{Asked, Collections, TIME_MAX, question, schema, shown},
    controlled::{Closed, ControlledSource},
    live::until,
    wrapper::{Wrapped, Wrapper},
};

/// More time than a load leaves to its request.
const SLOW: Duration = Duration::from_millis(100);

/// How a source fails.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// The first attempt to read a filtered fact fails.
    FailsFirst,
    /// A load of filtered facts returns nothing before its deadline, and one of whole facts takes [`SLOW`].
    Slow,
}

/// A source that reads few facts at once: the filtered ones first.
struct Narrow {
    documents: Documents,
    facts_max: usize,
    /// Whether it expects every whole fact to be large.
    expects_large: bool,
    may_stand: bool,
    fault: Option<Fault>,
    /// The filtered facts that were asked for.
    filtered: Mutex<BTreeSet<FactKey>>,
    /// The deadline of each load of a single whole fact.
    deadlines: Mutex<Vec<Deadline>>,
}

impl Narrow {
    /// A source of groups with this many members and banned users. It expects no large fact.
    fn new(schema: &Arc<Schema>, groups: &[(&str, i32)]) -> Self {
        let of = |prefix: char| -> Vec<_> {
            let of_group = |(group, count): &(&str, i32)| -> Vec<_> {
                (0..*count).map(|number| doc! { "group": *group, "user": format!("{prefix}{number}") }).collect()
            };
            groups.iter().flat_map(of_group).collect()
        };
        let collections = Collections::from([("memberships".to_owned(), of('m')), ("bans".to_owned(), of('b'))]);
        Self {
            documents: Documents::new(schema, &collections),
            facts_max: usize::MAX,
            expects_large: false,
            may_stand: false,
            fault: None,
            filtered: Mutex::default(),
            deadlines: Mutex::default(),
        }
    }
}

#[async_trait]
impl Wrapper for Narrow {
    fn inner(&self) -> &dyn Source {
        &self.documents
    }

    async fn load(
        &self,
        mut keys: Vec<FactKey>,
        _: &[FactKey],
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        if self.fault == Some(Fault::Slow) {
            if keys.iter().any(|key| key.subject.is_some()) {
                tokio::time::sleep_until(deadline.instant()).await;
                return keys.into_iter().map(|key| (key, Err(SourceError::TimedOut))).collect();
            }
            tokio::time::sleep(SLOW).await;
        }
        if let [FactKey { subject: None, .. }] = *keys {
            self.deadlines.lock().expect("no panic before").push(deadline);
        }
        keys.sort_by_key(|key| (key.subject.is_none(), key.clone()));
        let mut failing = keys.split_off(keys.len().min(self.facts_max));
        let mut filtered = self.filtered.lock().expect("no panic before").clone();
        keys.retain(|key| {
            let is_failing =
                key.subject.is_some() && filtered.insert(key.clone()) && self.fault == Some(Fault::FailsFirst);
            failing.extend(is_failing.then(|| key.clone()));
            !is_failing
        });
        *self.filtered.lock().expect("no panic before") = filtered;
        let mut loaded = self.documents.load(keys, &[], at, deadline).await;
        loaded.extend(failing.into_iter().map(|key| (key, Err(SourceError::TooMuch))));
        loaded
    }

    fn expects_large(&self, _: &FactKey, _: bool) -> bool {
        self.expects_large
    }

    fn may_stand_for_whole(&self, _: LookupId) -> bool {
        self.may_stand
    }
}

const CASES: [(&str, &str); 3] =
    [("m7", "allowed by group#member"), ("b7", "denied EXCLUDED"), ("x", "denied NO_GRANT")];

#[tokio::test]
async fn what_is_read_on_a_guess_takes_nothing_from_what_is_required() {
    let schema = Arc::new(schema("guesses.toml", SCHEMA));
    for (user, expected) in CASES {
        // The facts of members, of bans, and of bans that may name any group.
        let narrow = Narrow { facts_max: 3, expects_large: true, ..Narrow::new(&schema, &[("g", 10)]) };
        let source = Arc::new(Wrapped(narrow));
        let asked = Asked::new(&schema, Arc::<Wrapped<Narrow>>::clone(&source));
        let asks = question(&schema, &format!("user:{user}"), "read", "group:g");
        let checked = asked.check(&[asks], NOW).await.remove(0).expect("the required facts can be read");
        assert_eq!(shown(&schema, checked.answer), expected, "{user}");
        assert_eq!(source.filtered.lock().expect("no panic").len(), 3, "{user}: all were guessed");
    }
}

#[tokio::test]
async fn a_fact_that_could_not_be_read_on_a_guess_is_read_again_if_it_is_required() {
    let schema = Arc::new(schema("guesses.toml", SCHEMA));
    for (size, may_stand) in [(MANY, true), (MANY, false), (10, true), (10, false)] {
        for (user, expected) in CASES {
            let narrow = Narrow::new(&schema, &[("g", size)]);
            let narrow = Narrow { expects_large: true, may_stand, fault: Some(Fault::FailsFirst), ..narrow };
            let asked = Asked::new(&schema, Arc::new(Wrapped(narrow)));
            let asks = question(&schema, &format!("user:{user}"), "read", "group:g");
            let checked = asked.check(&[asks], NOW).await.remove(0);
            let answer = checked.unwrap_or_else(|error| panic!("{user} {size} {may_stand}: {error}")).answer;
            assert_eq!(shown(&schema, answer), expected, "{user} {size} {may_stand}");
        }
    }
}

/// The whole fact, which is required instead, is read in the other half of the time.
#[tokio::test]
async fn a_guess_that_is_not_answered_leaves_time_for_what_is_required() {
    let schema = Arc::new(schema("guesses.toml", SCHEMA));
    for may_stand in [true, false] {
        let narrow =
            Narrow { expects_large: true, may_stand, fault: Some(Fault::Slow), ..Narrow::new(&schema, &[("g", 10)]) };
        let asked = Asked::new(&schema, Arc::new(Wrapped(narrow)));
        let asks = question(&schema, "user:m7", "enter", "group:g");
        let deadline = Deadline::after(Duration::from_secs(2));
        let checked = asked.checker.check(&[asks], Consistency::FullyConsistent, deadline).await.remove(0);
        let answer = checked.unwrap_or_else(|error| panic!("{may_stand}: {error}")).answer;
        assert_eq!(shown(&schema, answer), "allowed by group#member", "{may_stand}");
    }
}

#[tokio::test]
async fn whether_a_guess_was_right_is_learned_however_little_time_the_request_has() {
    let schema = Arc::new(schema("guesses.toml", SCHEMA));
    let narrow = Narrow { expects_large: true, may_stand: true, ..Narrow::new(&schema, &[("g", 10)]) };
    let source = Arc::new(Wrapped(narrow));
    let asked = Asked::new(&schema, Arc::<Wrapped<Narrow>>::clone(&source));
    let asks = question(&schema, "user:m7", "enter", "group:g");
    let deadline = Deadline::after(Duration::from_secs(2));
    let checked = asked.checker.check(&[asks], Consistency::FullyConsistent, deadline).await.remove(0);
    assert_eq!(shown(&schema, checked.expect("an answer").answer), "allowed by group#member");
    let deadlines = || source.deadlines.lock().expect("no panic before").clone();
    until(|| !deadlines().is_empty()).await;
    assert!(deadlines().iter().all(|of_load| *of_load > deadline), "it is later than that of the request");
}

/// The first request asks for more than can be read at once.
#[tokio::test]
async fn a_request_that_joins_a_load_of_too_much_loads_its_own_facts() {
    let schema = Arc::new(schema("guesses.toml", SCHEMA));
    let groups = ["g1", "g2", "g3"];
    let narrow = Narrow { facts_max: 2, ..Narrow::new(&schema, &groups.map(|group| (group, 10))) };
    let gate = Arc::new(ControlledSource::over(&schema, Arc::new(Wrapped(narrow))));
    let asked = Asked::new(&schema, Arc::<ControlledSource>::clone(&gate));
    let questions = groups.map(|group| question(&schema, "user:m7", "enter", &format!("group:{group}")));
    let start = |questions: &[_]| {
        let (checker, questions) = (asked.checker.clone(), questions.to_vec());
        let check =
            async move { checker.check(&questions, Consistency::FullyConsistent, Deadline::after(TIME_MAX)).await };
        tokio::spawn(check)
    };
    gate.close(1, Closed::Waits);
    let large = start(&questions);
    gate.wait_for(1).await;
    let small = start(&questions[2..]);
    until(|| asked.metric("permcached_loads_joined_total") == 1).await;
    gate.open();
    let text = |checked: &Result<Checked, CheckError>| match checked {
        Ok(checked) => shown(&schema, checked.answer),
        Err(error) => error.as_str().to_owned(),
    };
    let allowed = "allowed by group#member";
    let answers: Vec<String> = large.await.expect("no panic").iter().map(text).collect();
    assert_eq!(answers, [allowed, allowed, "too_large"]);
    let answers: Vec<String> = small.await.expect("no panic").iter().map(text).collect();
    assert_eq!(answers, [allowed]);
}
