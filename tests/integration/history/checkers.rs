//! Checkers: each asks one instance until the run ends, in every consistency mode, and has each answer judged at once.
//!
//! Does not decide whether an answer is right; that is in `judge`.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use fastrand::Rng;
use permcached::{
    check::{CheckError, Checked, Consistency},
    diagnosis::error_chain,
    freshness::{Clock, Moment, Token},
    invalidate::{Invalidated, Outdated, OutdatedDocument},
    question::{Answer, Question},
    source::Deadline,
};
use tokio::time::sleep;

use super::{
    instances::Instance,
    judge::{Answered, Verdict, judge},
    kinds::PLACES,
    lists,
    register::Shown,
    run::{Earlier, Register, Run, wall},
    tally::Mode,
};

/// How long a request may take.
const TIME_MAX: Duration = Duration::from_secs(1);

/// How many questions a small request has at most, and a large one.
const QUESTIONS_MAX: usize = 3;
const BATCH_MAX: usize = 100;

/// The longest pause of a checker after a request.
const REST_MAX_MS: u64 = 12;

/// How many requests in a hundred follow an invalidation. Few, because an invalidated fact is read again whether or not the
/// instance received its change.
const INVALIDATIONS_PERCENT: u8 = 4;

/// How many requests in a hundred are for lists: none unless `CHAOS_LISTS_PERCENT` says so, as `make chaos` does. Judging them takes much
/// time.
pub static LISTS_PERCENT: LazyLock<u8> = LazyLock::new(|| {
    let percent = std::env::var("CHAOS_LISTS_PERCENT").ok();
    percent.map_or(0, |percent| percent.parse().expect("CHAOS_LISTS_PERCENT is a number from 0 to 100"))
});

/// The values of `max_age`, in milliseconds. Above the bound, the bound applies.
const AGES_MS: [u64; 6] = [0, 50, 250, 500, 1_000, 5_000];

/// Separates the seeds of checkers from those of writers.
const CHECKER_SEEDS: u64 = 1 << 32;

/// How fresh the answers to a request must be.
struct Required {
    mode: Mode,
    consistency: Consistency,
    bound: Duration,
    token: Option<Moment>,
    /// The write that the answer about the first register must not be older than: what the answer that gave the token
    /// showed, or what was acknowledged before the invalidation.
    seen_before: Option<usize>,
}

/// A request that is about to be sent.
struct Request {
    required: Required,
    /// The registers and the places that it asks about.
    asked: Vec<(usize, u8)>,
}

/// Asks until the run ends.
pub async fn check(run: Arc<Run>, index: usize) {
    let mut rng = Rng::with_seed(run.seed.wrapping_add(CHECKER_SEEDS + index as u64));
    let instance = index % run.count();
    while !run.is_over() {
        let asked_instance = run.instance(instance);
        let request = request(&run, &asked_instance, &mut rng).await;
        if rng.u8(..100) < *LISTS_PERCENT {
            let Request { required, asked } = &request;
            let Required { mode, consistency, bound, token, seen_before } = *required;
            let (register, place) = asked[0];
            let asked = lists::Asked { mode, consistency, bound, token, seen_before, register, place };
            lists::list(&run, &asked_instance, &asked, Deadline::after(TIME_MAX), &mut rng).await;
            sleep(Duration::from_millis(rng.u64(1..REST_MAX_MS))).await;
            continue;
        }
        let questions: Vec<Question> =
            request.asked.iter().map(|(register, place)| run.question(*register, *place)).collect();
        let (asked, first) = (run.now(), wall());
        let results =
            asked_instance.app.checker.check(&questions, request.required.consistency, Deadline::after(TIME_MAX)).await;
        let times = Times { asked, received: run.now(), wall: [first, wall()] };
        for (index, result) in results.into_iter().enumerate() {
            let wrong = match result {
                Ok(checked) => objection(&run, &request, index, &times, checked),
                Err(error) => {
                    run.tally().failed(&error);
                    // No request is invalid: every token is from an answer or from the set.
                    let is_honest = matches!(error, CheckError::Unavailable(_) | CheckError::DeadlineExceeded);
                    (!is_honest).then(|| error_chain(&error).to_string())
                }
            };
            if let Some(wrong) = wrong {
                run.tally().violated(format!("{} {wrong}", described(&run, &request, index, &times, instance)));
            }
        }
        sleep(Duration::from_millis(rng.u64(1..REST_MAX_MS))).await;
    }
}

