//! Tests the limits of a fact, of a tree and of a check one by one.
//!
//! Uses fixed documents, not random ones: the naive evaluator has no limits to compare with.

use std::{collections::BTreeMap, sync::Arc};

use bson::{Bson, Document, doc};
use permcached::{
    app::{App, Parts, assemble},
    check::{Checker, Consistency},
    evaluate::{DEPTH_MAX, NODES_MAX},
    fact::DOCUMENTS_MAX,
    question::Reason,
    schema::{Schema, SubjectText},
    source::documents::Documents,
};

use super::{Answered, deadline, plain, runtime};

/// Groups in groups, by an edge and by a set.
const GROUPS: &str = r#"
    default_subject = "user"

    [subject.user]
    id = "string"

    [resource.group]
    id = "integer"
    collection = "groups"

    [resource.group.relations]
    owner  = { field = "owner" }
    parent = { field = "parents", resource = "group" }
    member = { field = "parents", subject = "group.joined" }
    banned = { collection = "bans", by = "group", field = "user" }
    hidden = { where = { hidden = true } }
    listed  = { field = "members", subject = "group.let_in" }
    blocked = { field = "blocks", subject = "group.let_in" }

    [resource.group.permissions]
    read     = "owner | parent.read"
    joined   = "owner | member"
    outsider = "!banned"
    insider  = "!!banned"
    guest    = "owner & !banned"
    either   = "owner | !banned"
    unrelated = "!parent.read"
    shown    = "!hidden"
    let_in   = "owner | (listed & !blocked)"
"#;

struct World {
    schema: Arc<Schema>,
    checker: Checker,
}

impl World {
    /// A world of groups by number, each with the groups that contain it, and of bans. Anna owns the group `owned`.
    fn new(groups: impl IntoIterator<Item = (i64, Vec<i64>)>, owned: i64, bans: Vec<Document>) -> Self {
        let groups = groups.into_iter().map(|(id, parents)| {
            let owner = if id == owned { "anna" } else { "nobody" };
            doc! { "_id": id, "parents": parents, "owner": owner }
        });
        Self::of([("groups".to_owned(), groups.collect()), ("bans".to_owned(), bans)])
    }

    fn of(collections: impl Into<BTreeMap<String, Vec<Document>>>) -> Self {
        let schema = Arc::new(Schema::parse("groups.toml", GROUPS).expect("a valid schema"));
        let source = Arc::new(Documents::new(&schema, &collections.into()));
        let App { schema, checker, .. } = assemble(Parts::new(schema, source));
        Self { schema, checker }
    }

    fn ask(&self, subject: &str, permission: &str, group: i64) -> Answered {
        let subject = SubjectText::Known { kind: "user", id: subject };
        let question = self.schema.question(subject, permission, "group", &group.to_string());
        let questions = [question.expect("a question of the schema")];
        let checked = runtime().block_on(self.checker.check(&questions, Consistency::FullyConsistent, deadline()));
        let checked = checked.into_iter().next().expect("one answer").expect("documents in memory are always there");
        plain(checked.answer)
    }
}

/// A chain of groups, each contained in the next.
fn chain(length: usize) -> Vec<(i64, Vec<i64>)> {
    let length = i64::try_from(length).expect("a small number");
    (0..=length).map(|id| (id, if id < length { vec![id + 1] } else { Vec::new() })).collect()
}

fn number(count: usize) -> i64 {
    i64::try_from(count).expect("a small number")
}

#[test]
fn many_paths_to_few_groups_exceed_no_limit() {
    const LAYERS: i64 = 20;
    // Two groups in each layer, both contained in both groups of the next layer: 2^20 paths to the top.
    let parents = |layer: i64| {
        if layer < LAYERS { vec![2 * layer + 2, 2 * layer + 3] } else { Vec::new() }
    };
    let groups = (0..=LAYERS).flat_map(|layer| [(2 * layer, parents(layer)), (2 * layer + 1, parents(layer))]);
    let world = World::new(groups, 2 * LAYERS + 1, Vec::new());
    for permission in ["read", "joined"] {
        assert_eq!(world.ask("anna", permission, 0), Ok(()), "{permission}");
        assert_eq!(world.ask("bert", permission, 0), Err(Reason::NoGrant), "{permission}");
    }
    assert_eq!(world.ask("bert", "unrelated", 0), Ok(()));
}

