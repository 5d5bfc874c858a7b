//! Conditions on resource types, and edges whose ends must exist.

use super::{ALLOWED, Document, EXCLUDED, MALFORMED, NO_GRANT, NOT_FOUND, Two, assert_answers, doc, oid, question};

/// Files and folders in one collection. A ban of a folder counts for everything in it.
const ITEMS: &str = r#"
default_subject = "user"

[subject.user]

[resource.folder]
collection = "items"
where = { kind = "folder" }

[resource.folder.relations]
owner  = { field = "owner" }
banned = { field = "banned" }
parent = { field = "parent", resource = "folder" }

[resource.folder.permissions]
read   = "owner"
barred = "banned | parent.barred"

[resource.file]
collection = "items"
where = { kind = { "$in" = ["file", "image"] }, deleted_at = { "$exists" = false } }

[resource.file.relations]
owner   = { field = "owner" }
guest   = { collection = "shares", by = "item", field = "user" }
parent  = { field = "parent", resource = "folder" }
strict  = { field = "parent", resource = "folder", must_exist = true }
led     = { field = "team", subject = "folder.owner" }

[resource.file.permissions]
read   = "owner | guest"
team   = "led"
up     = "parent.read"
open   = "!parent.barred & owner"
safe   = "!strict.barred & owner"
either = "owner | strict.owner"
both   = "strict.owner & owner"
"#;

fn item(number: u32, kind: &str) -> Document {
    doc! { "_id": oid(number), "kind": kind, "owner": oid(1) }
}

fn with(mut document: Document, changes: Document) -> Document {
    document.extend(changes);
    document
}

#[tokio::test]
async fn a_document_of_another_type_is_as_absent() {
    let items = vec![
        item(10, "file"),
        item(11, "folder"),
        item(12, "image"),
        with(item(13, "file"), doc! { "deleted_at": 1 }),
        doc! { "_id": oid(14), "owner": oid(1) },
        with(item(15, ""), doc! { "kind": 5 }),
        with(item(16, ""), doc! { "kind": ["file", 5] }),
        with(item(17, ""), doc! { "kind": [["file"]] }),
    ];
    let shares = (10..18).map(|number| doc! { "item": oid(number), "user": oid(2) }).collect();
    let all = [("items", items), ("shares", shares)];
    let asked = [
        ("user:@1", "read", "file:@10", "allowed by file#owner"),
        ("user:@2", "read", "file:@10", "allowed by file#guest"),
        ("user:@1", "read", "file:@11", NOT_FOUND),
        ("user:@1", "read", "folder:@11", "allowed by folder#owner"),
        ("user:@1", "read", "folder:@10", NOT_FOUND),
        ("user:@2", "read", "file:@12", ALLOWED),
        ("user:@1", "read", "file:@13", NOT_FOUND),
        ("user:@2", "read", "file:@14", NOT_FOUND),
        ("user:@1", "read", "file:@15", NOT_FOUND),
        ("user:@1", "read", "file:@16", MALFORMED),
        ("user:@2", "read", "file:@17", NOT_FOUND),
        ("user:@1", "read", "file:@18", NOT_FOUND),
    ];
    assert_answers(ITEMS, &all, &asked).await;
}

#[tokio::test]
async fn an_edge_or_a_set_does_not_lead_to_a_document_of_another_type() {
    let parent = |number, parent: u32| with(item(number, "file"), doc! { "parent": oid(parent), "team": oid(parent) });
    let barring = with(item(11, "folder"), doc! { "banned": oid(1) });
    // The file 12 names user 1 as banned, but it is not a folder. Whether 13 and 14 are folders is unknown.
    let items = vec![
        barring,
        with(item(12, "file"), doc! { "banned": oid(1) }),
        with(item(13, ""), doc! { "banned": oid(1), "kind": 7 }),
        with(item(14, ""), doc! { "banned": oid(3), "kind": ["folder", 7] }),
        parent(20, 11),
        parent(21, 12),
        parent(22, 13),
        parent(23, 14),
    ];
    let asked = [
        ("user:@1", "up", "file:@20", "allowed by folder#owner"),
        ("user:@1", "team", "file:@20", "allowed by file#led"),
        ("user:@1", "open", "file:@20", EXCLUDED),
        ("user:@1", "up", "file:@21", NO_GRANT),
        ("user:@1", "team", "file:@21", NO_GRANT),
        ("user:@1", "open", "file:@21", "allowed by file#owner"),
        ("user:@1", "up", "file:@22", NO_GRANT),
        ("user:@1", "open", "file:@22", MALFORMED),
        ("user:@1", "up", "file:@23", MALFORMED),
        ("user:@1", "team", "file:@23", MALFORMED),
        ("user:@1", "open", "file:@23", "allowed by file#owner"),
    ];
    assert_answers(ITEMS, &[("items", items), ("shares", vec![])], &asked).await;
}

