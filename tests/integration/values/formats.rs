//! Ids that documents keep as text: in the field of a relation, in arrays and their elements, and in the field of a lookup.

use mongodb::bson::Bson;

use super::{ALLOWED, Document, EXCLUDED, MALFORMED, NO_GRANT, Two, assert_answers, doc, hex, oid, question};

const FIELDS: &str = r#"
default_subject = "user"

[subject.user]

[subject.role]
id = "string"

[subject.number]
id = "integer"

[subject.device]
id = "uuid"

[subject.link]
id = "string"
secret = true

[resource.group]
collection = "groups"

[resource.group.relations]
member = { field = "members", format = "{id}" }

[resource.group.permissions]
view = "member"

[resource.file]
collection = "files"

[resource.file.relations]
owner   = { field = "owner" }
member  = { field = "members", format = "{id}" }
holder  = { field = "grants", format = "role:{id}", subject = "role" }
user    = { field = "grants", format = "user:{id}", wildcard = true }
team    = { field = "grants", format = "group:{id}", subject = "group.member" }
number  = { each = "acl", field = "who", format = "n-{id};", subject = "number", where = { on = true } }
device  = { field = "device", format = "{id}", subject = "device" }
parent  = { field = "parent", format = "_File${id}", resource = "file" }
link    = { field = "link", format = "token={id}", subject = "link" }

[resource.file.permissions]
read   = "member | holder | user | team | number | device | link | parent.read"
open   = "owner & !member"
free   = "owner & !user"
"#;

fn file(number: u32, fields: Document) -> Document {
    let mut file = doc! { "_id": oid(number), "owner": oid(1) };
    file.extend(fields);
    file
}

#[tokio::test]
async fn an_id_is_read_from_text_in_the_format_of_its_relation() {
    let upper = hex(2).to_uppercase();
    let mixed = format!("65F0aB{}", &upper[6..]);
    let device = "123e4567-e89b-12d3-a456-426614174000";
    let files = vec![
        file(10, doc! { "members": [hex(3), hex(2)] }),
        file(11, doc! { "members": upper.clone() }),
        file(12, doc! { "members": mixed }),
        file(13, doc! { "grants": ["role:admin", format!("user:{}", hex(2)), format!("group:{}", hex(50))] }),
        file(14, doc! { "grants": ["admin", "Role:admin", "roles:admin", "", Bson::Null] }),
        file(15, doc! { "grants": "user:*" }),
        file(16, doc! { "acl": [{ "who": "n-7;", "on": true }, { "who": "n-8;", "on": false }] }),
        file(17, doc! { "device": device.to_uppercase() }),
        file(18, doc! { "parent": format!("_File${}", hex(10)) }),
        file(19, doc! { "parent": format!("_Folder${}", hex(10)) }),
        file(20, doc! { "link": "token=s3cret" }),
    ];
    let groups = vec![doc! { "_id": oid(50), "members": [hex(4)] }];
    let device = format!("device:{device}");
    let asked = [
        ("user:@2", "read", "file:@10", "allowed by file#member"),
        ("user:@4", "read", "file:@10", NO_GRANT),
        ("user:@2", "read", "file:@11", "allowed by file#member"),
        // Lists and filters search for both spellings, and could not search for all others.
        ("user:@2", "read", "file:@12", MALFORMED),
        ("role:admin", "read", "file:@13", "allowed by file#holder"),
        ("role:Admin", "read", "file:@13", NO_GRANT),
        ("user:@2", "read", "file:@13", "allowed by file#user"),
        ("user:@4", "read", "file:@13", "allowed by file#team"),
        ("user:@3", "read", "file:@13", NO_GRANT),
        ("role:admin", "read", "file:@14", NO_GRANT),
        ("user:@2", "read", "file:@14", NO_GRANT),
        ("user:@9", "read", "file:@15", "allowed by file#user"),
        ("role:admin", "read", "file:@15", NO_GRANT),
        ("number:7", "read", "file:@16", "allowed by file#number"),
        ("number:8", "read", "file:@16", NO_GRANT),
        (&device, "read", "file:@17", "allowed by file#device"),
        ("user:@2", "read", "file:@18", "allowed by file#member"),
        ("user:@2", "read", "file:@19", NO_GRANT),
        ("link:s3cret", "read", "file:@20", "allowed by file#link"),
        ("link:token=s3cret", "read", "file:@20", NO_GRANT),
    ];
    assert_answers(FIELDS, &[("files", files), ("groups", groups)], &asked).await;
}

