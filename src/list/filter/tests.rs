//! The filters of a small schema, as documents.

use bson::{Bson, Document, doc};

use super::*;
use crate::{
    list::{Asker, Secret},
    question::{IdForm, Subject},
};

const SCHEMA: &str = r#"
default_subject = "user"
[subject.user]
id = "integer"
[subject.user.relations]
admin = { collection = "admins", by = "user" }
[subject.link]
id = "string"
secret = true
[resource.folder]
id = "integer"
collection = "folders"
[resource.folder.relations]
owner = { field = "owner" }
[resource.place]
id = "string"
collection = "places"
[resource.place.relations]
owner = { field = "owner" }
[resource.file]
id = "integer"
collection = "files"
[resource.file.relations]
owner   = { field = "owner" }
editor  = { field = "editor" }
deleted = { where = { is_deleted = true } }
folder  = { field = "folder", resource = "folder" }
guest   = { collection = "shares", by = "file", field = "user" }
link    = { field = "token", subject = "link" }
place   = { field = "meta.place", resource = "place" }
part    = { each = "parts", field = "_id", where = { _id = { "$in" = [5, 7, 9] } } }
bits    = { where = { flags = { "$bitsAllSet" = 1 } } }
equal   = { where = { "$expr" = { "$eq" = ["$a.b", "$c.d"] } } }
[resource.file.permissions]
own      = "owner"
change   = "owner | editor"
live     = "!deleted & owner"
inside   = "folder.owner | owner"
shared   = "guest & owner"
barred   = "!guest"
unshared = "!guest & owner"
admin    = "subject.admin & folder.owner | owner"
anyone   = "owner | !owner | subject.admin"
all      = "subject.admin"
by_link  = "link"
placed   = "place.owner"
inner    = { is = "folder.owner", private = true }
twice    = "link & inner | inner"
part_of  = "part"
no_bits  = "!bits"
unequal  = "!equal"
long0    = { is = "owner | editor | deleted", private = true }
long1    = { is = "long0 & guest | long0 & deleted | long0 & owner | long0 & editor", private = true }
long2    = { is = "long1 & guest | long1 & deleted | long1 & owner | long1 & editor", private = true }
long3    = { is = "long2 & guest | long2 & deleted | long2 & owner | long2 & editor", private = true }
long4    = { is = "long3 & guest | long3 & deleted | long3 & owner | long3 & editor", private = true }
long5    = { is = "long4 & guest | long4 & deleted | long4 & owner | long4 & editor", private = true }
long6    = { is = "long5 & guest | long5 & deleted | long5 & owner | long5 & editor", private = true }
long     = "long6 & owner"
[resource.page]
id = "integer"
collection = "pages"
[resource.page.relations]
owner = { field = "owner" }
[resource.page.permissions]
own = "owner"
[resource.sheet]
collection = "pages"
[resource.sheet.relations]
owner = { field = "owner" }
[resource.sheet.permissions]
own = "owner"
[resource.note]
id = "string"
collection = "pages"
[resource.note.relations]
owner = { field = "owner" }
[resource.note.permissions]
own = "owner"
"#;

fn schema() -> Schema {
    Schema::parse("test.toml", SCHEMA).unwrap_or_else(|errors| panic!("{errors}"))
}

fn member(schema: &Schema, kind: &str, name: &str) -> (ResourceTypeId, Member) {
    let (id, resource) = schema.resources().find(|(_, resource)| *resource.name == *kind).unwrap();
    (id, resource.members[name])
}

fn question(schema: &Schema, permission: &str) -> ListQuestion {
    let (kind, Member::Permission(permission)) = member(schema, "file", permission) else { panic!("{permission}") };
    let subject = Subject::Known { kind: schema.default_subject(), id: Id::Integer(7) };
    ListQuestion { asker: Asker::new(subject), permission, kind }
}

fn flag(schema: &Schema) -> RelationId {
    schema.subject(schema.default_subject()).relations["admin"]
}

fn compiled(permission: &str, known: &Known) -> (PlanKind, Document) {
    let schema = schema();
    let filter = compile(&schema, &question(&schema, permission), known, 0).unwrap();
    (filter.kind, filter.condition.to_query())
}

#[test]
fn a_field_of_the_document_is_compared_with_the_id() {
    let none = Known::default();
    assert_eq!(compiled("own", &none), (PlanKind::Exact, doc! { "owner": { "$eq": 7_i64 } }));
    let either = doc! { "$or": [{ "owner": { "$eq": 7_i64 } }, { "editor": { "$eq": 7_i64 } }] };
    assert_eq!(compiled("change", &none), (PlanKind::Exact, either));
}

