//! Facts of reverse lookups, which only lists ask for: change events mark them by what a document leads to afterwards, and, where that
//! is too much, all facts of the lookup at once.

use std::collections::BTreeSet;

use bson::{Document, doc};
use permcached::{
    fact::{FactKey, Grantee},
    facts::FreshnessRequirement,
    freshness::Moment,
    question::{Id, LookupId},
    source::Deadline,
};

use crate::support::{
    both::TIME_MAX,
    live::{Live, Two},
};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "integer"

[resource.team]
id = "integer"
collection = "teams"

[resource.team.relations]
member = { field = "members" }

[resource.file]
id = "integer"
collection = "files"

[resource.file.relations]
team = { field = "team", resource = "team" }
guest = { collection = "shares", by = "file", field = "user", wildcard = true }

[resource.file.permissions]
read = "team.member | guest"
"#;

/// The reverse lookup of a collection.
fn reverse(live: &Live, collection: &str) -> LookupId {
    let mut lookups =
        live.schema.lookups().filter(|(_, lookup)| lookup.is_reverse && *lookup.collection == *collection);
    lookups.next().expect("there is one").0
}

fn requirement() -> FreshnessRequirement {
    FreshnessRequirement { as_of: Moment::default(), stamp: Moment::default() }
}

/// What the fact of a key leads to; it is loaded if it is not cached.
async fn leads(live: &Live, key: &FactKey) -> BTreeSet<Id> {
    let loaded = live.app.facts.load(vec![key.clone()], Vec::new(), requirement(), Deadline::after(TIME_MAX)).await;
    let (_, result) = loaded.into_iter().next().expect("one result");
    let fact = result.expect("a fact").fact;
    let relation = live.schema.lookup(key.lookup).relations[0];
    let ids = fact.grants(relation).map(|grant| match &grant.grantee {
        Grantee::Id(id) => id.clone(),
        other => panic!("{other:?}"),
    });
    ids.collect()
}

fn is_cached(live: &Live, key: &FactKey) -> bool {
    live.app.facts.cached(key.lookup, &key.id, None, requirement()).is_some()
}

/// After a change at this moment, asserts for each key on both instances whether its fact still counts, and what it leads to.
async fn notice(two: &Two, moment: Moment, expected: &[(&FactKey, bool, &[i64])]) {
    for live in [&two.first, &two.second] {
        live.until_applied(moment).await;
        for (key, counts, ids) in expected {
            assert_eq!(is_cached(live, key), *counts, "{key:?} counts");
            let ids: BTreeSet<Id> = ids.iter().copied().map(Id::Integer).collect();
            assert_eq!(leads(live, key).await, ids, "{key:?}");
            assert!(is_cached(live, key), "{key:?} is cached again");
        }
    }
}

fn key(lookup: LookupId, user: i64) -> FactKey {
    FactKey::whole(lookup, Id::Integer(user))
}

/// A team of this many members, 1,000 being the first.
fn team(members: i64) -> Document {
    doc! { "_id": 1, "members": (1_000..1_000 + members).collect::<Vec<_>>() }
}

#[tokio::test]
async fn what_a_document_leads_to_afterwards_is_marked() {
    let share = |id: &str, file: i32, user: i32| doc! { "_id": id, "file": file, "user": user };
    let two = Two::new(SCHEMA, &[("teams", vec![team(3)]), ("shares", vec![share("a", 1, 1)])]).await;
    let live = &two.first;
    let (teams, shares) = (reverse(live, "teams"), reverse(live, "shares"));
    let (old, new, other) = (key(teams, 1_000), key(teams, 7), key(teams, 8));
    let only = || doc! { "_id": 1 };
    notice(&two, live.first_floor, &[(&old, false, &[1]), (&new, false, &[]), (&other, false, &[])]).await;
    let moment = live.update("teams", only(), doc! { "$push": { "members": 7 } }).await;
    // The first two are of the document, or of a key that it has now.
    notice(&two, moment, &[(&old, false, &[1]), (&new, false, &[1]), (&other, true, &[])]).await;
    let moment = live.update("teams", only(), doc! { "$pull": { "members": 1_000 } }).await;
    notice(&two, moment, &[(&old, false, &[]), (&new, false, &[1]), (&other, true, &[])]).await;
    let moment = live.update("teams", only(), doc! { "$set": { "name": "a" } }).await;
    notice(&two, moment, &[(&old, true, &[]), (&new, true, &[1]), (&other, true, &[])]).await;

    let (guest, everybody) = (key(shares, 2), FactKey::everybody(shares));
    notice(&two, moment, &[(&guest, false, &[]), (&everybody, false, &[])]).await;
    let moment = live.insert("shares", vec![share("b", 5, 2)]).await;
    notice(&two, moment, &[(&guest, false, &[5]), (&everybody, true, &[])]).await;
    let moment = live.insert("shares", vec![doc! { "_id": "c", "file": 6, "user": "*" }]).await;
    notice(&two, moment, &[(&guest, true, &[5]), (&everybody, false, &[6])]).await;
    let moment = live.delete("shares", doc! { "_id": "b" }).await;
    notice(&two, moment, &[(&guest, false, &[]), (&everybody, true, &[6])]).await;
}

#[tokio::test]
async fn a_document_that_leads_to_many_marks_all_facts_of_the_lookup() {
    let two = Two::new(SCHEMA, &[("teams", vec![team(1_000)])]).await;
    let live = &two.first;
    let (teams, shares) = (reverse(live, "teams"), reverse(live, "shares"));
    let (old, new, other, elsewhere) = (key(teams, 1_000), key(teams, 7), key(teams, 8), key(shares, 8));
    let before = [(&old, false, &[1][..]), (&new, false, &[]), (&other, false, &[]), (&elsewhere, false, &[])];
    notice(&two, live.first_floor, &before).await;
    let only = || doc! { "_id": 1 };
    let moment = live.update("teams", only(), doc! { "$push": { "members": 7 } }).await;
    notice(&two, moment, &[(&old, false, &[1]), (&new, false, &[1]), (&other, false, &[]), (&elsewhere, true, &[])])
        .await;
    let moment = live.update("teams", only(), doc! { "$pull": { "members": 1_000 } }).await;
    notice(&two, moment, &[(&old, false, &[]), (&new, false, &[1]), (&other, false, &[]), (&elsewhere, true, &[])])
        .await;
    // Only the lookup is marked: nothing else is read again.
    assert_eq!(live.app.freshness.floor(), live.first_floor);
}