#[test]
fn a_tree_deeper_than_the_maximal_depth_is_over_the_limit() {
    for permission in ["read", "joined"] {
        for (length, expected) in [
            (DEPTH_MAX - 1, Ok(())),
            (DEPTH_MAX, Ok(())),
            (DEPTH_MAX + 1, Err(Reason::Limit)),
            (10 * DEPTH_MAX, Err(Reason::Limit)),
        ] {
            let world = World::new(chain(length), number(length), Vec::new());
            assert_eq!(world.ask("anna", permission, 0), expected, "{permission}, {length} deep");
        }
    }
    let world = World::new(chain(10 * DEPTH_MAX), number(DEPTH_MAX / 2), Vec::new());
    assert_eq!(world.ask("anna", "read", 0), Ok(()), "a grant before the limit counts");
    assert_eq!(world.ask("bert", "unrelated", 0), Err(Reason::Limit), "there may be a grant beyond the limit");
}

#[test]
fn a_tree_that_is_too_deep_from_one_group_may_be_walked_from_another() {
    // Group 1030 is one step too far from group 0, but not from group 1000, which is between them. The long path comes
    // first.
    let mut groups = vec![(0, vec![1]), (1, vec![2]), (2, vec![1_000]), (1_030, Vec::new())];
    groups.extend((1_000..1_030).map(|id| (id, vec![id + 1])));
    // Enough work before it that the evaluator memoizes values.
    let wide: Vec<i64> = (2_000..2_100).collect();
    groups.extend(wide.iter().map(|id| (*id, Vec::new())));
    groups.push((5_000, [wide, vec![0, 1_000]].concat()));
    let world = World::new(groups, 1_030, Vec::new());
    assert_eq!(world.ask("anna", "read", 0), Err(Reason::Limit));
    assert_eq!(world.ask("anna", "read", 5_000), Ok(()));
}

#[test]
fn a_cycle_exceeds_no_limit() {
    let cycle = |length: i64| (0..length).map(move |id| (id, vec![(id + 1) % length, id]));
    let world = World::new(cycle(20), 19, Vec::new());
    for permission in ["read", "joined"] {
        assert_eq!(world.ask("anna", permission, 0), Ok(()), "{permission}");
        assert_eq!(world.ask("bert", permission, 0), Err(Reason::NoGrant), "{permission}");
    }
}

#[test]
fn documents_that_name_others_exceed_no_limit() {
    let bans = |count: usize| (0..count).map(|at| doc! { "_id": number(at), "group": 0, "user": format!("u{at}") });
    for count in [DOCUMENTS_MAX, DOCUMENTS_MAX + 1, 5 * DOCUMENTS_MAX] {
        let world = World::new(chain(0), 0, bans(count).collect());
        for permission in ["outsider", "guest", "either"] {
            assert_eq!(world.ask("anna", permission, 0), Ok(()), "{permission}, {count}");
        }
        assert_eq!(world.ask("anna", "insider", 0), Err(Reason::Excluded), "{count}");
        assert_eq!(world.ask("bert", "guest", 0), Err(Reason::NoGrant), "{count}");
        assert_eq!(world.ask("u7", "outsider", 0), Err(Reason::Excluded), "{count}");
        assert_eq!(world.ask("u7", "insider", 0), Ok(()), "{count}");
    }
}

/// Groups that all contain each other.
fn clique(count: i64) -> Vec<(i64, Vec<i64>)> {
    (0..count).map(|id| (id, (0..count).filter(|other| *other != id).collect())).collect()
}

#[test]
fn a_hundred_groups_that_all_contain_each_other_are_answered_exactly() {
    for owned in [0, 50, 99] {
        let world = World::new(clique(100), owned, Vec::new());
        for permission in ["read", "joined"] {
            assert_eq!(world.ask("anna", permission, 0), Ok(()), "{permission}");
            assert_eq!(world.ask("bert", permission, 0), Err(Reason::NoGrant), "{permission}");
        }
        assert_eq!(world.ask("anna", "unrelated", 1), Err(Reason::Excluded));
        assert_eq!(world.ask("bert", "unrelated", 1), Ok(()));
    }
}

