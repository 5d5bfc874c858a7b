//! The key of a lookup and another path of the relation lead through the same array (`by = "tenants.tenant"`, `where = {
//! "tenants.roles" = … }`): one element may have the key and another the rest. Then the relation is indeterminate, and the
//! schema gets a warning that says how to write what is meant.

use mongodb::bson::{Document, doc};

use crate::{
    rules::rule::NOW,
    support::both::{Both, Collections, question, schema},
};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "string"
collection = "users"

[resource.tenant]
id = "string"
collection = "tenants"

[resource.tenant.relations]
admin = { collection = "users", by = "tenants.tenant", field = "_id", where = { "tenants.roles" = "admin" } }
guest = { collection = "visits", by = "stays.tenant", field = "stays.user" }
until = { collection = "visits", by = "stays.tenant", field = "user", until = "stays.end" }
listed = { collection = "visits", by = "stays.tenant", each = "stays", field = "user" }
deep = { collection = "visits", by = "a.stays.tenant", field = "user", where = { "a.level" = 1 } }
closed = { collection = "closures", by = "parts.tenant", where = { "parts.lifted" = { "$ne" = true } } }
picked = { collection = "users", by = "tenants.tenant", field = "_id", where = { tenants = { "$elemMatch" = { roles = "admin" } } } }
apart = { collection = "users", by = "tenants.tenant", field = "_id", where = { tenants = { "$not" = { "$elemMatch" = { roles = "viewer" } } } } }
nested = { collection = "users", by = "tenants.tenant", field = "_id", where = { "$or" = [{ "tenants.roles" = { "$all" = ["admin"] } }, { tenants = { "$size" = 1 } }] } }
friend = { collection = "friends", by = "all.tenant", field = "user", where = { kind = "friend" } }

[resource.tenant.permissions]
manage = "admin"
visit = "guest"
stay = "until"
list = "listed"
dive = "deep"
enter = "!closed & friend"
pick = "picked"
part = "apart"
nest = "nested"
"#;

const MALFORMED: &str = "denied MALFORMED";
const NO_GRANT: &str = "denied NO_GRANT";

fn roles(tenant: &str, roles: &[&str]) -> Document {
    doc! { "tenant": tenant, "roles": roles }
}