#[test]
fn a_value_of_a_wrong_type_does_not_fail_under_a_not() {
    let (kind, filter) = compiled("live", &Known::default());
    assert_eq!(kind, PlanKind::Exact);
    let sides = filter.get_array("$and").unwrap();
    assert_eq!(sides[0], doc! { "is_deleted": { "$ne": true } }.into());
    let Bson::Document(types) = &sides[1] else { panic!("{filter}") };
    let types = types.get_document("is_deleted").unwrap().get_document("$not").unwrap().get_array("$type").unwrap();
    assert!(types.contains(&"string".into()) && !types.contains(&"bool".into()) && !types.contains(&"null".into()));
    let nested = doc! { "is_deleted": { "$not": { "$elemMatch": { "$type": ["array"] } } } };
    assert_eq!(sides[2], nested.into());
    assert_eq!(sides[3], doc! { "owner": { "$eq": 7_i64 } }.into());
}

#[test]
fn id_sets_are_required_and_then_listed() {
    let schema = schema();
    let (kind, owner) = member(&schema, "folder", "owner");
    let set = IdSet { kind, edge: None, member: owner };
    let asked = question(&schema, "inside");
    let required = required(&schema, &asked, &Known::default());
    assert_eq!(required, Required { id_sets: vec![set], flags: vec![] });
    let mut known = Known::default();
    known.id_sets.insert(set, vec![Id::Integer(1), Id::Integer(2)]);
    let filter = compile(&schema, &asked, &known, 0).unwrap();
    let expected = doc! { "$or": [{ "owner": { "$eq": 7_i64 } }, { "folder": { "$in": [1_i64, 2_i64] } }] };
    assert_eq!((filter.kind, filter.condition.to_query(), filter.ids), (PlanKind::Exact, expected, 2));
}

#[test]
fn a_relation_elsewhere_is_a_list_of_ids() {
    let schema = schema();
    let (kind, guest) = member(&schema, "file", "guest");
    let mut known = Known::default();
    known.id_sets.insert(IdSet { kind, edge: None, member: guest }, vec![Id::Integer(4)]);
    let both = doc! { "$and": [{ "_id": { "$eq": 4_i64 } }, { "owner": { "$eq": 7_i64 } }] };
    assert_eq!(compiled("shared", &known), (PlanKind::Exact, both));
    let without = doc! { "$and": [{ "_id": { "$ne": 4_i64 } }, { "owner": { "$eq": 7_i64 } }] };
    assert_eq!(compiled("unshared", &known), (PlanKind::Superset, without));
    known.id_sets.insert(IdSet { kind, edge: None, member: guest }, vec![]);
    assert_eq!(compiled("shared", &known), (PlanKind::None, doc! { "_id": { "$in": [] } }));
}

#[test]
fn a_flag_of_the_subject_is_a_constant() {
    let schema = schema();
    let (kind, owner) = member(&schema, "folder", "owner");
    let set = IdSet { kind, edge: None, member: owner };
    let required = |known: &Known| required(&schema, &question(&schema, "admin"), known);
    assert_eq!(required(&Known::default()), Required { id_sets: vec![set], flags: vec![flag(&schema)] });
    for (value, asks) in [(FlagValue::Holds, true), (FlagValue::Fails, false), (FlagValue::Indeterminate, false)] {
        let known = Known { flags: HashMap::from([(flag(&schema), value)]), ..Known::default() };
        assert_eq!(required(&known).id_sets, if asks { vec![set] } else { vec![] });
        let everything = value == FlagValue::Holds;
        let all = compiled("all", &known);
        assert_eq!(all.0, if everything { PlanKind::All } else { PlanKind::None });
        assert_eq!(all.1.is_empty(), everything);
        if everything {
            assert_eq!(compiled("anyone", &known), (PlanKind::All, doc! {}));
        }
    }
}

#[test]
fn what_no_query_narrows_is_an_error() {
    let schema = schema();
    let error = compile(&schema, &question(&schema, "barred"), &Known::default(), 0).unwrap_err();
    let ListError::NotNarrowable { part, .. } = error else { panic!("{error:?}") };
    assert_eq!(part, "file#guest");
}

#[test]
fn the_filter_for_a_secret_contains_the_secret() {
    let schema = schema();
    let mut asked = question(&schema, "by_link");
    let (kind, _) = schema.subjects().find(|(_, kind)| kind.secret).unwrap();
    let id = Id::parse("t0ken", IdForm::String, true).unwrap();
    asked.asker = Asker { subject: Subject::Known { kind, id }, secret: Some(Secret::new("t0ken")) };
    let filter = compile(&schema, &asked, &Known::default(), 0).unwrap();
    assert_eq!(filter.kind, PlanKind::Exact);
    let condition = filter.condition;
    assert!(condition.matches(&doc! { "token": "t0ken" }) && !condition.matches(&doc! { "token": "other" }));
    asked.asker.secret = None;
    assert_eq!(compile(&schema, &asked, &Known::default(), 0).unwrap().kind, PlanKind::Superset);
}

