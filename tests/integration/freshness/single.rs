//! A standalone server without change streams: mode `ttl` (docs/freshness.md, point 13).
//!
//! Behind mongos, which is the same without the promise, is not tested here.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bson::doc;
use permcached::{
    check::{Consistency, Settings},
    freshness::{Clock, Token},
    invalidate::Outdated,
    question::{Question, Tier},
    source::Deadline,
};

use super::{GUEST, NO_GRANT, SCHEMA, USER, file, id, reads, share, users};
use crate::support::{
    both::{TIME_MAX, fill, schema, shown},
    live::Live,
    servers::standalone_mongo,
};

const BOUND: Duration = Duration::from_millis(700);

async fn guest() -> (Live, Question) {
    let schema = Arc::new(schema("single.toml", SCHEMA));
    let database = standalone_mongo().database().await;
    let all = [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
    fill(&database, &schema, &all.map(|(name, documents)| (name.to_owned(), documents)).into()).await;
    let settings = Settings { staleness_max: BOUND, ..Settings::default() };
    let live = Live::over(schema, database, settings).await;
    let question = reads(&live, USER, 1);
    assert_eq!(shown(&live.schema, live.until_cached(&question).await), GUEST);
    (live, question)
}

async fn delete_share(live: &Live) {
    let deletes = vec![doc! { "q": { "_id": id(50) }, "limit": 1 }];
    let deleted = live.database.run_command(doc! { "delete": "shares", "deletes": deletes }).await;
    assert_eq!(deleted.expect("the command is right").get_i32("n").ok(), Some(1));
}

#[tokio::test]
async fn cached_facts_count_for_the_bound_and_are_then_read_again() {
    let (live, question) = guest().await;
    delete_share(&live).await;
    let deleted = Instant::now();
    loop {
        let asked = deleted.elapsed();
        if live.answer(&question, Consistency::MinimizeLatency).await == NO_GRANT {
            break;
        }
        assert!(asked <= BOUND, "allowed though asked {asked:?} after the write");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn facts_are_read_again_right_after_an_invalidation_and_for_its_token() {
    let (live, question) = guest().await;
    delete_share(&live).await;
    let resource = question.resource.clone();
    let outdated = Outdated::These { resources: vec![resource], documents: Vec::new(), subjects: Vec::new() };
    let token = live.app.invalidator.invalidate(&outdated, Deadline::after(TIME_MAX)).await.expect("a token").token;
    assert_eq!(token.clock, Clock::Local);
    assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, NO_GRANT);
    let checked = live.ask(&question, Consistency::AtLeastAsFresh(token)).await.expect("an answer");
    assert_eq!((shown(&live.schema, checked.answer).as_str(), checked.tier), (NO_GRANT, Tier::Source));
    assert_eq!(checked.as_of, Token { clock: Clock::Local, moment: checked.as_of.moment });
}