/// A question, the instance that was asked, and when.
fn described(run: &Run, request: &Request, index: usize, times: &Times, instance: usize) -> String {
    let Required { mode, bound, token, .. } = &request.required;
    let (register, place) = request.asked[index];
    let (kind, number) = (run.registers[register].kind, run.registers[register].number);
    let token = token.map_or_else(String::new, |token| format!(", token {:#x}", token.as_u64()));
    let (mode, Times { asked, received, .. }) = (mode.as_str(), times);
    format!(
        "{kind:?} {number} at place {place}, by instance {instance}, {mode} within {bound:?}{token}, {asked:.1?} to {received:.1?}:\n "
    )
}

/// When a request was sent and answered, by both clocks.
struct Times {
    asked: Duration,
    received: Duration,
    wall: [i64; 2],
}

/// Chooses what to ask, and how fresh the answers must be.
async fn request(run: &Run, asked_instance: &Arc<Instance>, rng: &mut Rng) -> Request {
    let mut asked = Vec::new();
    let is_last_written = rng.bool();
    let questions_max = if rng.bool() { QUESTIONS_MAX } else { BATCH_MAX };
    for number in 0..=rng.usize(..questions_max) {
        let register =
            if is_last_written && number == 0 { run.last_written() } else { rng.usize(..run.registers.len()) };
        asked.push((register, interesting_place(run, register, rng)));
    }
    // The write that was acknowledged last is the most likely to be missed.
    if is_last_written && rng.bool() {
        return Request { required: after_the_write(run, asked[0].0), asked };
    }
    let (mode, consistency, bound) = match rng.u8(..100) {
        0..INVALIDATIONS_PERCENT => {
            return Request { required: after_an_invalidation(run, asked_instance, asked[0], rng).await, asked };
        }
        INVALIDATIONS_PERCENT..40 => (Mode::MinimizeLatency, Consistency::MinimizeLatency, run.bound),
        40..55 => return Request { required: after_a_write(run, asked[0].0, rng), asked },
        55..70 => match run.earlier(|count| rng.usize(..count)) {
            None => (Mode::MinimizeLatency, Consistency::MinimizeLatency, run.bound),
            Some(earlier) => {
                asked[0] = (earlier.register, earlier.place);
                return Request { required: after_an_answer(run, &earlier), asked };
            }
        },
        70..80 => (Mode::FullyConsistent, Consistency::FullyConsistent, Duration::ZERO),
        _ => {
            let age = Duration::from_millis(AGES_MS[rng.usize(..AGES_MS.len())]);
            (Mode::MaxAge, Consistency::MaxAge(age), age.min(run.bound))
        }
    };
    Request { required: Required { mode, consistency, bound, token: None, seen_before: None }, asked }
}

/// With the token of the last acknowledged write, of this register or of another one.
fn after_a_write(run: &Run, register: usize, rng: &mut Rng) -> Required {
    after_the_write(run, if rng.bool() { register } else { rng.usize(..run.registers.len()) })
}

/// With the token of the last acknowledged write of this register.
fn after_the_write(run: &Run, register: usize) -> Required {
    let acknowledged = run.registers[register].history().writes().iter().rev().find_map(|write| write.acknowledged);
    let moment = acknowledged.map_or(Moment::default(), |(_, moment)| moment);
    let consistency = Consistency::AtLeastAsFresh(Token { clock: Clock::Cluster, moment });
    Required { mode: Mode::OperationTime, consistency, bound: run.bound, token: Some(moment), seen_before: None }
}

/// With the token of an earlier answer.
fn after_an_answer(run: &Run, earlier: &Earlier) -> Required {
    let (consistency, token) = (Consistency::AtLeastAsFresh(earlier.token), Some(earlier.token.moment));
    Required { mode: Mode::AsOf, consistency, bound: run.bound, token, seen_before: Some(earlier.seen) }
}