#[test]
fn a_ring_of_groups_within_the_maximal_depth_is_answered_exactly() {
    let ring = |length: i64| (0..length).map(move |id| (id, vec![(id + 1) % length]));
    for length in [1, 2, 30, 33] {
        let world = World::new(ring(length), length - 1, Vec::new());
        for permission in ["read", "joined"] {
            assert_eq!(world.ask("anna", permission, 0), Ok(()), "{permission}, {length}");
            assert_eq!(world.ask("bert", permission, 0), Err(Reason::NoGrant), "{permission}, {length}");
        }
        // This question is another one than those of the ring, so the way back to the first group is one edge longer.
        let expected = if length < 33 { Ok(()) } else { Err(Reason::Limit) };
        assert_eq!(world.ask("bert", "unrelated", 0), expected, "{length}");
    }
    let world = World::new(ring(40), 39, Vec::new());
    assert_eq!(world.ask("anna", "read", 0), Err(Reason::Limit), "the owner is 39 edges away");
    assert_eq!(world.ask("anna", "read", 20), Ok(()), "the owner is 19 edges away");
    assert_eq!(world.ask("bert", "unrelated", 0), Err(Reason::Limit));
}

/// A group with an owner, the groups that it lists, and those that it blocks.
fn blocking(id: i64, owner: &str, members: &[i64], blocks: &[i64]) -> Document {
    doc! { "_id": id, "owner": owner, "members": members.to_vec(), "blocks": blocks.to_vec() }
}

#[test]
fn what_depends_on_itself_through_an_exclusion_is_a_cycle() {
    let world = |groups: Vec<Document>| World::of([("groups".to_owned(), groups)]);
    // Both list the group 3, which anna owns, and block the members of each other.
    let owned = || blocking(3, "anna", &[], &[]);
    let mutual = world(vec![blocking(1, "", &[3], &[2]), blocking(2, "", &[3], &[1]), owned()]);
    assert_eq!(mutual.ask("anna", "let_in", 1), Err(Reason::Cycle));
    assert_eq!(mutual.ask("anna", "let_in", 2), Err(Reason::Cycle));
    assert_eq!(mutual.ask("bert", "let_in", 1), Err(Reason::NoGrant), "nothing lists bert");
    let own = world(vec![blocking(1, "", &[3], &[1]), owned()]);
    assert_eq!(own.ask("anna", "let_in", 1), Err(Reason::Cycle), "a group that blocks itself");
    let decided = world(vec![blocking(1, "anna", &[3], &[2]), blocking(2, "", &[3], &[1]), owned()]);
    assert_eq!(decided.ask("anna", "let_in", 1), Ok(()), "the owner is let in whatever is blocked");
    assert_eq!(decided.ask("anna", "let_in", 2), Err(Reason::Excluded), "so the other group blocks her");
    let once = world(vec![blocking(1, "", &[3, 1], &[2]), blocking(2, "", &[2], &[]), owned()]);
    assert_eq!(once.ask("anna", "let_in", 1), Ok(()), "a group that only lists itself lets nobody in");
    let odd =
        world(vec![blocking(1, "", &[3], &[2]), blocking(2, "", &[3], &[4]), blocking(4, "", &[3], &[1]), owned()]);
    assert_eq!(odd.ask("anna", "let_in", 1), Err(Reason::Cycle), "three groups in a row that block each other");
}

#[test]
fn a_hundred_groups_that_list_and_block_each_other_are_decided() {
    let all = |but: i64| (0..100).filter(|id| *id != but).collect::<Vec<_>>();
    let groups = (0..100).map(|id| blocking(id, if id == 99 { "anna" } else { "" }, &all(id), &all(id)));
    let world = World::of([("groups".to_owned(), groups.collect())]);
    assert_eq!(world.ask("anna", "let_in", 99), Ok(()));
    assert_eq!(world.ask("anna", "let_in", 0), Err(Reason::Excluded), "the group that she owns is blocked");
    assert_eq!(world.ask("bert", "let_in", 0), Err(Reason::NoGrant));
}