#[tokio::test]
async fn a_text_that_is_no_id_in_the_format_and_any_other_type_are_indeterminate() {
    let values = [
        Bson::ObjectId(oid(2)),
        "65f0".into(),
        format!("{}0", hex(2)).into(),
        hex(2).replacen("ab", "AB", 1).into(),
        format!(" {}", hex(2)).into(),
        "*".into(),
        7.into(),
        true.into(),
        doc! { "$id": hex(2) }.into(),
        vec![Bson::Array(vec![hex(2).into()])].into(),
    ];
    let mut files = Vec::new();
    let mut asked = Vec::new();
    for (number, value) in (100..).zip(values) {
        files.push(file(number, doc! { "members": value }));
        let file: &str = format!("file:@{number}").leak();
        asked.extend([("user:@2", "read", file, MALFORMED), ("user:@1", "open", file, MALFORMED)]);
    }
    files.extend([
        file(200, doc! { "grants": ["user:", hex(1)] }),
        file(201, doc! { "grants": [format!("user:{}:x", hex(1))] }),
        file(202, doc! { "grants": ["role:*"] }),
        file(203, doc! { "grants": [hex(1), "ban"] }),
        file(204, doc! { "grants": ["user:*"] }),
        file(205, doc! { "acl": [{ "who": "n-07;", "on": true }] }),
        file(206, doc! { "acl": [{ "who": "n-7", "on": true }] }),
        file(207, doc! { "parent": "_File$x" }),
        file(208, doc! { "members": [hex(1), "x"] }),
        file(209, doc! { "members": "" }),
    ]);
    asked.extend([
        ("user:@1", "free", "file:@200", MALFORMED),
        ("user:@1", "free", "file:@201", MALFORMED),
        ("role:admin", "read", "file:@202", MALFORMED),
        ("user:@1", "free", "file:@203", ALLOWED),
        ("user:@1", "free", "file:@204", EXCLUDED),
        ("number:7", "read", "file:@205", MALFORMED),
        ("number:7", "read", "file:@206", NO_GRANT),
        ("user:@1", "read", "file:@207", MALFORMED),
        ("user:@1", "open", "file:@208", EXCLUDED),
        ("user:@1", "open", "file:@209", ALLOWED),
    ]);
    assert_answers(FIELDS, &[("files", files), ("groups", vec![])], &asked).await;
}

const KEYS: &str = r#"
default_subject = "user"

[subject.user]

[resource.file]

[resource.file.relations]
guest  = { collection = "shares", by = { field = "of", format = "file:{id}" }, field = "user", format = "{id}" }
plain  = { collection = "shares", by = { field = "ref.id", format = "{id}" }, field = "user", format = "{id}" }
banned = { collection = "shares", by = { field = "_id", format = "ban-{id}" } }

[resource.file.permissions]
read = "!banned & (guest | plain)"

[resource.room]
id = "integer"

[resource.room.relations]
guest = { collection = "shares", by = { field = "of", format = "file:{id}" }, field = "user", format = "{id}" }

[resource.room.permissions]
read = "guest"

[resource.page]
id = "string"

[resource.page.relations]
guest = { collection = "shares", by = { field = "of", format = "file:{id}" }, field = "user", format = "{id}" }

[resource.page.permissions]
read = "guest"
"#;

#[tokio::test]
async fn documents_are_found_by_an_id_as_text() {
    let upper = |number| hex(number).to_uppercase();
    let share = |number: i32, of: Bson| doc! { "_id": number, "of": of, "user": hex(2) };
    let shares = vec![
        share(1, format!("file:{}", hex(10)).into()),
        share(2, format!("file:{}", upper(11)).into()),
        share(3, vec!["file:x".to_owned(), format!("file:{}", hex(12)), format!("file:{}", upper(12))].into()),
        share(4, hex(13).into()),
        share(5, oid(14).into()),
        share(6, "file:15".into()),
        share(7, "file:016".into()),
        share(8, Bson::Symbol("file:17".into())),
        share(9, 18.into()),
        doc! { "_id": 20, "ref": [{ "id": upper(30) }, { "id": hex(31) }], "user": hex(2) },
        share(21, vec![format!("file:{}", hex(32)), format!("file:{}", hex(33))].into()),
        doc! { "_id": format!("ban-{}", hex(32)) },
        doc! { "_id": format!("ban-{}", upper(33)) },
        doc! { "_id": format!("ban-{}", hex(33)) },
        doc! { "_id": oid(12) },
    ];
    let page = format!("page:{}", hex(10));
    let asked = [
        ("user:@2", "read", "file:@10", "allowed by file#guest"),
        ("user:@2", "read", "file:@11", "allowed by file#guest"),
        // Under a `!`, the id in another form than `ban-…` is noticed.
        ("user:@2", "read", "file:@12", MALFORMED),
        ("user:@2", "read", "file:@13", NO_GRANT),
        ("user:@2", "read", "file:@14", NO_GRANT),
        ("user:@2", "read", "room:15", "allowed by room#guest"),
        ("user:@2", "read", "room:16", NO_GRANT),
        ("user:@2", "read", "room:17", "allowed by room#guest"),
        ("user:@2", "read", "room:18", NO_GRANT),
        ("user:@2", "read", "page:15", "allowed by page#guest"),
        ("user:@2", "read", "page:016", "allowed by page#guest"),
        ("user:@2", "read", &page, "allowed by page#guest"),
        ("user:@2", "read", "file:@30", "allowed by file#plain"),
        ("user:@2", "read", "file:@31", "allowed by file#plain"),
        ("user:@2", "read", "file:@32", EXCLUDED),
        ("user:@2", "read", "file:@33", EXCLUDED),
        ("user:@3", "read", "file:@10", NO_GRANT),
    ];
    assert_answers(KEYS, &[("shares", shares)], &asked).await;
}

