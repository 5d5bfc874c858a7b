//! Types as the application names them: `subject` as a table.

use super::{ALLOWED, EXCLUDED, MALFORMED, NO_GRANT, assert_answers, doc, oid};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]

[subject.bot]
id = "string"

[resource.group]
collection = "groups"

[resource.group.relations]
member = { field = "members" }
admin  = { field = "admins" }

[resource.group.permissions]
view = "member"

[resource.file]

[resource.file.relations]
viewer = {
  collection = "grants", by = "of", field = "principal", subject_type = "principalModel",
  subject = { User = "user", user = "user", "app:bot" = "bot", Group = "group.member", GroupAdmin = "group.admin" },
}
banned = {
  collection = "bans", by = "of", field = "principal", subject_type = "kind", subject_relation = "role", wildcard = true,
  subject = { User = "user", Group = ["group.member", "group.admin"] },
}

[resource.file.permissions]
read = "viewer"
open = "!banned & viewer"
"#;

#[tokio::test]
async fn a_table_gives_the_type_that_each_value_means() {
    let group = doc! { "_id": oid(50), "members": [oid(3)], "admins": [oid(4)] };
    let grant = |of: u32, model: mongodb::bson::Bson, principal: mongodb::bson::Bson| {
        doc! { "of": oid(of), "principalModel": model, "principal": principal }
    };
    let ban = |of: u32, kind: &str, role: &str, principal: mongodb::bson::Bson| {
        doc! { "of": oid(of), "kind": kind, "role": role, "principal": principal }
    };
    let all_may = |of| grant(of, "User".into(), vec![oid(2), oid(3), oid(4)].into());
    let grants = vec![
        grant(10, "User".into(), oid(2).into()),
        grant(11, "user".into(), oid(2).into()),
        grant(12, "app:bot".into(), "b1".into()),
        grant(13, "Group".into(), oid(50).into()),
        grant(14, "GroupAdmin".into(), oid(50).into()),
        grant(15, "Robot".into(), oid(2).into()),
        grant(16, "bot".into(), "b1".into()),
        grant(17, "USER".into(), oid(2).into()),
        grant(18, "".into(), oid(2).into()),
        grant(19, 5.into(), oid(2).into()),
        grant(20, "User".into(), "b1".into()),
        all_may(30),
        all_may(31),
        all_may(32),
        all_may(33),
        all_may(34),
        all_may(35),
    ];
    let bans = vec![
        ban(30, "User", "", oid(2).into()),
        ban(31, "Group", "member", oid(50).into()),
        ban(32, "Group", "admin", oid(50).into()),
        ban(33, "Group", "owner", oid(50).into()),
        ban(34, "User", "member", oid(2).into()),
        ban(35, "User", "", "*".into()),
    ];
    let asked = [
        ("user:@2", "read", "file:@10", "allowed by file#viewer"),
        ("user:@3", "read", "file:@10", NO_GRANT),
        ("user:@2", "read", "file:@11", "allowed by file#viewer"),
        ("bot:b1", "read", "file:@12", "allowed by file#viewer"),
        ("user:@2", "read", "file:@12", NO_GRANT),
        ("user:@3", "read", "file:@13", "allowed by file#viewer"),
        ("user:@4", "read", "file:@13", NO_GRANT),
        ("user:@4", "read", "file:@14", "allowed by file#viewer"),
        ("user:@2", "read", "file:@15", MALFORMED),
        ("bot:b1", "read", "file:@16", MALFORMED),
        ("user:@2", "read", "file:@17", MALFORMED),
        ("user:@2", "read", "file:@18", NO_GRANT),
        ("user:@2", "read", "file:@19", MALFORMED),
        ("user:@2", "read", "file:@20", MALFORMED),
        ("user:@2", "open", "file:@30", EXCLUDED),
        ("user:@3", "open", "file:@30", ALLOWED),
        ("user:@3", "open", "file:@31", EXCLUDED),
        ("user:@4", "open", "file:@31", ALLOWED),
        ("user:@4", "open", "file:@32", EXCLUDED),
        ("user:@3", "open", "file:@32", ALLOWED),
        ("user:@2", "open", "file:@33", MALFORMED),
        ("user:@2", "open", "file:@34", MALFORMED),
        ("user:@2", "open", "file:@35", EXCLUDED),
    ];
    assert_answers(SCHEMA, &[("groups", vec![group]), ("grants", grants), ("bans", bans)], &asked).await;
}
