//! The table: each field that a relation of `fylora-sharing.toml` reads, in documents that grant by its right value,
//! and how it is read. What is to be expected of other values follows from that, in `expected`.

use mongodb::bson::{Bson, Document, doc};

use crate::rules::{
    items::{FILE, FOLDER, user},
    rule::{Rule, future},
};

/// How a relation reads a field, and so what becomes of a value of the wrong type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SampledMetric {
    /// The id of a user or a folder: what is no ObjectId could be anybody's. Empty strings are nobody's.
    Id,
    /// A token: what is no string could be anybody's.
    Secret,
    /// What the document is found by: what is no ObjectId is not found.
    Key,
    /// It must be equal to the right value: what is not grants nothing.
    Equal,
    /// It must not be this: what has another type is neither it nor plainly not it.
    NotEqual(bool),
    /// It must be null or missing.
    Null,
    /// An end: what is no date is no end that can be relied on.
    Date,
    /// The flag under a `!`: this value excludes, and what has another type might.
    Excludes(bool),
    /// An array of documents.
    List,
    /// The limit of uses, of which two are used up; and the uses, of which three are allowed.
    Limit,
    Uses,
}

/// Makes the change that puts a value into a field.
pub type Put = fn(Bson) -> Document;

/// One field.
pub struct Field {
    pub name: &'static str,
    /// Documents that grant the permission, by this field's right value, and the question.
    pub grants: Rule,
    pub permission: &'static str,
    pub right: Bson,
    pub reading: SampledMetric,
    /// The document that the field is in, and the change that puts a value into it.
    pub at: &'static str,
    pub put: Put,
    /// A document that grants besides.
    pub besides: Option<(&'static str, Document)>,
    /// The reason where the value has the right type but does not grant.
    pub plainly: &'static str,
}

impl Field {
    fn of(
        name: &'static str,
        grants: Rule,
        at: &'static str,
        put: Put,
        right: impl Into<Bson>,
        reading: SampledMetric,
    ) -> Self {
        let plainly = if matches!(reading, SampledMetric::Excludes(_)) { "EXCLUDED" } else { "NO_GRANT" };
        Self { name, grants, permission: "read", right: right.into(), reading, at, put, besides: None, plainly }
    }

    fn asks(self, permission: &'static str) -> Self {
        Self { permission, ..self }
    }

    fn besides(self, at: &'static str, document: Document) -> Self {
        Self { besides: Some((at, document)), ..self }
    }