#[tokio::test]
async fn an_edge_that_must_lead_somewhere_is_indeterminate_if_it_does_not() {
    let parent = |number, parent: u32| with(item(number, "file"), doc! { "parent": oid(parent) });
    let folder = |number, parent: u32| with(item(number, "folder"), doc! { "parent": oid(parent) });
    let items = vec![
        item(10, "folder"),
        with(item(11, "folder"), doc! { "banned": oid(1) }),
        with(item(12, ""), doc! { "kind": 7 }),
        parent(20, 10),
        parent(21, 11),
        parent(22, 99),
        parent(23, 20),
        with(item(24, "file"), doc! { "parent": [oid(10), oid(99)] }),
        with(item(25, "file"), doc! { "parent": [oid(11), oid(99)] }),
        with(item(26, "file"), doc! { "parent": null }),
        item(27, "file"),
        parent(28, 12),
        // The edge of a folder does not have to lead anywhere.
        folder(13, 99),
        parent(29, 13),
        with(item(30, "file"), doc! { "parent": oid(99), "owner": oid(5) }),
    ];
    let asked = [
        ("user:@1", "safe", "file:@20", "allowed by file#owner"),
        ("user:@1", "safe", "file:@21", EXCLUDED),
        ("user:@1", "safe", "file:@22", MALFORMED),
        ("user:@1", "open", "file:@22", "allowed by file#owner"),
        ("user:@1", "safe", "file:@23", MALFORMED),
        ("user:@1", "safe", "file:@24", MALFORMED),
        ("user:@1", "safe", "file:@25", EXCLUDED),
        ("user:@1", "safe", "file:@26", ALLOWED),
        ("user:@1", "safe", "file:@27", ALLOWED),
        ("user:@1", "safe", "file:@28", MALFORMED),
        ("user:@1", "safe", "file:@29", ALLOWED),
        ("user:@2", "safe", "file:@22", NO_GRANT),
        // Without a `!` it does not grant, and does not take away what another relation grants.
        ("user:@1", "either", "file:@22", "allowed by file#owner"),
        ("user:@2", "either", "file:@22", MALFORMED),
        ("user:@2", "both", "file:@22", NO_GRANT),
        ("user:@1", "both", "file:@22", MALFORMED),
        ("user:@1", "both", "file:@24", "allowed by folder#owner"),
    ];
    assert_answers(ITEMS, &[("items", items), ("shares", vec![])], &asked).await;
}

#[tokio::test]
async fn a_document_that_becomes_another_type_or_is_deleted_is_noticed_in_the_change_stream() {
    let items = vec![item(10, "folder"), with(item(20, "file"), doc! { "parent": oid(10) })];
    let two = Two::new(ITEMS, &[("items", items), ("shares", vec![])]).await;
    let ask =
        |permission, resource: String| question(&two.first.schema, &format!("user:{}", oid(1)), permission, &resource);
    let read = ask("read", format!("file:{}", oid(20)));
    let safe = ask("safe", format!("file:{}", oid(20)));
    let owner = "allowed by file#owner";
    two.until_cached(&[(&read, owner), (&safe, owner)]).await;
    let set = |number, change| two.first.update("items", doc! { "_id": oid(number) }, doc! { "$set": change });
    let moment = set(20, doc! { "kind": "folder" }).await;
    two.notice(moment, &[(&read, NOT_FOUND), (&safe, NOT_FOUND)]).await;
    let moment = set(20, doc! { "kind": "image" }).await;
    two.notice(moment, &[(&read, owner), (&safe, owner)]).await;
    let moment = set(10, doc! { "kind": "file" }).await;
    two.notice(moment, &[(&read, owner), (&safe, MALFORMED)]).await;
    let moment = set(10, doc! { "kind": "folder" }).await;
    two.notice(moment, &[(&safe, owner)]).await;
    let moment = two.first.delete("items", doc! { "_id": oid(10) }).await;
    two.notice(moment, &[(&read, owner), (&safe, MALFORMED)]).await;
    let moment = two.first.insert("items", vec![with(item(10, "folder"), doc! { "banned": oid(1) })]).await;
    two.notice(moment, &[(&read, owner), (&safe, EXCLUDED)]).await;
}