#[test]
fn a_filter_that_is_too_large_is_an_error() {
    let schema = schema();
    let (kind, owner) = member(&schema, "folder", "owner");
    let set = IdSet { kind, edge: None, member: owner };
    let ids = |count: i64| Known {
        id_sets: HashMap::from([(set, (0..count).map(Id::Integer).collect())]),
        ..Known::default()
    };
    let compile = |known: &Known| compile(&schema, &question(&schema, "inside"), known, 0);
    let large = compile(&ids(10_000)).unwrap();
    assert_eq!(large.notes, [Note::ManyValues { branch: "folder#owner".to_owned(), count: 10_000 }]);
    let error = compile(&ids(1_000_000)).unwrap_err();
    assert!(matches!(error, ListError::TooManyIds { .. }), "{error:?}");
}

#[test]
fn a_permission_that_was_of_no_use_before_requires_its_ids_again() {
    let schema = schema();
    let (kind, owner) = member(&schema, "folder", "owner");
    let set = IdSet { kind, edge: None, member: owner };
    let required = required(&schema, &question(&schema, "twice"), &Known::default());
    assert_eq!(required.id_sets, [set]);
    let known = Known { id_sets: HashMap::from([(set, vec![Id::Integer(1)])]), ..Known::default() };
    assert_eq!(compiled("twice", &known), (PlanKind::Exact, doc! { "folder": { "$eq": 1_i64 } }));
}

#[test]
fn a_permission_that_names_others_again_and_again_is_bounded() {
    let filter = compile(&schema(), &question(&schema(), "long"), &Known::default(), 0).unwrap();
    assert_eq!(filter.kind, PlanKind::Superset);
    let tests = filter.condition.to_query().to_string().matches("\"$").count();
    assert!(tests < 3 * TESTS_MAX, "{tests}");
}

/// What no query finds exactly is found together with as little else as possible.
#[test]
fn a_superset_leaves_out_values_that_surely_have_a_wrong_type() {
    for (permission, denied, other) in [
        ("no_bits", doc! { "flags": "text" }, doc! { "flags": 2 }),
        ("unequal", doc! { "a": 5 }, doc! { "a": { "b": 5 } }),
        ("unequal", doc! { "c": [{ "d": 5 }, 5] }, doc! { "c": [{ "d": 5 }] }),
    ] {
        let filter = compile(&schema(), &question(&schema(), permission), &Known::default(), 0).unwrap();
        assert_eq!(filter.kind, PlanKind::Superset);
        assert!(!filter.condition.matches(&denied) && filter.condition.matches(&other), "{permission}: {denied}");
    }
}

/// The `_id` of a document is never an array, but that of an element may be.
#[test]
fn the_id_of_an_element_may_be_an_array() {
    let filter = compile(&schema(), &question(&schema(), "part_of"), &Known::default(), 0).unwrap();
    assert!(filter.condition.matches(&doc! { "parts": [{ "_id": [5_i64, 7_i64] }] }));
    assert!(!filter.condition.matches(&doc! { "parts": [{ "_id": 5_i64 }, { "_id": 9_i64 }] }));
}

/// Two types with ids of different forms share a collection.
#[test]
fn a_filter_finds_no_resources_of_another_type_with_other_ids() {
    let schema = schema();
    let (kind, Member::Permission(permission)) = member(&schema, "page", "own") else { panic!("no permission") };
    let asked = ListQuestion { permission, kind, ..question(&schema, "own") };
    let filter = compile(&schema, &asked, &Known::default(), 0).unwrap();
    assert!(filter.condition.matches(&doc! { "_id": 1, "owner": 7_i64 }));
    assert!(!filter.condition.matches(&doc! { "_id": bson::oid::ObjectId::new(), "owner": 7_i64 }));
    // A text finds a symbol, too.
    let (kind, Member::Permission(permission)) = member(&schema, "note", "own") else { panic!("no permission") };
    let asked = ListQuestion { permission, kind, ..question(&schema, "own") };
    let filter = compile(&schema, &asked, &Known::default(), 0).unwrap();
    for id in [Bson::String("a".to_owned()), Bson::Symbol("a".to_owned())] {
        assert!(filter.condition.matches(&doc! { "_id": id, "owner": 7_i64 }));
    }
}

#[test]
fn long_lists_of_texts_are_not_repeated_for_each_array_on_the_way() {
    let schema = schema();
    let (kind, owner) = member(&schema, "place", "owner");
    let set = IdSet { kind, edge: None, member: owner };
    for (count, expected) in [(2, PlanKind::Exact), (64, PlanKind::Exact), (65, PlanKind::Superset)] {
        let ids = (0..count).map(|number| Id::String(format!("p{number:04}").into())).collect();
        let known = Known { id_sets: HashMap::from([(set, ids)]), ..Known::default() };
        let filter = compile(&schema, &question(&schema, "placed"), &known, 0).unwrap();
        let times = filter.condition.to_query().to_string().matches("p0001").count();
        assert_eq!((filter.kind, times == 1), (expected, expected == PlanKind::Superset), "{count}: {times}");
        let at = |value: Bson| filter.condition.matches(&doc! { "meta": { "place": value } });
        assert!(at("p0001".into()) && !at("p9999".into()));
        assert_eq!(at(Bson::Symbol("p0001".into())), expected == PlanKind::Superset);
    }
}