    fn plainly(self, plainly: &'static str) -> Self {
        Self { plainly, ..self }
    }
}

/// Every field that the schema's relations read; `every_field_is_here` holds it to that.
pub fn fields() -> Vec<Field> {
    let mut fields = of_shares("file: an internal share", guest_of_file, "guest");
    fields.extend(of_shares("folder: an internal share seen from beneath", guest_beneath, "guest"));
    fields.extend(of_shares("file: a public share", link_of_file, "link"));
    fields.extend(of_shares("folder: a public share seen from beneath", link_beneath, "link"));
    fields.extend(of_shares("file: a checked password", verified_of_file, "verified_link"));
    fields.extend(of_codes());
    fields.extend(of_items());
    fields.extend(of_notes());
    fields.extend(of_teams());
    fields
}

fn guest_of_file() -> Rule {
    let mut share = FILE.share("@plan", "internal");
    share.insert("shared_with_user_id", "@alice");
    let rule = Rule::sharing("").with("users/alice", user()).with("files/plan", FILE.item("@bob"));
    rule.with("shares/1", share).asks("user:@alice", "file:@plan")
}

fn guest_beneath() -> Rule {
    let mut share = FOLDER.share("@work", "internal");
    share.insert("shared_with_user_id", "@alice");
    beneath(share).with("users/alice", user()).asks("user:@alice", "file:@plan")
}

fn link_of_file() -> Rule {
    let rule = Rule::sharing("").with("files/plan", FILE.item("@bob")).with("shares/1", FILE.public_share("@plan"));
    rule.asks("link:#token", "file:@plan")
}

fn link_beneath() -> Rule {
    beneath(FOLDER.public_share("@work")).asks("link:#token", "file:@plan")
}

fn verified_of_file() -> Rule {
    link_of_file().asks("verified_link:#token", "file:@plan")
}

/// A file two folders beneath a shared one.
fn beneath(share: Document) -> Rule {
    Rule::sharing("")
        .with("folders/work", doc! { "owner_id": "@bob", "parent_id": null, "is_deleted": false })
        .with("folders/low", doc! { "owner_id": "@bob", "parent_id": "@work", "is_deleted": false })
        .with("files/plan", doc! { "owner_id": "@bob", "folder_id": "@low", "is_deleted": false })
        .with("shares/1", share)
}

/// The fields of a share that grants; the same share again is what grants besides.
fn of_shares(name: &'static str, grants: fn() -> Rule, relation: &str) -> Vec<Field> {
    const AT: &str = "shares/1";
    let is_of_file = name.starts_with("file");
    let share = grants().document("shares/1");
    let share_type = share.get_str("share_type").unwrap().to_owned();
    let key: (Put, &str) = if is_of_file {
        (|value| doc! { "file_id": value }, "@plan")
    } else {
        (|value| doc! { "folder_id": value }, "@work")
    };
    let mut fields = vec![
        Field::of(name, grants(), AT, key.0, key.1, SampledMetric::Key),
        Field::of(name, grants(), AT, |value| doc! { "share_type": value }, share_type, SampledMetric::Equal),
        Field::of(name, grants(), AT, |value| doc! { "is_active": value }, true, SampledMetric::NotEqual(false)),
        Field::of(name, grants(), AT, |value| doc! { "expires_at": value }, future(), SampledMetric::Date),
    ];
    if relation == "guest" {
        fields.push(Field::of(
            name,
            grants(),
            AT,
            |value| doc! { "shared_with_user_id": value },
            "@alice",
            SampledMetric::Id,
        ));
    } else {
        fields.push(Field::of(
            name,
            grants(),
            AT,
            |value| doc! { "public_token": value },
            "#token",
            SampledMetric::Secret,
        ));
    }
    if relation == "link" {
        fields.push(Field::of(
            name,
            grants(),
            AT,
            |value| doc! { "requires_password": value },
            false,
            SampledMetric::NotEqual(true),
        ));
        fields.push(Field::of(
            name,
            grants(),
            AT,
            |value| doc! { "password_hash": value },
            Bson::Null,
            SampledMetric::Null,
        ));
    }
    fields.into_iter().map(|field| field.besides("shares/2", share.clone())).collect()
}

fn of_codes() -> Vec<Field> {
    const AT: &str = "temporaryaccesses/1";
    const WORDS: [(&str, &str); 4] = [("view", "read"), ("download", "read"), ("edit", "write"), ("share", "share")];
    let mut fields = Vec::new();
    for (kind, plan, name) in [("file", "files/plan", "file: a code"), ("folder", "folders/plan", "folder: a code")] {
        for (word, permission) in WORDS {
            let code = doc! {
                "access_code": "#code", "resource_type": kind, "resource_id": "@plan", "permissions": [word],
                "expires_at": null, "max_uses": 3, "use_count": 2, "is_active": true, "password_hash": null,
            };
            let grants = || {
                let rule = Rule::sharing("").with(plan, doc! { "owner_id": "@bob" });
                rule.with(AT, code.clone()).asks("code:#code", format!("{kind}:@plan"))
            };
            let of_code = [
                Field::of(name, grants(), AT, |value| doc! { "resource_id": value }, "@plan", SampledMetric::Key),
                Field::of(name, grants(), AT, |value| doc! { "access_code": value }, "#code", SampledMetric::Secret),
                Field::of(name, grants(), AT, |value| doc! { "resource_type": value }, kind, SampledMetric::Equal),
                Field::of(name, grants(), AT, |value| doc! { "permissions": value }, word, SampledMetric::Equal),
                Field::of(
                    name,
                    grants(),
                    AT,
                    |value| doc! { "is_active": value },
                    true,
                    SampledMetric::NotEqual(false),
                ),
                Field::of(
                    name,
                    grants(),
                    AT,
                    |value| doc! { "requires_password": value },
                    false,
                    SampledMetric::NotEqual(true),
                ),
                Field::of(name, grants(), AT, |value| doc! { "password_hash": value }, Bson::Null, SampledMetric::Null),
                Field::of(name, grants(), AT, |value| doc! { "expires_at": value }, future(), SampledMetric::Date),
                Field::of(name, grants(), AT, |value| doc! { "max_uses": value }, 3, SampledMetric::Limit),
                Field::of(name, grants(), AT, |value| doc! { "use_count": value }, 2, SampledMetric::Uses),
            ];
            fields.extend(of_code.map(|field| field.asks(permission).besides("temporaryaccesses/2", code.clone())));
        }
    }
    fields
}

fn of_items() -> Vec<Field> {
    let owner: Put = |value| doc! { "owner_id": value };
    let deleted: Put = |value| doc! { "is_deleted": value };
    let active: Put = |value| doc! { "is_active": value };
    let mut share = FILE.share("@plan", "internal");
    share.insert("shared_with_user_id", "@alice");
    let owned_file = || {
        let rule = Rule::sharing("").with("users/alice", user()).with("files/plan", FILE.item("@alice"));
        rule.asks("user:@alice", "file:@plan")
    };
    let owned_folder = || {
        let rule = Rule::sharing("").with("users/alice", user()).with("folders/plan", FOLDER.item("@alice"));
        rule.asks("user:@alice", "folder:@plan")
    };
    let own = || doc! { "owner_id": "@alice" };
    let mut fields = vec![
        Field::of("file: its owner", owned_file(), "files/plan", owner, "@alice", SampledMetric::Id)
            .besides("shares/1", share),
        Field::of("folder: its owner", owned_folder(), "folders/plan", owner, "@alice", SampledMetric::Id)
            .asks("delete"),
        Field::of("the user", owned_file(), "users/alice", active, true, SampledMetric::NotEqual(false))
            .plainly("SUBJECT_INACTIVE"),
        Field::of(
            "file: its folder",
            guest_beneath(),
            "files/plan",
            |value| doc! { "folder_id": value },
            "@low",
            SampledMetric::Id,
        )
        .besides("files/plan", own()),
        Field::of(
            "folder: its parent",
            guest_beneath(),
            "folders/low",
            |value| doc! { "parent_id": value },
            "@work",
            SampledMetric::Id,
        )
        .besides("files/plan", own()),
        Field::of("folder on the way", guest_beneath(), "folders/low", deleted, false, SampledMetric::Excludes(true))
            .besides("files/plan", own()),
        Field::of("shared folder", link_beneath(), "folders/work", deleted, false, SampledMetric::Excludes(true)),
        Field::of("file: a public share", link_of_file(), "files/plan", deleted, false, SampledMetric::Excludes(true)),
        Field::of("file beneath", guest_beneath(), "files/plan", deleted, false, SampledMetric::Excludes(true)),
    ];
    for permission in ["read", "write", "share", "delete"] {
        fields.push(
            Field::of("file", owned_file(), "files/plan", deleted, false, SampledMetric::Excludes(true))
                .asks(permission),
        );
        fields.push(
            Field::of("folder", owned_folder(), "folders/plan", deleted, false, SampledMetric::Excludes(true))
                .asks(permission),
        );
    }
    for permission in ["restore", "purge"] {
        for (name, owned, at) in [("file", owned_file(), "files/plan"), ("folder", owned_folder(), "folders/plan")] {
            let trashed = owned.with(at, deleted(true.into()));
            fields.push(Field::of(name, trashed, at, deleted, true, SampledMetric::Equal).asks(permission));
        }
    }
    fields
}

fn of_notes() -> Vec<Field> {
    const AT: &str = "notes/plan";
    let grants = |change: Document| {
        let rule =
            Rule::sharing("").with("users/alice", user()).with(AT, doc! { "owner_id": "@bob", "is_deleted": false });
        rule.with(AT, change).asks("user:@alice", "note:@plan")
    };
    let public = || grants(doc! { "is_public": true, "public_token": "#token" }).asks("link:#token", "note:@plan");
    let owned = || grants(doc! { "owner_id": "@alice" });
    let own = || doc! { "owner_id": "@alice" };
    let mut fields = vec![
        Field::of("note: its owner", owned(), AT, |value| doc! { "owner_id": value }, "@alice", SampledMetric::Id)
            .besides(AT, doc! { "shared_with": [{ "user_id": "@alice", "permission": "read" }] }),
        Field::of(
            "note: its token",
            public(),
            AT,
            |value| doc! { "public_token": value },
            "#token",
            SampledMetric::Secret,
        ),
        Field::of("note: is it public", public(), AT, |value| doc! { "is_public": value }, true, SampledMetric::Equal),
        Field::of(
            "note: public",
            public(),
            AT,
            |value| doc! { "is_deleted": value },
            false,
            SampledMetric::Excludes(true),
        ),
    ];
    let levels: [(&str, &str, Put); 3] = [
        ("read", "read", |user_id| doc! { "shared_with": [{ "user_id": user_id, "permission": "read" }] }),
        ("write", "write", |user_id| doc! { "shared_with": [{ "user_id": user_id, "permission": "write" }] }),
        ("admin", "share", |user_id| doc! { "shared_with": [{ "user_id": user_id, "permission": "admin" }] }),
    ];
    for (word, permission, put) in levels {
        let list = || grants(put("@alice".into()));
        let element = doc! { "user_id": "@alice", "permission": word };
        let of_list = [
            Field::of("note: whom it is shared with", list(), AT, put, "@alice", SampledMetric::Id),
            Field::of(
                "note: a level",
                list(),
                AT,
                |value| doc! { "shared_with": [{ "user_id": "@alice", "permission": value }] },
                word,
                SampledMetric::Equal,
            ),
            Field::of(
                "note: the list",
                list(),
                AT,
                |value| doc! { "shared_with": value },
                vec![Bson::Document(element)],
                SampledMetric::List,
            ),
        ];
        fields.extend(of_list.map(|field| field.asks(permission).besides(AT, own())));
    }
    for permission in ["read", "write", "share", "delete", "publish"] {
        fields.push(
            Field::of("note", owned(), AT, |value| doc! { "is_deleted": value }, false, SampledMetric::Excludes(true))
                .asks(permission),
        );
    }
    for permission in ["restore", "purge"] {
        let trashed = owned().with(AT, doc! { "is_deleted": true });
        fields.push(
            Field::of("note", trashed, AT, |value| doc! { "is_deleted": value }, true, SampledMetric::Equal)
                .asks(permission),
        );
    }
    fields
}

fn of_teams() -> Vec<Field> {
    const AT: &str = "teams/design";
    let grants = |change: Document| {
        let rule = Rule::sharing("")
            .with("users/alice", user())
            .with(AT, doc! { "owner_id": "@bob", "members": [], "is_active": true });
        rule.with(AT, change).asks("user:@alice", "team:@design")
    };
    let member = || doc! { "members": [{ "user_id": "@alice", "role": "admin" }] };
    let list = || vec![Bson::Document(doc! { "user_id": "@alice", "role": "admin" })];
    let own = || doc! { "owner_id": "@alice" };
    let user_id: Put = |value| doc! { "members": [{ "user_id": value, "role": "admin" }] };
    let members: Put = |value| doc! { "members": value };
    let active: Put = |value| doc! { "is_active": value };
    let mut fields = vec![
        Field::of(
            "team: its owner",
            grants(own()),
            AT,
            |value| doc! { "owner_id": value },
            "@alice",
            SampledMetric::Id,
        )
        .asks("manage"),
        Field::of(
            "team: its owner",
            grants(own()),
            AT,
            |value| doc! { "owner_id": value },
            "@alice",
            SampledMetric::Id,
        )
        .asks("invite")
        .besides(AT, member()),
        Field::of(
            "team: a role",
            grants(member()),
            AT,
            |value| doc! { "members": [{ "user_id": "@alice", "role": value }] },
            "admin",
            SampledMetric::Equal,
        )
        .asks("remove")
        .besides(AT, own()),
    ];
    for permission in ["view", "invite"] {
        fields.push(
            Field::of("team: a member", grants(member()), AT, user_id, "@alice", SampledMetric::Id)
                .asks(permission)
                .besides(AT, own()),
        );
        fields.push(
            Field::of("team: the list", grants(member()), AT, members, list(), SampledMetric::List)
                .asks(permission)
                .besides(AT, own()),
        );
    }
    for permission in ["view", "invite", "remove", "manage"] {
        fields
            .push(Field::of("team", grants(own()), AT, active, true, SampledMetric::Excludes(false)).asks(permission));
    }
    fields
}