#[tokio::test]
async fn what_two_elements_of_one_array_meet_together_never_allows() {
    let user = |id: &str, tenants: Vec<Document>| doc! { "_id": id, "tenants": tenants };
    let eve = user("eve", vec![roles("acme", &["viewer"]), roles("eves-own", &["admin"])]);
    let plain = doc! { "_id": "pat", "tenants": roles("acme", &["admin"]) };
    let other = doc! { "_id": "oz", "tenants": roles("acme", &["viewer"]) };
    let single = user("sue", vec![roles("acme", &["admin"])]);
    let none = user("nil", vec![roles("acme", &["viewer"])]);
    let stay = |user: &str, tenant: &str| doc! { "tenant": tenant, "user": user, "end": mongodb::bson::DateTime::MAX };
    let visits = vec![
        doc! { "_id": 1, "user": "eve", "stays": [stay("eve", "mine"), stay("pat", "acme")] },
        doc! { "_id": 2, "user": "oz", "stays": stay("oz", "acme") },
        doc! { "_id": 3, "user": "eve", "a": { "level": 1, "stays": [{ "tenant": "acme" }] } },
        doc! { "_id": 4, "user": "sue", "a": [{ "level": 1 }, { "stays": { "tenant": "acme" } }] },
    ];
    let part = |tenant: &str, lifted: bool| doc! { "tenant": tenant, "lifted": lifted };
    let closures = vec![
        // The other part's closure is lifted, not this one's.
        doc! { "_id": 1, "parts": [part("shut", false), part("open", true)] },
        doc! { "_id": 2, "parts": part("lifted", true) },
    ];
    let tenants = ["acme", "eves-own", "mine", "shut", "open", "lifted"];
    let friends =
        doc! { "_id": 1, "user": "pat", "kind": "friend", "all": tenants.map(|id| doc! { "tenant": id }).to_vec() };
    let collections = Collections::from([
        ("users".to_owned(), vec![eve, plain, other, single, none]),
        ("tenants".to_owned(), tenants.iter().map(|id| doc! { "_id": *id }).collect()),
        ("visits".to_owned(), visits),
        ("closures".to_owned(), closures),
        ("friends".to_owned(), vec![friends]),
    ]);
    let both = Both::new(schema("shared.toml", SCHEMA), &collections).await;
    let cases = [
        ("eve", "manage", "acme", MALFORMED),
        ("eve", "manage", "eves-own", MALFORMED),
        ("sue", "manage", "acme", MALFORMED),
        ("pat", "manage", "acme", "allowed by tenant#admin"),
        ("oz", "manage", "acme", NO_GRANT),
        ("nil", "manage", "acme", NO_GRANT),
        // An element is an admin's, but of another tenant.
        ("eve", "pick", "acme", MALFORMED),
        ("sue", "pick", "acme", MALFORMED),
        ("pat", "pick", "acme", NO_GRANT),
        ("nil", "pick", "acme", NO_GRANT),
        ("eve", "part", "acme", NO_GRANT),
        ("sue", "part", "acme", MALFORMED),
        ("pat", "part", "acme", MALFORMED),
        ("eve", "nest", "acme", MALFORMED),
        ("nil", "nest", "acme", MALFORMED),
        // The document of a tenant, where `$size` expects an array.
        ("pat", "nest", "acme", MALFORMED),
        ("eve", "visit", "acme", MALFORMED),
        ("pat", "visit", "mine", MALFORMED),
        ("oz", "visit", "acme", "allowed by tenant#guest"),
        ("sue", "visit", "acme", NO_GRANT),
        ("eve", "stay", "acme", MALFORMED),
        ("oz", "stay", "acme", "allowed by tenant#until"),
        ("eve", "list", "acme", MALFORMED),
        // The array is not shared, so it is plain which document is meant.
        ("eve", "dive", "acme", "allowed by tenant#deep"),
        ("sue", "dive", "acme", MALFORMED),
        ("pat", "enter", "shut", MALFORMED),
        ("pat", "enter", "open", MALFORMED),
        ("pat", "enter", "lifted", "allowed by tenant#friend"),
        ("pat", "enter", "mine", "allowed by tenant#friend"),
    ];
    let questions = cases.map(|(user, permission, tenant, _)| {
        question(&both.schema, &format!("user:{user}"), permission, &format!("tenant:{tenant}"))
    });
    for (answers, (user, permission, tenant, expected)) in both.ask(&questions, NOW).await.into_iter().zip(cases) {
        let objection = both.objection(answers, |text| text == expected);
        assert_eq!(objection, None, "{user} {permission} {tenant}: expected {expected}");
    }
}

#[test]
fn the_warning_shows_the_relation_of_the_subject() {
    let schema = schema("shared.toml", SCHEMA);
    let warnings: Vec<_> = schema.warnings().expect("there are some").iter().collect();
    let of = |name: &str| {
        let words = format!("relation `{name}` finds documents by");
        warnings.iter().find(|warning| warning.message.starts_with(&words)).map(|warning| warning.help.clone().unwrap())
    };
    assert_eq!(warnings.len(), 9, "{warnings:#?}");
    let help = of("admin").unwrap();
    let relation = "admin = { each = \"tenants\", field = \"tenant\", resource = \"tenant\", where = '{\"roles\":{\"$eq\":\"admin\"}}' }";
    assert!(help.contains("[subject.user.relations]") && help.contains(relation), "{help}");
    assert!(help.contains("[resource.tenant.relations]") && help.contains("admin = { of = \"user.admin\" }"), "{help}");
    let picked = of("picked").unwrap();
    let relation = "picked = { each = \"tenants\", field = \"tenant\", resource = \"tenant\", where = '{\"roles\":{\"$eq\":\"admin\"}}' }";
    assert!(picked.contains(relation), "{picked}");
    for other in ["apart", "nested", "guest", "until", "listed", "deep", "closed"] {
        assert!(of(other).unwrap().contains("a document for each element"), "{other}");
    }
    assert_eq!(of("friend"), None);
}
