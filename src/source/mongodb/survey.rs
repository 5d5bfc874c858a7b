//! Reads the documents of a survey: the newest, the oldest and random ones of each collection, bounded in number, bytes and
//! time.
//!
//! Changes nothing, and caches nothing. What follows from the documents is decided in `source::survey`.

use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use tokio::time::{Instant, timeout};

use super::{DriverError, MongoDb, decode::Decoded, primary};
use crate::{
    diagnosis::{Diagnosis, Subject},
    source::survey::Survey,
};

/// How many documents of a collection are looked at.
const DOCUMENTS_MAX: i32 = 1_000;

/// How many bytes of a collection are read.
const BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// How long the survey of one collection may take, and that of all.
const COLLECTION_TIME: Duration = Duration::from_secs(3);
const TOTAL_TIME: Duration = Duration::from_secs(15);

/// The field in which the names of a document's fields are returned. No document has it.
const NAMES: &str = "names of the fields";

impl MongoDb {
    /// Looks at some documents of each collection of the schema. Skips what cannot be read in time.
    pub(super) async fn survey_documents(&self) -> Vec<Diagnosis> {
        let until = Instant::now() + TOTAL_TIME;
        let mut diagnoses = Vec::new();
        for collection in self.schema.collections() {
            let mut survey = Survey::new(&self.schema, collection, Subject::MongoDb);
            let left = until.saturating_duration_since(Instant::now()).min(COLLECTION_TIME);
            let skipped = match timeout(left, self.survey_collection(&mut survey, collection)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("it takes too long".to_owned()),
            };
            if let Some(why) = skipped {
                let message = format!("some documents of `{collection}` were not looked at: {why}");
                diagnoses.push(Diagnosis::skipped(Subject::MongoDb, message));
            }
            diagnoses.extend(survey.diagnoses());
        }
        diagnoses
    }

    async fn survey_collection(&self, survey: &mut Survey, name: &str) -> Result<(), DriverError> {
        let collection = self.client.database().collection::<RawDocumentBuf>(name);
        let count = collection.estimated_document_count().selection_criteria(primary()).await?;
        self.learn_count(name, count);
        let third = DOCUMENTS_MAX / 3;
        let parts = if count <= u64::from(DOCUMENTS_MAX.unsigned_abs()) {
            vec![doc! { "$limit": DOCUMENTS_MAX }]
        } else {
            vec![doc! { "$sort": { "_id": -1 } }, doc! { "$sort": { "_id": 1 } }, doc! { "$sample": { "size": third } }]
        };
        let mut projection: Document =
            survey.fields().into_iter().map(|field| (field.to_owned(), Bson::Int32(1))).collect();
        let fields = doc! { "$objectToArray": "$$ROOT" };
        projection.insert(NAMES, doc! { "$map": { "input": fields, "in": "$$this.k" } });
        let mut bytes_left = BYTES_MAX;
        for first in parts {
            let mut pipeline = vec![first.clone()];
            if first.contains_key("$sort") {
                pipeline.push(doc! { "$limit": third });
            }
            pipeline.push(doc! { "$project": projection.clone() });
            let found = collection.aggregate(pipeline).max_time(COLLECTION_TIME).selection_criteria(primary());
            let mut documents = found.with_type::<RawDocumentBuf>().await?;
            let mut sampled = Vec::new();
            while bytes_left > 0
                && let Some(document) = documents.try_next().await?
            {
                bytes_left = bytes_left.saturating_sub(document.as_bytes().len());
                let mut document = Decoded::of(&document).document;
                let names = match document.remove(NAMES) {
                    Some(Bson::Array(names)) => names,
                    _ => Vec::new(),
                };
                survey.add(&document, names.into_iter().filter_map(|name| name.as_str().map(str::to_owned)));
                sampled.extend(first.contains_key("$sample").then_some(document));
            }
            if !sampled.is_empty() {
                self.learn_sample(name, &sampled, count);
            }
        }
        for edge in survey.edges() {
            let (target, ids) = edge.targets();
            if ids.is_empty() {
                continue;
            }
            let targets = self.client.database().collection::<Document>(target);
            let found =
                targets.find(doc! { "_id": { "$in": ids } }).projection(doc! { "_id": 1 }).max_time(COLLECTION_TIME);
            let found: Vec<Document> = found.selection_criteria(primary()).await?.try_collect().await?;
            edge.set_existing(found.into_iter().filter_map(|mut document| document.remove("_id")));
        }
        Ok(())
    }
}
