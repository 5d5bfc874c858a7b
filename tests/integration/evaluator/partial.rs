//! Evaluates fixed questions with every selection of their facts: an answer and its reason do not depend on which facts are
//! loaded first.
//!
//! Each case needs one combination of values that random cases rarely contain.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bson::{Document, doc};
use permcached::{
    evaluate::{Verdict, evaluate},
    question::Reason,
    schema::{Schema, SubjectText},
    source::documents::Documents,
};

use super::{Answered, TestFacts, load_all, plain, runtime};

const SCHEMA: &str = r#"
    default_subject = "user"

    [subject.user]
    id = "string"

    [resource.folder]
    id = "integer"
    collection = "folders"

    [resource.folder.relations]
    reader = { field = "readers", subject = "user" }
    banned = { collection = "bans", by = "folder", field = "user" }

    [resource.folder.permissions]
    read = "reader"

    [resource.group]
    id = "integer"
    collection = "groups"

    [resource.group.relations]
    folder = { field = "folder", resource = "folder" }
    kept   = { field = "folder", resource = "folder", must_exist = true }
    within = { field = "within", resource = "group" }
    inner  = { field = "within", subject = "group.let_in" }
    outer  = { field = "within", subject = "group.let_out" }
    guest  = { field = "within", subject = "group.let_in", until = "until" }
    member = { field = "member", subject = "user" }
    banned = { collection = "bans", by = "group", field = "user" }
    muted  = { collection = "mutes", by = "group", field = "user" }

    [resource.group.permissions]
    let_in   = "(banned | folder.read) & inner"
    let_out  = "(!banned | folder.read) & outer"
    shut     = "!inner & (banned | !folder.read)"
    spared   = "!(muted & banned) & member"
    apart    = "!kept.banned"
    unkept   = "!kept.read & member"
    past     = "!guest & member"
    late     = "guest"
    odd      = "folder.read & !within.even & !muted"
    even     = "folder.read & !within.odd & !banned"
"#;

/// Asks a question about the group 1 with every selection of the facts that it depends on. Returns the collections of the facts without
/// which it is decided, each by itself.
fn assert_answer(
    groups: &[Document],
    others: &[(&str, Document)],
    permission: &str,
    expected: Answered,
) -> BTreeSet<String> {
    let mut collections = BTreeMap::from([("groups".to_owned(), groups.to_vec())]);
    for (name, document) in others {
        collections.entry((*name).to_owned()).or_default().push(document.clone());
    }
    let schema = Arc::new(Schema::parse("partial.toml", SCHEMA).expect("a valid schema"));
    let source = Documents::new(&schema, &collections);
    let subject = SubjectText::Known { kind: "user", id: "anna" };
    let question = schema.question(subject, permission, "group", "1").expect("a question of the schema");
    let (facts, _) = load_all(&runtime(), &schema, &source, &question, 0).expect("all facts");
    let facts: Vec<_> = facts.0.into_iter().collect();
    assert!(facts.len() < 16, "few enough facts to try every selection");
    let mut unneeded = BTreeSet::new();
    for selection in 0..1_u32 << facts.len() {
        let is_selected = |place: &usize| selection & (1 << place) != 0;
        let some = (0..facts.len()).filter(is_selected).map(|place| facts[place].clone());
        let some = TestFacts(some.collect());
        let mut missing = Vec::new();
        match evaluate(&schema, &question, &some, 0, &mut missing) {
            Verdict::Decided(answer) => {
                let keys: Vec<_> = some.0.keys().collect();
                assert_eq!(plain(answer), expected, "{permission} with only {keys:?}");
                if keys.len() + 1 == facts.len() {
                    let without = facts.iter().filter(|(key, _)| !some.0.contains_key(key));
                    unneeded.extend(without.map(|(key, _)| schema.lookup(key.lookup).collection.to_string()));
                }
            }
            Verdict::Missing => assert!(!missing.is_empty(), "{permission}: undecided, but nothing is missing"),
        }
        assert!(missing.iter().all(|key| !some.0.contains_key(key)), "{permission}: an available fact is missing");
    }
    unneeded
}

fn group(id: i64, within: &[i64]) -> Document {
    doc! { "_id": id, "within": within.to_vec(), "folder": 1_i64, "member": "anna" }
}

fn folder(reader: &str) -> (&'static str, Document) {
    ("folders", doc! { "_id": 1_i64, "readers": [reader] })
}

