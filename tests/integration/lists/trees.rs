//! Candidates that are found through other resources: trees of folders, groups in groups, cycles of both, and their limits.

use mongodb::bson::{Bson, Document, doc};
use permcached::list::{ListError, PlanKind, PlanOptions};

use super::{both, collections};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "string"

[resource.group]
id = "string"
collection = "groups"

[resource.group.relations]
member = { field = "members", subject_type = "kind", subject = ["user", "group.member"] }
inner = { field = "inner", subject = "group.any" }
direct = { field = "direct" }

[resource.group.permissions]
any = "direct | inner"

[resource.folder]
id = "string"
collection = "folders"

[resource.folder.relations]
owner = { field = "owner" }
parent = { field = "parent", resource = "folder" }
guest = { collection = "shares", by = "folder", field = "group", subject = "group.any" }
locked = { where = { locked = true } }

[resource.folder.permissions]
read = "owner | guest | parent.read"
open = "!locked & (owner | parent.open)"

[resource.file]
id = "string"
collection = "files"

[resource.file.relations]
folder = { field = "folder", resource = "folder" }

[resource.file.permissions]
read = "folder.read"
open = "folder.open"
"#;

/// A folder with this number, in another one if it is not 0.
fn folder(number: usize, parent: usize) -> Document {
    let parent = if number == 0 { Bson::Null } else { parent.to_string().into() };
    doc! { "_id": number.to_string(), "parent": parent }
}

fn file(number: usize, folder: usize) -> Document {
    doc! { "_id": format!("f{number:03}"), "folder": folder.to_string() }
}

fn texts(texts: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    let mut texts: Vec<String> = texts.into_iter().map(|text| text.to_string()).collect();
    texts.sort_unstable();
    texts
}

