//! Sources that fail or hang, and callers that give up: the result is always an error, never a denial.
//!
//! Does not test a real database.

use std::time::{Duration, Instant};

use permcached::transport::proto::{
    BatchCheckRequest, CheckRequest, ExplainRequest, ListPermissionsRequest, Reason,
    batch_check_response::result::Outcome,
};
use prost::Message as _;
use tokio::time::sleep;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::{ALICE, ROADMAP, ZOE, ask, check, question};
use crate::support::{
    controlled::Fault,
    live::in_one_attempt,
    service::{Client, PATIENCE, Service, resource, subject},
};

/// The statuses of the three calls with a single status, all with this question.
async fn statuses(client: &Client, request: &CheckRequest, timeout: Option<Duration>) -> Vec<Result<(), Status>> {
    fn timed<T>(message: T, timeout: Option<Duration>) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        request
    }
    let mut client = client.clone();
    let CheckRequest { subject, permission, resource, consistency, .. } = request.clone();
    let checked = client.check(timed(request.clone(), timeout)).await.map(drop);
    let list = ListPermissionsRequest {
        subject: subject.clone(),
        resource: resource.clone(),
        consistency: consistency.clone(),
    };
    let listed = client.list_permissions(timed(list, timeout)).await.map(drop);
    let explain = ExplainRequest { subject, permission, resource, consistency };
    let explained = client.explain(timed(explain, timeout)).await.map(drop);
    vec![checked, listed, explained]
}

#[track_caller]
fn assert_has_retry_info(status: &Status, code: Code) {
    assert_eq!(status.code(), code, "{status:?}");
    let details = status.get_error_details();
    let retry = details.retry_info().and_then(|info| info.retry_delay).expect("RetryInfo");
    assert!(!retry.is_zero() && retry < Duration::from_secs(10), "{retry:?}");
}

/// The client's own timer would report `CANCELLED`, so `DEADLINE_EXCEEDED` shows that the service answered first. It
/// reserves 10 ms for that, which may be too little while many tests run: so there are several tries.
#[tokio::test]
async fn a_deadline_is_kept_whatever_the_source_does() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    const TRIES: usize = 10;
    for fault in [Fault::ProbeHangs, Fault::LoadHangs] {
        let (service, source) = Service::faulty(Fault::None, 8).await;
        let client = service.client();
        assert!(ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap().allowed, "the connection is open");
        source.set(fault.clone());
        let mut codes = Vec::new();
        for _ in 0..TRIES {
            let tried = statuses(&client, &check(ALICE, "read", ROADMAP), Some(TIMEOUT)).await;
            codes = tried.into_iter().map(|status| status.expect_err("an error").code()).collect();
            if codes == [Code::DeadlineExceeded; 3] {
                break;
            }
        }
        assert_eq!(codes, [Code::DeadlineExceeded; 3], "{fault:?}");

        let mut results = Err(Status::cancelled("never tried"));
        for _ in 0..TRIES {
            let questions = vec![question(ALICE, "read", ROADMAP), question(ALICE, "raed", ROADMAP)];
            let mut request = Request::new(BatchCheckRequest { questions, consistency: None, dependencies: false });
            request.set_timeout(TIMEOUT);
            results = client.clone().batch_check(request).await;
            if results.is_ok() {
                break;
            }
        }
        let results = results.unwrap().into_inner().results;
        let codes: Vec<_> = results.into_iter().map(|result| error_of(result.outcome).code()).collect();
        assert_eq!(codes, [Code::DeadlineExceeded, Code::InvalidArgument], "{fault:?}");
    }
}