#[test]
fn a_group_of_itself_grants_nothing_whichever_fact_is_loaded_first() {
    for permission in ["let_in", "let_out"] {
        for groups in [vec![group(1, &[2]), group(2, &[2])], vec![group(1, &[2]), group(2, &[1])], vec![group(1, &[1])]]
        {
            assert_answer(&groups, &[folder("anna")], permission, Err(Reason::NoGrant));
        }
    }
    let ban = ("bans", doc! { "_id": 1, "group": 2_i64, "user": "anna" });
    for reader in ["anna", "bert"] {
        let others = [folder(reader), ban.clone()];
        assert_answer(&[group(1, &[2]), group(2, &[2])], &others, "let_in", Err(Reason::NoGrant));
    }
    assert_answer(&[group(1, &[2]), group(2, &[2])], &[folder("bert"), ban], "let_out", Err(Reason::Excluded));
}

#[test]
fn the_exclusion_of_a_group_of_itself_has_one_reason() {
    let groups = [group(1, &[2]), group(2, &[2])];
    assert_answer(&groups, &[folder("anna")], "shut", Err(Reason::Excluded));
    assert_answer(&groups, &[folder("bert")], "shut", Ok(()));
    let ban = ("bans", doc! { "_id": 1, "group": 1_i64, "user": "anna" });
    assert_answer(&groups, &[folder("anna"), ban], "shut", Ok(()));
}

#[test]
fn what_depends_on_itself_through_an_exclusion_has_one_reason() {
    let groups = [group(1, &[2]), group(2, &[1])];
    assert_answer(&groups, &[folder("anna")], "odd", Err(Reason::Cycle));
    assert_answer(&groups, &[folder("bert")], "odd", Err(Reason::NoGrant));
    for (collection, id, expected) in
        [("mutes", 1, Err(Reason::Excluded)), ("bans", 2, Ok(())), ("bans", 1, Err(Reason::Cycle))]
    {
        let document = (collection, doc! { "_id": 1, "group": i64::from(id), "user": "anna" });
        assert_answer(&groups, &[folder("anna"), document], "odd", expected);
    }
    let bad = ("bans", doc! { "_id": 1, "group": 2_i64, "user": 7 });
    assert_answer(&groups, &[folder("anna"), bad], "odd", Err(Reason::Malformed));
}

#[test]
fn a_side_that_is_surely_false_lets_an_exclusion_hold_before_all_is_loaded() {
    let ban = ("bans", doc! { "_id": 1, "group": 1_i64, "user": "anna" });
    let mute = ("mutes", doc! { "_id": 1, "group": 1_i64, "user": "anna" });
    for (one, other) in [(Vec::new(), "bans mutes"), (vec![ban.clone()], "bans"), (vec![mute.clone()], "mutes")] {
        let unneeded = assert_answer(&[group(1, &[])], &one, "spared", Ok(()));
        let unneeded: Vec<_> = unneeded.iter().map(String::as_str).collect();
        assert_eq!(unneeded.join(" "), other, "{one:?}");
    }
    assert_answer(&[group(1, &[])], &[ban, mute], "spared", Err(Reason::Excluded));
}

#[test]
fn an_edge_that_must_not_dangle_is_decided_only_when_its_end_is_loaded() {
    assert_answer(&[group(1, &[])], &[], "apart", Err(Reason::Malformed));
    assert_answer(&[group(1, &[])], &[folder("anna")], "apart", Ok(()));
    assert_answer(&[group(1, &[])], &[], "unkept", Err(Reason::Malformed));
    let ban = ("bans", doc! { "_id": 1, "folder": 1_i64, "user": "anna" });
    assert_answer(&[group(1, &[])], &[folder("anna"), ban.clone()], "apart", Err(Reason::Excluded));
    assert_answer(&[group(1, &[])], &[ban], "apart", Err(Reason::Malformed));
}

#[test]
fn a_grant_that_is_over_grants_nothing_whatever_it_leads_to() {
    let mut past = group(1, &[2]);
    past.insert("until", bson::DateTime::from_millis(-1));
    let unneeded = assert_answer(&[past.clone(), group(2, &[2])], &[folder("anna")], "past", Ok(()));
    assert!(unneeded.contains("groups"), "{unneeded:?}");
    // What it leads to grants nothing either, which is the reason.
    assert_answer(&[past.clone(), group(2, &[2])], &[folder("anna")], "late", Err(Reason::NoGrant));
    assert_answer(&[past], &[folder("anna")], "past", Ok(()));
    let ban = ("bans", doc! { "_id": 1, "group": 2_i64, "user": "anna" });
    assert_answer(&[group(1, &[2]), group(2, &[2])], &[ban], "past", Ok(()));
}