#[test]
fn a_fact_with_too_many_documents_is_over_the_limit() {
    // A value that is no id could mean any user, so these documents concern everybody.
    let bans = |count: usize| (0..count).map(|at| doc! { "_id": number(at), "group": 0, "user": number(at) });
    for (count, expected) in [(DOCUMENTS_MAX, Reason::Malformed), (DOCUMENTS_MAX + 1, Reason::Limit)] {
        let world = World::new(chain(0), 0, bans(count).collect());
        assert_eq!(world.ask("anna", "outsider", 0), Err(expected));
        assert_eq!(world.ask("anna", "guest", 0), Err(expected));
        assert_eq!(world.ask("anna", "either", 0), Ok(()), "a grant elsewhere allows");
        assert_eq!(world.ask("bert", "guest", 0), Err(Reason::NoGrant), "what is missing elsewhere denies");
        assert_eq!(world.ask("anna", "insider", 0), Err(expected));
        assert_eq!(world.ask("bert", "either", 0), Err(expected));
    }
}

#[test]
fn ids_of_others_exceed_no_limit() {
    let ids = |count: usize| Bson::Array((0..count).map(|at| format!("{at:0100}").into()).collect());
    for count in [2_000, 4_000, 25_000] {
        let world = World::new(chain(0), 0, vec![doc! { "_id": 1, "group": 0, "user": ids(count) }]);
        assert_eq!(world.ask("anna", "outsider", 0), Ok(()), "{count}");
        assert_eq!(world.ask(&format!("{:0100}", 7), "outsider", 0), Err(Reason::Excluded), "{count}");
    }
}

#[test]
fn a_fact_that_is_too_large_is_over_the_limit() {
    let bans = |bytes: usize| (0..900).map(move |at| doc! { "_id": format!("{at:0bytes$}"), "group": 0, "user": 7 });
    for (bytes, expected) in [(200, Reason::Malformed), (400, Reason::Limit)] {
        let world = World::new(chain(0), 0, bans(bytes).collect());
        assert_eq!(world.ask("anna", "outsider", 0), Err(expected));
    }
}

#[test]
fn a_check_with_too_many_nodes_is_over_the_limit() {
    const WIDTH: i64 = 110;
    // 110 groups contain group 0, and each of them is contained in 110 other groups.
    let inner = |at: i64| (0..WIDTH).map(move |inner| 1_000 + WIDTH * at + inner);
    let mut groups = vec![(0, (1..=WIDTH).collect::<Vec<_>>())];
    groups.extend((1..=WIDTH).map(|at| (at, inner(at).collect())));
    groups.extend((1..=WIDTH).flat_map(inner).map(|id| (id, Vec::new())));
    assert!(groups.len() > NODES_MAX);
    let (first, last) = (1_000 + WIDTH, 1_000 + WIDTH * WIDTH + WIDTH - 1);
    for permission in ["read", "joined"] {
        let world = World::new(groups.clone(), first, Vec::new());
        assert_eq!(world.ask("anna", permission, 0), Ok(()), "{permission}: a grant before the limit counts");
        assert_eq!(world.ask("bert", permission, 0), Err(Reason::Limit), "{permission}");
        assert_eq!(world.ask("bert", "unrelated", 0), Err(Reason::Limit));
        let world = World::new(groups.clone(), last, Vec::new());
        assert_eq!(world.ask("anna", permission, 0), Err(Reason::Limit), "{permission}: the grant is beyond the limit");
        assert_eq!(world.ask("anna", permission, WIDTH), Ok(()), "{permission}");
    }
}

#[test]
fn an_exclusion_of_a_malformed_value_never_allows() {
    for wrong in
        [Bson::Int32(7), Bson::Array(vec![Bson::Array(Vec::new())]), Bson::Document(Document::new()), "*".into()]
    {
        let world = World::new(chain(0), 0, vec![doc! { "_id": 1, "group": 0, "user": wrong.clone() }]);
        for permission in ["outsider", "insider", "guest"] {
            assert_eq!(world.ask("anna", permission, 0), Err(Reason::Malformed), "{permission} of {wrong}");
        }
        assert_eq!(world.ask("anna", "either", 0), Ok(()), "{wrong}");
        assert_eq!(world.ask("bert", "either", 0), Err(Reason::Malformed), "{wrong}");
    }
    for wrong in [Bson::from("true"), 1.into(), Document::new().into()] {
        let group = doc! { "_id": 0, "hidden": wrong.clone() };
        let world = World::of([("groups".to_owned(), vec![group])]);
        assert_eq!(world.ask("anna", "shown", 0), Err(Reason::Malformed), "{wrong}");
    }
}