#[tokio::test]
async fn a_change_of_a_document_with_ids_as_text_is_noticed_under_every_key() {
    let two = Two::new(KEYS, &[("shares", vec![doc! { "_id": 1, "of": "file:x", "user": hex(2) }])]).await;
    let read =
        |number| question(&two.first.schema, &format!("user:{}", oid(2)), "read", &format!("file:{}", oid(number)));
    let (first, second) = (read(10), read(11));
    let guest = "allowed by file#guest";
    two.until_cached(&[(&first, NO_GRANT), (&second, NO_GRANT)]).await;
    let set = |change| two.first.update("shares", doc! { "_id": 1 }, doc! { "$set": change });
    let moment = set(doc! { "of": format!("file:{}", hex(10)) }).await;
    two.notice(moment, &[(&first, guest), (&second, NO_GRANT)]).await;
    let moment = set(doc! { "of": format!("file:{}", hex(11).to_uppercase()) }).await;
    two.notice(moment, &[(&first, NO_GRANT), (&second, guest)]).await;
    let moment = set(doc! { "of": [format!("file:{}", hex(10)), format!("file:{}", hex(11))] }).await;
    two.notice(moment, &[(&first, guest), (&second, guest)]).await;
    let moment = set(doc! { "user": hex(3) }).await;
    two.notice(moment, &[(&first, NO_GRANT), (&second, NO_GRANT)]).await;
    let moment = two.first.insert("shares", vec![doc! { "_id": 2, "ref": { "id": hex(10) }, "user": hex(2) }]).await;
    two.notice(moment, &[(&first, "allowed by file#plain")]).await;
    let moment = two.first.insert("shares", vec![doc! { "_id": format!("ban-{}", hex(10).to_uppercase()) }]).await;
    two.notice(moment, &[(&first, EXCLUDED), (&second, NO_GRANT)]).await;
    let moment = two.first.delete("shares", doc! { "_id": format!("ban-{}", hex(10).to_uppercase()) }).await;
    two.notice(moment, &[(&first, "allowed by file#plain")]).await;
    let moment = two.first.delete("shares", doc! { "_id": 2 }).await;
    two.notice(moment, &[(&first, NO_GRANT)]).await;
}

/// Under a `!`, the closed list of forms of an id holds within the parts around it, too.
#[tokio::test]
async fn a_ban_whose_id_as_text_is_in_another_form_does_not_allow() {
    let text = r#"
default_subject = "user"

[subject.user]
id = "string"

[resource.file]
id = "uuid"

[resource.file.relations]
banned = { collection = "bans", by = { field = "of", format = "file:{id}" }, field = "user" }

[resource.file.permissions]
read = "!banned"

[resource.note]
id = "string"

[resource.note.relations]
banned = { collection = "bans", by = { field = "of", format = "note:{id}" }, field = "user" }

[resource.note.permissions]
read = "!banned"
"#;
    let hyphens = |digit: char| format!("{0}{0}-{0}-{0}-{0}-{0}{0}{0}", digit.to_string().repeat(4));
    let plain = |digit: char| digit.to_string().repeat(32);
    let ban = |of: String| doc! { "of": of, "user": "u" };
    let bans = vec![
        ban(format!("file:{}", hyphens('a'))),
        ban(format!("file:{}", plain('b'))),
        ban(format!("file:{}", plain('c').to_uppercase())),
        ban(format!("note:{}", hex(1).to_uppercase())),
        ban(format!("note:{}", hex(2))),
    ];
    let (a, b, c, d) = (hyphens('a'), hyphens('b'), hyphens('c'), hyphens('d'));
    let [a, b, c, d] = [a, b, c, d].map(|id| format!("file:{id}"));
    let asked = [
        ("user:u", "read", &*a, EXCLUDED),
        ("user:u", "read", &*b, MALFORMED),
        ("user:u", "read", &*c, MALFORMED),
        ("user:u", "read", &*d, ALLOWED),
        ("user:u", "read", "note:@1", MALFORMED),
        ("user:u", "read", "note:@2", EXCLUDED),
        ("user:u", "read", "note:@3", ALLOWED),
    ];
    assert_answers(text, &[("bans", bans)], &asked).await;
}
