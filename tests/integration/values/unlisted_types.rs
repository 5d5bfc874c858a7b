//! Bans that name types which their relations do not list: under a `!` they count for every subject, also for those of types
//! that the relation cannot lead to.

use mongodb::bson::{Bson, doc};

use super::{ALLOWED, EXCLUDED, MALFORMED, NO_GRANT, Two, assert_answers};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "integer"

[subject.bot]
id = "integer"

[resource.file]
id = "integer"

[resource.file.relations]
banned = { collection = "bans", by = "of", field = "who", subject_type = "kind", subject = { Bot = "bot" } }
barred = { collection = "bans", by = "of", each = "all", field = "who", subject_type = "kind", subject = ["bot"] }
locked = { collection = "locks", by = "of", field = "bot", subject = "bot" }
public = { collection = "public", by = "of" }

[resource.file.permissions]
read   = "!banned & public"
open   = "!barred & public"
write  = "!locked & public"
appeal = "banned"
"#;

#[tokio::test]
async fn a_ban_of_a_type_that_is_not_listed_counts_for_all() {
    let ban = |of: i32, kind: Bson| doc! { "of": of, "kind": kind, "who": 1 };
    let element =
        |of: i32, kind: Bson| doc! { "of": of, "all": [{ "kind": "bot", "who": 2 }, { "kind": kind, "who": 1 }] };
    let kinds: [(Bson, [&str; 3]); 10] = [
        // What a user, the bot and an anonymous one get.
        ("Bot".into(), [ALLOWED, EXCLUDED, ALLOWED]),
        ("User".into(), [MALFORMED; 3]),
        ("bot".into(), [MALFORMED; 3]),
        ("everybody".into(), [MALFORMED; 3]),
        (5.into(), [MALFORMED; 3]),
        (true.into(), [MALFORMED; 3]),
        (vec!["Bot"].into(), [MALFORMED; 3]),
        (doc! { "type": "Bot" }.into(), [MALFORMED; 3]),
        ("".into(), [ALLOWED; 3]),
        (Bson::Null, [ALLOWED; 3]),
    ];
    let (mut bans, mut public, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    let subjects = ["user:1", "bot:1", "anonymous"];
    for (number, (kind, expected)) in (0..).zip(&kinds) {
        bans.push(ban(number, kind.clone()));
        // Here the schema's own name of the type is listed.
        let listed = match kind.as_str() {
            Some("Bot") => "bot".into(),
            Some("bot") => "Bot".into(),
            _ => kind.clone(),
        };
        bans.push(element(100 + number, listed));
        public.extend([doc! { "of": number }, doc! { "of": 100 + number }]);
        for (subject, expected) in subjects.iter().zip(expected) {
            asked.push((*subject, "read", format!("file:{number}"), *expected));
            asked.push((*subject, "open", format!("file:{}", 100 + number), *expected));
        }
        // Where no `!` is around, the relation cannot lead to a user.
        asked.push(("user:1", "appeal", format!("file:{number}"), NO_GRANT));
    }
    // Without `subject_type`, every id is that of a bot, and a value that is no id concerns bots only.
    let locks = vec![doc! { "of": 200, "bot": 1 }, doc! { "of": 201, "bot": "x" }];
    public.extend([doc! { "of": 200 }, doc! { "of": 201 }]);
    for (subject, file, expected) in
        [("user:1", 200, ALLOWED), ("bot:1", 200, EXCLUDED), ("user:1", 201, ALLOWED), ("bot:1", 201, MALFORMED)]
    {
        asked.push((subject, "write", format!("file:{file}"), expected));
    }
    let asked: Vec<_> = asked
        .iter()
        .map(|(subject, permission, file, expected)| (*subject, *permission, file.as_str(), *expected))
        .collect();
    assert_answers(SCHEMA, &[("bans", bans), ("public", public), ("locks", locks)], &asked).await;
}

#[tokio::test]
async fn a_ban_of_a_type_that_is_not_listed_begins_and_ends_through_the_change_stream() {
    let two = Two::new(SCHEMA, &[("public", vec![doc! { "of": 1 }])]).await;
    let live = &two.first;
    let asks = |subject: &str| live.question(subject, "read", "file:1");
    let (user, bot, anonymous) = (asks("user:1"), asks("bot:1"), asks("anonymous"));
    let granted = "allowed by file#public";
    let answers = |user_gets, bot_gets, other_gets| [(&user, user_gets), (&bot, bot_gets), (&anonymous, other_gets)];
    two.until_cached(&answers(granted, granted, granted)).await;
    let set = |kind: Bson| doc! { "$set": { "kind": kind } };
    let ban = doc! { "of": 1, "kind": "Bot", "who": 1 };
    two.notice(live.insert("bans", vec![ban]).await, &answers(granted, EXCLUDED, granted)).await;
    let all_unknown = answers(MALFORMED, MALFORMED, MALFORMED);
    two.notice(live.update("bans", doc! {}, set("User".into())).await, &all_unknown).await;
    two.notice(live.update("bans", doc! {}, set(Bson::Null)).await, &answers(granted, granted, granted)).await;
    two.notice(live.update("bans", doc! {}, set(7.into())).await, &all_unknown).await;
    two.notice(live.delete("bans", doc! {}).await, &answers(granted, granted, granted)).await;
}