/// After an invalidation of what a register's answer depends on. The request carries its token, unless it goes to the
/// instance that received the invalidation. The answer must show everything that was acknowledged before the invalidation.
async fn after_an_invalidation(
    run: &Run,
    asked_instance: &Arc<Instance>,
    (register, place): (usize, u8),
    rng: &mut Rng,
) -> Required {
    let seen = run.registers[register].history().acknowledged();
    let receiver = if rng.u8(..4) == 0 { Arc::clone(asked_instance) } else { run.instance(rng.usize(..run.count())) };
    let outdated = outdated(run, register, place, rng);
    let invalidated = receiver.app.invalidator.invalidate(&outdated, Deadline::after(TIME_MAX)).await;
    run.tally().invalidated(invalidated.as_ref().ok().map(|invalidated| invalidated.is_published));
    let minimal = Required {
        mode: Mode::MinimizeLatency,
        consistency: Consistency::MinimizeLatency,
        bound: run.bound,
        token: None,
        seen_before: None,
    };
    let Ok(Invalidated { token, .. }) = invalidated else { return minimal };
    run.keep(Earlier { register, place, token, seen });
    let invalidated = Required { mode: Mode::Invalidated, seen_before: Some(seen), ..minimal };
    if Arc::ptr_eq(&receiver, asked_instance) {
        return invalidated;
    }
    Required { consistency: Consistency::AtLeastAsFresh(token), token: Some(token.moment), ..invalidated }
}

/// What to invalidate: the resource of the answer, its document, its subject, or sometimes everything.
fn outdated(run: &Run, register: usize, place: u8, rng: &mut Rng) -> Outdated {
    let Question { subject, resource, .. } = run.question(register, place);
    let Register { kind, number, .. } = &run.registers[register];
    let (mut resources, mut documents, mut subjects) = (Vec::new(), Vec::new(), Vec::new());
    match rng.u8(..50) {
        0 => return Outdated::All,
        1..20 => resources.push(resource),
        20..35 => {
            let collection = run.schema().collection_id(kind.collection()).expect("the schema names it");
            documents.push(OutdatedDocument::new(collection, &number.to_string()));
        }
        _ => subjects.push(subject),
    }
    Outdated::These { resources, documents, subjects }
}

/// A place at which the register grants or granted shortly before, if there is one: an answer about it shows the most.
fn interesting_place(run: &Run, register: usize, rng: &mut Rng) -> u8 {
    let back = rng.usize(..3);
    let history = run.registers[register].history();
    let place = history.writes().iter().rev().skip(back).find_map(|write| write.state.place);
    place.unwrap_or_else(|| rng.u8(..PLACES))
}

/// Has an answer judged. Returns what is wrong with it.
fn objection(run: &Run, request: &Request, index: usize, times: &Times, checked: Checked) -> Option<String> {
    let Required { mode, bound, token, seen_before, .. } = request.required;
    let (register, place) = request.asked[index];
    let shown = match checked.answer {
        Answer::Allowed { valid_until, .. } => Shown::Allowed(valid_until),
        Answer::Denied(_) => Shown::Denied,
    };
    let Times { asked, received, wall } = *times;
    let seen_before = seen_before.filter(|_| index == 0);
    let answered = Answered { place, shown, asked, received, wall, bound, token, seen_before };
    let verdict = judge(&run.registers[register].history(), &answered);
    match verdict {
        Verdict::Right { oldest, staleness } => {
            run.keep(Earlier { register, place, token: checked.as_of, seen: oldest });
            run.tally().judged(mode, checked.tier, shown, staleness);
            None
        }
        Verdict::Wrong(why) => {
            let (tier, as_of, age) = (checked.tier.as_str(), checked.as_of.moment.as_u64(), checked.age);
            let shown = checked.answer;
            Some(format!("{shown:?} from {tier}, as of {as_of:#x}, age {age:?}: {why}"))
        }
    }
}
