//! Compares the evaluator with a naive one over random schemas, documents and questions. Tests the limits of the evaluator
//! one by one.
//!
//! Uses no server: the documents are in memory. That conditions match as in mongod is tested by `conditions`.
//!
//! Runs are repeatable. `PROPTEST_RNG_SEED=7` selects other cases, `PROPTEST_CASES=100000` more of them.

pub mod generate;
mod limits;
mod matching;
pub(crate) mod model;
mod naive;
mod negation;
pub mod oversized;
mod partial;

use std::{cell::RefCell, collections::BTreeMap, sync::Arc, time::Duration};

use bson::doc;
use permcached::{
    app::{Parts, assemble},
    check::Consistency,
    evaluate::{AvailableFacts, Outcome, Verdict, evaluate, evaluate_in_time, explain},
    fact::{Fact, FactKey},
    freshness::Moment,
    question::{Answer, Id, LookupId, Millis, Question, Reason, Subject},
    schema::{Schema, SubjectText},
    source::{Deadline, Source, documents::Documents},
    telemetry::Metrics,
};
use proptest::{strategy::Strategy, test_runner::TestCaseError};
use tokio::runtime::Runtime;

use self::{
    generate::{Asked, Case, dates, id_text, id_value},
    naive::Naive,
    oversized::Oversized,
};
use crate::support::{property, wrapper::Wrapped};

/// The number of random schemas, each with its documents and questions.
const CASES: u32 = 4_000;
/// The number of random graphs with cycles, each with its questions.
const CYCLE_CASES: u32 = 2_000;

/// Counts what occurred in all cases. A test in which something hardly occurred has shown nothing about it.
#[derive(Debug, Default)]
pub struct Seen {
    refused: u32,
    given_up: u32,
    allowed: u32,
    allowed_for_a_time: u32,
    denied_for_a_time: u32,
    denied: BTreeMap<&'static str, u32>,
    undecided: u32,
    decided_by_few: u32,
    /// Answers that depend on facts that are filtered to the subject.
    allowed_by_filtered: u32,
    denied_by_filtered: u32,
    /// Filtered facts of whole ones that were expected to be over their limit: of those that are; of those that are not, in their place;
    /// and of those that are not, where they could not be read or relied on.
    presumed_rightly: u32,
    presumed_wrongly: u32,
    presumed_unfit: u32,
    /// How many of those that were presumed wrongly were found out.
    learned: u32,
}

struct Bench {
    runtime: Runtime,
    metrics: Arc<Metrics>,
    seen: RefCell<Seen>,
}

type Answered = Result<(), Reason>;

#[test]
fn the_evaluator_agrees_with_a_naive_one() {
    let (seen, cases) = run(generate::case(), CASES);
    assert!(seen.refused * 10 < cases, "nearly all schemas are accepted");
    assert!(seen.allowed * 2 > cases, "many questions are allowed");
    for reason in Reason::ALL {
        let count = seen.denied.get(reason.as_str()).copied().unwrap_or_default();
        match reason {
            Reason::Limit => assert_eq!(count, 0, "nothing here is that large"),
            Reason::Cycle => assert!(count > 0, "some permissions reach themselves through a `!`"),
            _ => assert!(count * 12 > cases, "{} occurs only {count} times", reason.as_str()),
        }
    }
    assert!(seen.denied_for_a_time * 20 > cases, "{seen:?}");
    assert!(seen.allowed_for_a_time * 20 > cases && seen.undecided > cases && seen.decided_by_few > cases);
    assert!(seen.allowed_by_filtered * 4 > cases && seen.denied_by_filtered * 4 > cases);
    for presumed in [seen.presumed_rightly, seen.presumed_wrongly, seen.presumed_unfit] {
        assert!(presumed * 4 > cases, "{seen:?}");
    }
    assert!(seen.learned * 4 > seen.presumed_wrongly, "{seen:?}");
}

#[test]
fn the_evaluator_agrees_with_a_naive_one_about_cycles() {
    let (seen, cases) = run(generate::cycles::case(), CYCLE_CASES);
    assert_eq!(seen.refused, 0, "there is one schema, and it is valid");
    assert!(seen.allowed * 2 > cases, "many questions are allowed");
    for reason in [Reason::Malformed, Reason::Cycle, Reason::Excluded, Reason::Expired, Reason::NoGrant] {
        let count = seen.denied.get(reason.as_str()).copied().unwrap_or_default();
        assert!(count * 12 > cases, "{} occurs only {count} times", reason.as_str());
    }
}