#[tokio::test]
async fn without_a_deadline_the_service_has_one_of_its_own() {
    let (service, _) = Service::faulty(Fault::LoadHangs, 8).await;
    let started = Instant::now();
    let status = ask(&service.client(), check(ALICE, "read", ROADMAP)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(
        started.elapsed() >= Duration::from_millis(1_900) && started.elapsed() < PATIENCE,
        "{:?}",
        started.elapsed()
    );

    // A caller cannot ask for longer.
    let mut request = Request::new(check(ALICE, "read", ROADMAP));
    request.set_timeout(PATIENCE);
    let status = service.client().check(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

/// With almost no time, either the client's timer or the server's may expire first. In both cases the result is an error.
#[tokio::test]
async fn a_deadline_that_has_passed_is_no_answer() {
    let service = Service::start().await;
    for timeout in ["0n", "1n", "1u"] {
        let mut request = Request::new(check(ALICE, "read", ROADMAP));
        request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        let status = service.client().check(request).await.unwrap_err();
        assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{timeout}: {status:?}");
    }
    for nonsense in ["", "soon", "-1m", "1", "123456789m", "1 m"] {
        let mut request = Request::new(check(ALICE, "read", ROADMAP));
        request.metadata_mut().insert("grpc-timeout", nonsense.parse().unwrap());
        let answer = service.client().check(request).await.unwrap_or_else(|status| panic!("{nonsense}: {status:?}"));
        assert!(answer.into_inner().answer.unwrap().allowed);
    }
}

#[tokio::test]
async fn a_source_that_fails_is_unavailable_and_never_a_denial() {
    for fault in [Fault::ProbeFails, Fault::LoadFails("users"), Fault::LoadFails("files")] {
        let (service, source) = Service::faulty(fault.clone(), 8).await;
        let client = service.client();
        for (who, what) in [(ALICE, ROADMAP), (ZOE, ROADMAP), (ZOE, "file:f11e000000000000000000ff")] {
            for status in statuses(&client, &check(who, "read", what), None).await {
                let status = status.expect_err("an error");
                assert_has_retry_info(&status, Code::Unavailable);
                assert!(
                    !format!("{status:?}").contains("s3cret-host"),
                    "the driver's message is for the log only: {status:?}"
                );
            }
        }
        source.set(Fault::None);
        assert!(ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap().allowed, "no failure is cached");
    }
}

#[tokio::test]
async fn a_question_that_does_not_depend_on_the_broken_part_is_answered() {
    let (service, _) = Service::faulty(Fault::LoadFails("shares"), 8).await;
    let client = service.client();
    let owner = ask(&client, check(ALICE, "read", ROADMAP)).await.unwrap();
    assert!(owner.allowed);
    let absent = ask(&client, check(ZOE, "read", "file:f11e000000000000000000ff")).await.unwrap();
    assert_eq!(absent.reason(), Reason::NotFound);
    // One of her permissions depends on the shares, so the list as a whole has no answer.
    let list = ListPermissionsRequest { subject: subject(ZOE), resource: resource(ROADMAP), consistency: None };
    assert_has_retry_info(&client.clone().list_permissions(list).await.unwrap_err(), Code::Unavailable);
}

fn error_of(outcome: Option<Outcome>) -> Status {
    match outcome {
        Some(Outcome::Error(error)) => {
            Status::with_details(error.code.into(), error.message.clone(), error.encode_to_vec().into())
        }
        other => panic!("not an error: {other:?}"),
    }
}

#[tokio::test]
async fn in_a_batch_a_failing_source_affects_only_the_questions_that_depend_on_it() {
    let (service, source) = Service::faulty(Fault::LoadFails("shares"), 8).await;
    let questions = vec![
        question(ZOE, "read", ROADMAP),
        question(ALICE, "read", ROADMAP),
        question(ZOE, "raed", ROADMAP),
        question(ZOE, "write", "file:f11e000000000000000000ff"),
    ];
    let request = BatchCheckRequest { questions, consistency: None, dependencies: false };
    let results = service.client().batch_check(request.clone()).await.unwrap().into_inner().results;
    let [unavailable, allowed, wrong, denied] = results.try_into().unwrap();
    assert_has_retry_info(&error_of(unavailable.outcome), Code::Unavailable);
    assert!(matches!(allowed.outcome, Some(Outcome::Answer(answer)) if answer.allowed));
    assert_eq!(error_of(wrong.outcome).code(), Code::InvalidArgument);
    assert!(matches!(denied.outcome, Some(Outcome::Answer(answer)) if answer.reason() == Reason::NotFound));

    source.set(Fault::ProbeFails);
    let results = service.client().batch_check(request).await.unwrap().into_inner().results;
    let codes: Vec<_> = results.into_iter().map(|result| error_of(result.outcome).code()).collect();
    assert_eq!(codes, [Code::Unavailable, Code::Unavailable, Code::InvalidArgument, Code::Unavailable]);
}

#[tokio::test]
async fn one_request_too_many_is_refused_and_a_cancelled_one_frees_its_permit() {
    // On a busy machine the first request may reach its deadline before.
    in_one_attempt(cancelling_frees_the_permit).await;
}

/// Whether the permit of a cancelled request is free before that request's deadline.
async fn cancelling_frees_the_permit() -> bool {
    let (service, source) = Service::faulty(Fault::LoadHangs, 1).await;
    let first = tokio::spawn({
        let client = service.client();
        async move { ask(&client, check(ALICE, "read", ROADMAP)).await }
    });
    source.wait_for_probes(1).await;
    let client = service.client();
    for status in statuses(&client, &check(ALICE, "read", ROADMAP), None).await {
        assert_has_retry_info(&status.expect_err("no permit"), Code::ResourceExhausted);
    }
    let batch =
        BatchCheckRequest { questions: vec![question(ALICE, "read", ROADMAP)], consistency: None, dependencies: false };
    assert_has_retry_info(&client.clone().batch_check(batch).await.unwrap_err(), Code::ResourceExhausted);
    assert_eq!(source.probes(), 1, "a refused request does not reach the source");

    first.abort();
    source.set(Fault::None);
    let started = Instant::now();
    loop {
        // Another question: the load for the first one still runs, and this request would join it.
        match ask(&client, check("anonymous", "read", "file:f11e000000000000000000ff")).await {
            Ok(answer) => {
                assert!(!answer.allowed);
                return started.elapsed() < Duration::from_millis(1_800);
            }
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
        sleep(Duration::from_millis(5)).await;
    }
}
