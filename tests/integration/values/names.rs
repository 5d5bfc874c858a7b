//! Names as applications write them, and paths into `DBRef`s.

use super::{ALLOWED, EXCLUDED, MALFORMED, NO_GRANT, Two, assert_answers, doc, oid, question};

const NAMES: &str = r#"
default_subject = "appUser"

[subject.appUser]

[subject.api-key]
id = "string"

[resource._Folder]
collection = "folders"

[resource._Folder.relations]
createdBy = { field = "createdBy" }

[resource._Folder.permissions]
"folder:read:any" = "createdBy"

[resource.blogPost]
collection = "posts"

[resource.blogPost.relations]
createdBy   = { field = "createdBy" }
api-key     = { field = "keys", subject = "api-key" }
inFolder    = { field = "folder", resource = "_Folder" }
folderOwner = { field = "folder", subject = "_Folder.folder:read:any" }
B2          = { field = "b2" }

[resource.blogPost.permissions]
canEdit     = "createdBy|inFolder.folder:read:any"
"doc:read"  = "canEdit | api-key | folderOwner"
can-share   = "doc:read&!B2"
READ        = "doc:read"
read        = "createdBy"
"#;

#[tokio::test]
async fn names_have_letters_of_either_case_hyphens_and_in_permissions_colons() {
    let posts = vec![
        doc! { "_id": oid(10), "createdBy": oid(1), "keys": ["k1"], "folder": oid(20), "b2": oid(2) },
        doc! { "_id": oid(11), "folder": oid(99) },
    ];
    let folders = vec![doc! { "_id": oid(20), "createdBy": oid(2) }];
    let asked = [
        ("appUser:@1", "canEdit", "blogPost:@10", "allowed by blogPost#createdBy"),
        ("appUser:@2", "canEdit", "blogPost:@10", "allowed by _Folder#createdBy"),
        ("appUser:@2", "doc:read", "blogPost:@10", ALLOWED),
        ("api-key:k1", "doc:read", "blogPost:@10", "allowed by blogPost#api-key"),
        ("api-key:k2", "doc:read", "blogPost:@10", NO_GRANT),
        ("appUser:@1", "can-share", "blogPost:@10", ALLOWED),
        ("appUser:@2", "can-share", "blogPost:@10", EXCLUDED),
        ("appUser:@2", "READ", "blogPost:@10", ALLOWED),
        ("appUser:@2", "read", "blogPost:@10", NO_GRANT),
        ("appUser:@2", "folder:read:any", "_Folder:@20", ALLOWED),
        ("appUser:@2", "doc:read", "blogPost:@11", NO_GRANT),
    ];
    assert_answers(NAMES, &[("posts", posts), ("folders", folders)], &asked).await;
}

const DBREFS: &str = r#"
default_subject = "user"

[subject.user]

[resource.file]
collection = "files"

[resource.file.relations]
owner  = { field = "owner.$id", where = { "owner.$ref" = "users" } }
banned = { collection = "bans", by = "of.$id", field = "users.$id", where = { "of.$ref" = "files" } }
local  = { collection = "bans", by = "of.$id", where = { "of.$db" = "main", kind = "local" } }
self   = { collection = "bans", by = "in.$id", where = { "$expr" = { "$eq" = ["$in.$id", "$by.$id"] } } }
same   = { where = { "$expr" = { "$eq" = ["$owner.$id", "$creator.$id"] } } }

[resource.file.permissions]
read = "!banned & owner"
near = "local & owner"
made = "same & owner"
own  = "self & owner"
"#;

#[tokio::test]
async fn a_path_leads_into_the_fields_of_a_dbref() {
    let dbref = |collection: &str, number: u32| doc! { "$ref": collection, "$id": oid(number), "$db": "main" };
    let file = |number: u32, owner: mongodb::bson::Bson| doc! { "_id": oid(number), "owner": owner, "creator": dbref("users", 1) };
    let files = vec![
        file(10, dbref("users", 1).into()),
        file(11, dbref("robots", 1).into()),
        file(12, vec![dbref("users", 1), dbref("users", 2)].into()),
        file(13, oid(1).into()),
        file(14, dbref("users", 1).into()),
        file(15, doc! { "$ref": "users", "$id": "x" }.into()),
    ];
    let bans = vec![
        doc! { "of": dbref("files", 14), "users": [dbref("users", 1)] },
        doc! { "of": dbref("folders", 10), "users": [dbref("users", 1)] },
        doc! { "of": dbref("folders", 10), "kind": "local", "in": dbref("files", 10), "by": dbref("users", 10) },
        doc! { "in": dbref("files", 14), "by": dbref("users", 10) },
    ];
    let asked = [
        ("user:@1", "read", "file:@10", "allowed by file#owner"),
        ("user:@1", "near", "file:@10", ALLOWED),
        ("user:@1", "made", "file:@10", ALLOWED),
        ("user:@2", "read", "file:@10", NO_GRANT),
        ("user:@1", "own", "file:@10", ALLOWED),
        ("user:@1", "own", "file:@14", NO_GRANT),
        ("user:@1", "read", "file:@11", NO_GRANT),
        ("user:@2", "read", "file:@12", "allowed by file#owner"),
        ("user:@1", "read", "file:@13", NO_GRANT),
        ("user:@1", "read", "file:@14", EXCLUDED),
        ("user:@1", "near", "file:@14", NO_GRANT),
        ("user:@1", "read", "file:@15", MALFORMED),
    ];
    assert_answers(DBREFS, &[("files", files), ("bans", bans)], &asked).await;
}

#[tokio::test]
async fn a_change_of_a_dbref_is_noticed() {
    let owner = doc! { "$ref": "users", "$id": oid(1) };
    let files = vec![doc! { "_id": oid(10), "owner": owner.clone() }];
    let two = Two::new(DBREFS, &[("files", files), ("bans", vec![])]).await;
    let read = question(&two.first.schema, &format!("user:{}", oid(1)), "read", &format!("file:{}", oid(10)));
    let allowed = "allowed by file#owner";
    two.until_cached(&[(&read, allowed)]).await;
    let ban = doc! { "_id": 1, "of": { "$ref": "files", "$id": oid(10) }, "users": [owner.clone()] };
    let moment = two.first.insert("bans", vec![ban]).await;
    two.notice(moment, &[(&read, EXCLUDED)]).await;
    let other = doc! { "$set": { "of": { "$ref": "files", "$id": oid(11) } } };
    let moment = two.first.update("bans", doc! { "_id": 1 }, other).await;
    two.notice(moment, &[(&read, allowed)]).await;
    let back = doc! { "$set": { "of.$id": oid(10) } };
    let moment = two.first.update("bans", doc! { "_id": 1 }, back).await;
    two.notice(moment, &[(&read, EXCLUDED)]).await;
}