/// There are so many ways through these groups that no explanation shows all of them.
#[test]
fn an_explanation_that_is_incomplete_has_the_result_of_the_answer() {
    let bench = Bench { runtime: runtime(), metrics: Arc::default(), seen: RefCell::default() };
    let now = dates().nth(3).expect("a date");
    let ended = bson::DateTime::from_millis(now);
    let few = vec![
        doc! { "_id": 0_i64, "next": [1_i64], "other": [] },
        doc! { "_id": 1_i64, "next": [2_i64, 4], "other": [0_i64], "owner": "s0", "until": ended },
        doc! { "_id": 2_i64, "next": [4_i64, 0], "other": [3_i64], "gone": 1 },
        doc! { "_id": 3_i64, "next": [0_i64, 4], "other": [2_i64], "gone": true },
        doc! { "_id": 4_i64, "next": [0_i64, 1], "other": [1_i64, 3, 4], "gone": true },
    ];
    let all = |number: i64| doc! { "_id": number, "next": [0_i64, 1, 2, 3, 4], "other": [4_i64, 3, 2, 1, 0] };
    let mut ends = (0..5).map(all).collect::<Vec<_>>();
    ends[3].extend(doc! { "owner": "s0", "until": ended });
    let mut bad = ends.clone();
    bad[2].insert("gone", "true");
    let mut owned = ends.clone();
    owned[1].insert("owner", "s0");
    for groups in [few, ends, bad, owned] {
        let asked = generate::cycles::all_of(groups);
        bench.case(&asked).unwrap_or_else(|error| panic!("{error}\n{asked:?}"));
    }
    println!("{:#?}", bench.seen.into_inner());
}

