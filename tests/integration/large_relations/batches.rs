//! Several subjects in one batch: none is answered by a fact that is filtered to another.

use std::sync::Arc;

use async_trait::async_trait;
use bson::doc;
use permcached::{
    fact::{Fact, FactKey},
    freshness::Moment,
    question::{LookupId, Subject},
    source::{Deadline, Source, SourceError, documents::Documents},
};

use super::{MANY, NOW};
use crate::support::{
    both::{Asked, Both, Collections, question, schema, shown},
    wrapper::{Wrapped, Wrapper},
};

const SCHEMA: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "string"
    [subject.robot]
    id = "string"
    [subject.link]
    id = "string"
    secret = true
    [resource.file]
    id = "integer"
    collection = "files"
    [resource.file.relations]
    owner  = { field = "owner" }
    banned = { collection = "bans", by = "file", field = "user" }
    unfit  = { collection = "bans", by = "file", field = "robot", subject = "robot" }
    dead   = { collection = "bans", by = "file", field = "link", subject = "link" }
    [resource.file.permissions]
    read = "!banned & !unfit & !dead"
    edit = "owner & !banned"
"#;

#[tokio::test]
async fn in_a_batch_no_subject_is_answered_by_the_fact_of_another() {
    let mut bans: Vec<_> =
        (0..MANY).map(|number| doc! { "_id": number, "file": 1, "user": format!("u{number}") }).collect();
    bans.push(doc! { "_id": 5_000, "file": 1, "robot": "same" });
    bans.push(doc! { "_id": 5_001, "file": 1, "link": "u7" });
    let files = vec![doc! { "_id": 1, "owner": "anna" }];
    let collections = Collections::from([("bans".to_owned(), bans), ("files".to_owned(), files)]);
    let both = Both::new(schema("bans.toml", SCHEMA), &collections).await;
    let cases = [
        ("user:u7", "denied EXCLUDED"),
        ("user:anna", "allowed"),
        ("user:u8", "denied EXCLUDED"),
        ("user:same", "allowed"),
        ("robot:same", "denied EXCLUDED"),
        ("robot:u7", "allowed"),
        ("link:u7", "denied EXCLUDED"),
        ("link:u8", "allowed"),
        ("anonymous", "allowed"),
        ("user:none", "allowed"),
    ];
    // In both orders, together and one by one, cold and warm.
    for _ in 0..2 {
        for reversed in [false, true] {
            let mut cases = cases.to_vec();
            if reversed {
                cases.reverse();
            }
            let questions: Vec<_> =
                cases.iter().map(|(subject, _)| question(&both.schema, subject, "read", "file:1")).collect();
            let answers = both.ask(&questions, super::NOW).await;
            for ((subject, expected), answers) in cases.iter().zip(answers) {
                for answer in answers {
                    assert_eq!(shown(&both.schema, answer), *expected, "{subject}");
                }
            }
            for (subject, expected) in cases {
                let question = question(&both.schema, subject, "read", "file:1");
                let answers = both.ask(&[question], super::NOW).await;
                assert_eq!(answers[0].map(|answer| shown(&both.schema, answer)), [expected, expected], "{subject}");
            }
        }
    }
    let owner = question(&both.schema, "user:anna", "edit", "file:1");
    let answers = both.ask(&[owner], super::NOW).await;
    assert_eq!(answers[0].map(|answer| shown(&both.schema, answer)), ["allowed by file#owner"; 2]);
}

/// A source that expects every whole fact of memberships to be large, although none is.
struct Expecting {
    documents: Documents,
    memberships: LookupId,
    /// A subject whose filtered facts cannot be relied on.
    odd: Subject,
    /// Where these facts come from. None if they cannot be read.
    odd_facts: Option<Documents>,
}

#[async_trait]
impl Wrapper for Expecting {
    fn inner(&self) -> &dyn Source {
        &self.documents
    }

    async fn load(
        &self,
        keys: Vec<FactKey>,
        _: &[FactKey],
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let (odd, others): (Vec<_>, _) = keys.into_iter().partition(|key| key.subject() == Some(&self.odd));
        let mut loaded = self.documents.load(others, &[], at, deadline).await;
        match &self.odd_facts {
            Some(documents) => loaded.extend(documents.load(odd, &[], at, deadline).await),
            None => loaded.extend(odd.into_iter().map(|key| (key, Err(SourceError::TooMuch)))),
        }
        loaded
    }

    fn expects_large(&self, key: &FactKey, _: bool) -> bool {
        key.lookup == self.memberships
    }

    fn may_stand_for_whole(&self, lookup: LookupId) -> bool {
        lookup == self.memberships
    }
}

const GROUPS: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "string"
    [resource.group]
    id = "string"
    [resource.group.relations]
    member = { collection = "memberships", by = "group", field = "user", until = "until" }
    [resource.group.permissions]
    enter = "member"
    [resource.hall]
    id = "string"
    collection = "halls"
    [resource.hall.relations]
    group = { field = "group", resource = "group" }
    [resource.hall.permissions]
    enter = "group.enter"
"#;

/// The first question asks for the group's members in the first round, the second one in the next.
#[tokio::test]
async fn a_group_that_is_presumed_to_be_large_for_one_subject_is_not_so_for_another_without_a_fact_to_rely_on() {
    let schema = Arc::new(schema("groups.toml", GROUPS));
    let documents = |of_group| {
        let halls = vec![doc! { "_id": "h", "group": "g" }];
        let all = Collections::from([("memberships".to_owned(), of_group), ("halls".to_owned(), halls)]);
        Documents::new(&schema, &all)
    };
    let member = |user: &str| doc! { "group": "g", "user": user };
    let doubtful = doc! { "group": "g", "user": "bob", "until": "tomorrow" };
    let questions = [("user:anna", "group:g"), ("user:bob", "hall:h")];
    let questions = questions.map(|(user, resource)| question(&schema, user, "enter", resource));
    let memberships = schema.lookups().find(|(_, lookup)| &*lookup.collection == "memberships").expect("a lookup").0;
    let allowed = "allowed by group#member";
    for (members, odd_facts, expected) in [
        (vec![member("anna"), member("bob")], None, allowed),
        // Only the whole fact tells that the user is no member.
        (vec![member("anna")], Some(documents(vec![member("bob"), doubtful])), "denied NO_GRANT"),
    ] {
        let odd = questions[1].subject.clone();
        let source = Expecting { documents: documents(members), memberships, odd, odd_facts };
        let asked = Asked::new(&schema, Arc::new(Wrapped(source)));
        let answers = asked.check(&questions, NOW).await;
        let answers = answers.into_iter().map(|answer| answer.expect("the whole fact can be read").answer);
        let texts: Vec<String> = answers.map(|answer| shown(&schema, answer)).collect();
        assert_eq!(texts, [allowed, expected]);
    }
}