#[tokio::test]
async fn a_folder_is_readable_as_deep_as_a_check_follows_the_tree() {
    // A chain of 40 folders. A check follows 32 edges; what it does not follow, it does not allow.
    let mut chain: Vec<Document> = (0..40).map(|number| folder(number, number.saturating_sub(1))).collect();
    chain[0].insert("owner", "ann");
    let documents = collections([("folders", chain), ("files", (0..40).map(|number| file(number, number)).collect())]);
    for listing in both(SCHEMA, &documents).await {
        assert_eq!(listing.texts("user:ann", "read", "folder").await.unwrap(), texts(0..=32));
        let files = listing.texts("user:ann", "read", "file").await.unwrap();
        assert_eq!(files, texts((0..32).map(|number| format!("f{number:03}"))), "an edge more");
        let plan = listing.plan(&listing.question("user:ann", "read", "file"), PlanOptions::default()).await.unwrap();
        assert_eq!((plan.kind, plan.ids), (PlanKind::Exact, 33), "{plan:?} {}", plan.filter);
        assert!(listing.texts("user:bob", "read", "folder").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn cycles_of_folders_end() {
    let mut ring: Vec<Document> = (0..50).map(|number| folder(number, (number + 49) % 50)).collect();
    ring[0].insert("parent", "49");
    ring[7].insert("owner", "ann");
    ring[9].insert("parent", "9");
    let documents = collections([("folders", ring), ("files", vec![file(1, 8), file(2, 9), file(3, 6)])]);
    for listing in both(SCHEMA, &documents).await {
        assert_eq!(listing.texts("user:ann", "read", "folder").await.unwrap(), ["7", "8"], "9 leads to itself");
        assert_eq!(listing.texts("user:ann", "read", "file").await.unwrap(), ["f001"]);
    }
}

#[tokio::test]
async fn cycles_of_groups_end_and_lead_to_what_is_shared_with_them() {
    let group = |id: &str, inner: &[&str], direct: &[&str]| doc! { "_id": id, "inner": inner, "direct": direct };
    let groups = vec![
        group("a", &["b"], &[]),
        group("b", &["c"], &["bob"]),
        group("c", &["a"], &["ann"]),
        group("d", &["d"], &[]),
        group("e", &["d", "a"], &[]),
    ];
    let share = |folder: &str, group: &str| doc! { "folder": folder, "group": group };
    let shares = vec![share("0", "a"), share("1", "d"), share("2", "e"), share("3", "nobody")];
    let folders = (0..4).map(|number| folder(number, 9)).collect();
    let documents = collections([("groups", groups), ("shares", shares), ("folders", folders)]);
    for listing in both(SCHEMA, &documents).await {
        for user in ["user:ann", "user:bob"] {
            assert_eq!(listing.texts(user, "any", "group").await.unwrap(), ["a", "b", "c", "e"]);
            assert_eq!(listing.texts(user, "read", "folder").await.unwrap(), ["0", "2"]);
        }
    }
}

#[tokio::test]
async fn what_excludes_a_resource_on_the_way_excludes_what_is_below() {
    let mut folders: Vec<Document> = (0..6).map(|number| folder(number, number.saturating_sub(1))).collect();
    folders[0].insert("owner", "ann");
    folders[2].insert("locked", true);
    folders[4].insert("owner", "ann");
    folders[5].insert("locked", "true");
    let files = (0..6).map(|number| file(number, number)).collect();
    let documents = collections([("folders", folders), ("files", files)]);
    for listing in both(SCHEMA, &documents).await {
        assert_eq!(listing.texts("user:ann", "open", "folder").await.unwrap(), ["0", "1", "4"], "5 is malformed");
        assert_eq!(listing.texts("user:ann", "open", "file").await.unwrap(), ["f000", "f001", "f004"]);
        let plan = listing.plan(&listing.question("user:ann", "open", "file"), PlanOptions::default()).await.unwrap();
        assert_eq!((plan.kind, plan.ids), (PlanKind::Exact, 3), "{plan:?} {}", plan.filter);
        // The other part keeps out symbols, which equal texts and are no ids.
        let parts = plan.filter.get_array("$and").unwrap();
        assert_eq!(parts.first(), Some(&doc! { "folder": { "$in": ["0", "1", "4"] } }.into()));
    }
}

#[tokio::test]
async fn a_tree_with_more_folders_than_an_id_set_may_have_is_an_error_and_no_part_of_a_list() {
    // One folder with 10,001 others in it.
    let mut folders: Vec<Document> = (0..10_002).map(|number| folder(number, 0)).collect();
    folders[0].insert("owner", "ann");
    folders[1].insert("owner", "bob");
    let documents = collections([("folders", folders), ("files", vec![file(1, 10_000), file(2, 1)])]);
    for listing in both(SCHEMA, &documents).await {
        for kind in ["file", "folder"] {
            let question = listing.question("user:ann", "read", kind);
            for error in [
                listing.plan(&question, PlanOptions::default()).await.map(|plan| format!("{plan:?} {}", plan.filter)),
                listing.pages(&question, 100, None).await.map(|ids| format!("{ids:?}")),
            ] {
                let Err(ListError::TooManyIds { relation, count, max }) = error else { panic!("{error:?}") };
                assert!(count > max && max == 10_000 && relation == "folder#read", "{relation} {count} {max}");
            }
        }
        // Others have lists as before.
        assert_eq!(listing.texts("user:bob", "read", "file").await.unwrap(), ["f002"]);
    }
}

#[tokio::test]
async fn an_id_set_that_is_larger_than_asked_for_is_an_error_with_its_name() {
    let mut folders: Vec<Document> = (0..20).map(|number| folder(number, 0)).collect();
    folders[0].insert("owner", "ann");
    let documents = collections([("folders", folders)]);
    for listing in both(SCHEMA, &documents).await {
        let question = listing.question("user:ann", "read", "file");
        let plan = listing.plan(&question, PlanOptions { ids_max: 20, ..PlanOptions::default() }).await.unwrap();
        assert_eq!((plan.kind, plan.ids), (PlanKind::Exact, 20));
        let error = listing.plan(&question, PlanOptions { ids_max: 19, ..PlanOptions::default() }).await;
        let Err(ListError::TooManyIds { relation, count: 20, max: 19 }) = error else { panic!("{error:?}") };
        assert_eq!(relation, "folder#read");
    }
}