/// Runs this many cases, or more if the environment sets a higher number. Returns what occurred, and the number of cases.
fn run(strategy: impl Strategy<Value = Case>, cases: u32) -> (Seen, u32) {
    let bench = Bench { runtime: runtime(), metrics: Arc::default(), seen: RefCell::default() };
    let cases = property::run(&strategy, cases, 30_000, |case| bench.case(case));
    let seen = bench.seen.into_inner();
    println!("{seen:#?}");
    assert!(seen.given_up * 20 < cases, "few questions are too much work");
    (seen, cases)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn deadline() -> Deadline {
    Deadline::after(Duration::from_mins(10))
}

/// The facts that a test makes available.
#[derive(Clone, Default)]
struct TestFacts(BTreeMap<FactKey, Fact>);

impl AvailableFacts for TestFacts {
    fn get(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<&Fact> {
        self.0.get(&FactKey { lookup, id: id.clone(), subject: subject.cloned().map(Box::new) })
    }
}

impl Bench {
    fn case(&self, case: &Case) -> Result<(), TestCaseError> {
        let Ok(schema) = Schema::parse("schema.toml", &case.model.to_string()) else {
            self.seen.borrow_mut().refused += 1;
            return Ok(());
        };
        let schema = Arc::new(schema);
        let mut asked = Vec::new();
        let mut expected = Vec::new();
        for question in &case.questions {
            match naive(case, question, case.now) {
                Some(answer) => {
                    asked.push(question);
                    expected.push(answer);
                }
                None => self.seen.borrow_mut().given_up += 1,
            }
        }
        let documents = Arc::new(Documents::new(&schema, &case.collections));
        let oversized = Arc::new(Oversized::new(&schema, Arc::<Documents>::clone(&documents), &case.available));
        self.compare(case, &schema, documents, &asked, &expected)?;
        self.compare(case, &schema, Arc::<Wrapped<Oversized>>::clone(&oversized), &asked, &expected)
            .map_err(|error| TestCaseError::fail(format!("with some whole facts over their limit: {error}")))?;
        oversized.count(&mut self.seen.borrow_mut());
        Ok(())
    }

    /// Compares the answers over a source with those that are expected.
    fn compare(
        &self,
        case: &Case,
        schema: &Arc<Schema>,
        source: Arc<dyn Source>,
        asked: &[&Asked],
        expected: &[Answered],
    ) -> Result<(), TestCaseError> {
        let facts = Arc::clone(&source);
        let metrics = Arc::clone(&self.metrics);
        let parts = Parts::new(Arc::clone(schema), source);
        let checker = assemble(Parts { metrics, ..parts }).checker;
        let questions: Vec<Question> = asked.iter().map(|asked| question(case, schema, asked)).collect();
        let check = |questions: &[Question]| -> Vec<Answer> {
            let checked = checker.check_at(questions, Consistency::FullyConsistent, deadline(), || case.now);
            let checked = self.runtime.block_on(checked);
            checked.into_iter().map(|checked| checked.expect("documents in memory are always there").answer).collect()
        };
        let answers = check(&questions);
        for (at, question) in questions.iter().enumerate() {
            let (asked, answer) = (asked[at], answers[at]);
            let fail = |what: String| Err(TestCaseError::fail(format!("{asked:?}: {what}")));
            if plain(answer) != expected[at] {
                return fail(format!("the answer is {answer:?}, the naive one {:?}", expected[at]));
            }
            // The relation that grants it, and for how long, depend on the available facts: an answer names the first one
            // found.
            let alone = check(std::slice::from_ref(question));
            if alone.iter().any(|alone| plain(*alone) != plain(answer)) {
                return fail(format!("the answer is {answer:?} in a batch, but {alone:?} alone"));
            }
            if let Err(what) = self.check_with_its_facts(case, schema, &*facts, (asked, question), answer) {
                return fail(what);
            }
            if let Err(what) = check_validity(case, asked, answer) {
                return fail(what);
            }
            self.seen.borrow_mut().answer(answer);
        }
        Ok(())
    }

    /// Checks that an explanation has the same result, that a denial lasts until the time at which it may change, and that an evaluation
    /// with only some of the facts has the same result or asks for more facts.
    fn check_with_its_facts(
        &self,
        case: &Case,
        schema: &Schema,
        source: &dyn Source,
        (asked, question): (&Asked, &Question),
        answer: Answer,
    ) -> Result<(), String> {
        let (facts, explained) = load_all(&self.runtime, schema, source, question, case.now)?;
        if explained != plain(answer) {
            return Err(format!("the answer is {answer:?}, explained as {explained:?}"));
        }
        let (_, may_change_at) = evaluate_in_time(schema, question, &facts, case.now, &mut Vec::new());
        if let Answer::Denied(reason) = answer
            && (may_change_at.is_some() || !matches!(reason, Reason::NoGrant | Reason::NotFound))
        {
            self.seen.borrow_mut().denied_for_a_time += u32::from(may_change_at.is_some());
            check_denial(case, asked, may_change_at)?;
        }
        if depends_on_filtered(schema, question, &facts, case.now) {
            self.seen.borrow_mut().answer_by_filtered(answer);
        }
        let without_one = facts.0.keys().map(|key| {
            let mut less = facts.clone();
            less.0.remove(key);
            less
        });
        let mut bits = case.available.iter().cycle();
        let mut half = facts.clone();
        half.0.retain(|_, _| bits.next().is_some_and(|bit| *bit >= 128));
        for less in without_one.chain([half]) {
            let mut missing = Vec::new();
            match evaluate(schema, question, &less, case.now, &mut missing) {
                Verdict::Decided(other) if plain(other) != plain(answer) => {
                    let keys: Vec<_> = less.0.keys().collect();
                    return Err(format!("the answer is {answer:?}, but with only {keys:?} it is {other:?}"));
                }
                Verdict::Decided(_) => self.seen.borrow_mut().decided_by_few += 1,
                Verdict::Missing if missing.is_empty() => return Err("undecided, but nothing is missing".to_owned()),
                Verdict::Missing => self.seen.borrow_mut().undecided += 1,
            }
            if let Some(key) = missing.iter().find(|key| less.0.contains_key(key)) {
                return Err(format!("{key:?} is reported as missing, but it is available"));
            }
        }
        Ok(())
    }
}

/// Loads every fact that an explanation of the question looks at. Returns them, and what is explained.
fn load_all(
    runtime: &Runtime,
    schema: &Schema,
    source: &dyn Source,
    question: &Question,
    now: Millis,
) -> Result<(TestFacts, Answered), String> {
    let mut facts = TestFacts::default();
    loop {
        let mut missing = Vec::new();
        let tree = explain(schema, question, &facts, now, &mut missing);
        if missing.is_empty() {
            return match tree.outcome {
                Outcome::Holds { .. } => Ok((facts, Ok(()))),
                Outcome::Fails(reason) | Outcome::Indeterminate(reason) => Ok((facts, Err(reason))),
                Outcome::Missing => Err("a fact is missing, but none is requested".to_owned()),
            };
        }
        let loaded = runtime.block_on(source.load(missing, &[], Moment::from_count(1), deadline()));
        facts.0.extend(loaded.into_iter().map(|(key, loaded)| (key, loaded.expect("a fact"))));
    }
}

/// Whether the whole facts do not decide the question without the filtered ones.
fn depends_on_filtered(schema: &Schema, question: &Question, facts: &TestFacts, now: Millis) -> bool {
    let mut whole = facts.clone();
    whole.0.retain(|key, _| key.subject.is_none());
    whole.0.len() < facts.0.len() && evaluate(schema, question, &whole, now, &mut Vec::new()) == Verdict::Missing
}

impl Seen {
    fn answer_by_filtered(&mut self, answer: Answer) {
        match answer {
            Answer::Allowed { .. } => self.allowed_by_filtered += 1,
            Answer::Denied(_) => self.denied_by_filtered += 1,
        }
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Allowed { valid_until, .. } => {
                self.allowed += 1;
                self.allowed_for_a_time += u32::from(valid_until.is_some());
            }
            Answer::Denied(reason) => *self.denied.entry(reason.as_str()).or_default() += 1,
        }
    }
}

fn plain(answer: Answer) -> Answered {
    match answer {
        Answer::Allowed { .. } => Ok(()),
        Answer::Denied(reason) => Err(reason),
    }
}

/// Checks that an answer that is allowed until some time is allowed at every moment before it.
fn check_validity(case: &Case, asked: &Asked, answer: Answer) -> Result<(), String> {
    let Answer::Allowed { valid_until, .. } = answer else {
        return Ok(());
    };
    let is_within = |moment: &Millis| *moment > case.now && valid_until.is_none_or(|until| *moment < until);
    let last = valid_until.map(|until| until - 1).filter(|moment| *moment > case.now);
    for moment in dates().filter(is_within).chain(last) {
        if let Some(Err(reason)) = naive(case, asked, moment) {
            return Err(format!("{answer:?} at {}, but already denied at {moment}: {reason:?}", case.now));
        }
    }
    match valid_until {
        Some(until) if until <= case.now => Err(format!("{answer:?} has already ended at {}", case.now)),
        _ => Ok(()),
    }
}

/// Checks that what is denied now is still denied at the last date before the time at which that may change.
fn check_denial(case: &Case, asked: &Asked, may_change_at: Option<Millis>) -> Result<(), String> {
    let is_within = |moment: &Millis| *moment > case.now && may_change_at.is_none_or(|until| *moment < until);
    match dates().filter(is_within).max().filter(|moment| naive(case, asked, *moment) == Some(Ok(()))) {
        Some(moment) => Err(format!("denied at {} until {may_change_at:?}, but allowed at {moment}", case.now)),
        None => Ok(()),
    }
}

fn naive(case: &Case, asked: &Asked, now: Millis) -> Option<Answered> {
    let subject = asked.subject.map(|(kind, id)| (kind, id_value(case.subject_form(kind), id)));
    let (kind, id) = asked.resource;
    let id = id_value(case.resource_form(kind), id);
    Naive::new(&case.model, &case.collections, subject, now).answer(&asked.permission, kind, &id)
}

fn question(case: &Case, schema: &Schema, asked: &Asked) -> Question {
    let subject_id = asked.subject.map(|(kind, id)| (kind, id_text(case.subject_form(kind), id)));
    let subject = match &subject_id {
        Some((kind, id)) => SubjectText::Known { kind, id },
        None => SubjectText::Anonymous,
    };
    let (kind, id) = asked.resource;
    let id = id_text(case.resource_form(kind), id);
    schema.question(subject, &asked.permission, kind, &id).expect("a question of the schema")
}
