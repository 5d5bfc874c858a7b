//! The feed over a change stream that the test controls: at which moment it opens a stream again, and when it raises the
//! floor.

use std::{sync::Arc, time::Duration};

use bson::Document;
use permcached::{
    app::{App, ChangesFrom, Parts, assemble},
    check::{Checked, Consistency},
    fact::{DocumentId, FactKey},
    freshness::{Changed, Freshness, Moment},
    question::{Id, Question, Tier},
    schema::Schema,
    source::{Deadline, StreamError},
};
use tokio::task::JoinSet;

use super::{GUEST, NO_GRANT, SCHEMA, USER, file, id, share, users};
use crate::support::{
    both::{question, schema, shown},
    live::until,
    memory_source::MemorySource,
};

/// An application over a source in memory, with a guest's share of file 1.
struct Followed {
    schema: Arc<Schema>,
    source: MemorySource,
    app: App,
    question: Question,
    _tasks: JoinSet<()>,
}

impl Followed {
    async fn new() -> Self {
        let schema = Arc::new(schema("streams.toml", SCHEMA));
        let source = MemorySource::new(&schema, Moment::new(1_763_900_000, 1));
        for (collection, documents) in [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])] {
            source.write(collection, documents, Vec::new());
        }
        let changes = ChangesFrom::ChangeStream(Arc::new(source.clone()));
        let mut app = assemble(Parts { changes, ..Parts::new(Arc::clone(&schema), Arc::new(source.clone())) });
        let tasks = app.start().await.expect("the source answers");
        let question = question(&schema, &format!("user:{}", id(USER)), "read", &format!("file:{}", id(1)));
        let followed = Self { schema, source, app, question, _tasks: tasks };
        until(|| followed.source.opened_at().len() == 1).await;
        followed
    }

    fn freshness(&self) -> &Freshness {
        &self.app.freshness
    }

    async fn ask(&self) -> Checked {
        let deadline = Deadline::after(Duration::from_secs(30));
        let questions = std::slice::from_ref(&self.question);
        self.app.checker.check(questions, Consistency::MinimizeLatency, deadline).await.remove(0).expect("an answer")
    }

    /// The answer, in words.
    async fn answer(&self) -> String {
        shown(&self.schema, self.ask().await.answer)
    }

    /// Asks until all facts are cached, and the answer is that of a guest.
    async fn cache_the_grant(&self) {
        let mut checked = self.ask().await;
        while checked.tier != Tier::Memory {
            checked = self.ask().await;
        }
        assert_eq!(shown(&self.schema, checked.answer), GUEST);
    }

    /// Writes the shares of file 1, which the change stream reports.
    fn write_shares(&self, shares: Vec<Document>) -> Moment {
        let (lookup, shares_by_file) =
            self.schema.lookups().find(|(_, lookup)| &*lookup.collection == "shares").expect("a lookup");
        let changed = vec![
            Changed::Document {
                collection: shares_by_file.collection_id,
                id: DocumentId::Id(Id::ObjectId(id(50).bytes())),
            },
            Changed::Key(FactKey::whole(lookup, Id::ObjectId(id(1).bytes()))),
        ];
        self.source.write("shares", shares, changed)
    }

    async fn watermark_reaches(&self, moment: Moment) {
        until(|| self.freshness().watermark() >= moment).await;
    }

    async fn streams_opened(&self, count: usize) -> Vec<Moment> {
        until(|| self.source.opened_at().len() >= count).await;
        self.source.opened_at()
    }
}

#[tokio::test]
async fn a_stream_that_failed_is_opened_again_at_the_watermark_and_the_floor_stays() {
    let followed = Followed::new().await;
    let first_floor = followed.freshness().floor();
    let watermark = followed.write_shares(vec![share(50, 1)]);
    followed.watermark_reaches(watermark).await;
    followed.cache_the_grant().await;
    followed.source.fail_stream(StreamError::Failed("no primary".to_owned()));
    assert_eq!(followed.streams_opened(2).await, [first_floor, watermark]);
    let revoked = followed.write_shares(Vec::new());
    followed.watermark_reaches(revoked).await;
    assert_eq!(followed.answer().await, NO_GRANT);
    assert_eq!(followed.freshness().floor(), first_floor, "nothing was missed");
}

#[tokio::test]
async fn after_lost_changes_the_floor_is_a_fresh_probe_and_the_stream_is_opened_there() {
    let followed = Followed::new().await;
    followed.cache_the_grant().await;
    let revoked_silently = followed.source.write("shares", Vec::new(), Vec::new());
    followed.source.fail_stream(StreamError::Lost("history lost".to_owned()));
    let opened_at = followed.streams_opened(2).await;
    let floor = followed.freshness().floor();
    assert!(floor >= revoked_silently, "the probe was sent after the loss");
    assert_eq!(opened_at[1], floor);
    assert_eq!(followed.answer().await, NO_GRANT);
}

#[tokio::test]
async fn a_stream_that_was_invalidated_is_opened_again_right_after_that_moment() {
    let followed = Followed::new().await;
    followed.cache_the_grant().await;
    let invalidated = followed.source.invalidate_stream();
    assert_eq!(followed.streams_opened(2).await[1], invalidated.next());
    assert_eq!(followed.freshness().floor(), invalidated);
    let revoked = followed.write_shares(Vec::new());
    followed.watermark_reaches(revoked).await;
    assert_eq!(followed.answer().await, NO_GRANT);
    assert_eq!(followed.source.opened_at().len(), 2, "the second stream does not end at the same event");
}

#[tokio::test]
async fn a_stream_that_stays_behind_the_probes_is_opened_again_at_the_watermark() {
    let followed = Followed::new().await;
    let first_floor = followed.freshness().floor();
    followed.cache_the_grant().await;
    followed.source.stop_streams();
    let revoked = followed.write_shares(Vec::new());
    until(|| {
        // Time goes on, so that the probes are past the watermark.
        followed.source.advance();
        followed.source.opened_at().len() >= 3
    })
    .await;
    assert_eq!(followed.source.opened_at()[..3], [first_floor; 3]);
    assert!(followed.freshness().watermark() < revoked, "no stream has reported it");
    followed.source.resume_streams();
    followed.watermark_reaches(revoked).await;
    assert_eq!(followed.answer().await, NO_GRANT);
    assert_eq!(followed.freshness().floor(), first_floor, "nothing was missed");
}
