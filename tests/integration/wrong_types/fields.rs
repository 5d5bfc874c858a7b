//! The table of fields: each field that a relation of `fylora-sharing.toml` reads, documents in which its right value
//! grants, and how the relation uses it.
//!
//! Does not contain the outcomes for other values: `expected` derives them from the use.

use mongodb::bson::{Bson, Document, doc};

use crate::rules::{
    items::{FILE, FOLDER, user},
    rule::{Rule, future},
};

/// How a relation uses a field. It determines the outcome of a value of a wrong type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldUse {
    /// The id of a user or a folder. A value that is not an ObjectId could mean anybody. An empty string means nobody.
    Id,
    /// A token. A value that is not a string could mean anybody.
    Secret,
    /// The key of the lookup. A document with a value that is not an ObjectId is not found.
    Key,
    /// The field must be equal to the right value. Another value grants nothing.
    Equal,
    /// The field must not have this value. A value of another type is indeterminate.
    NotEqual(bool),
    /// The field must be null or missing.
    Null,
    /// The end of a grant. A value that is not a date cannot be relied on.
    Date,
    /// A flag under a `!`. This value excludes, and a value of another type might.
    Excludes(bool),
    /// An array of documents.
    List,
    /// The maximal number of uses, of which two are used up.
    Limit,
    /// The number of uses, of which three are allowed.
    Uses,
}

/// Returns the change that sets the field to a value.
pub type Put = fn(Bson) -> Document;

/// One field.
pub struct Field {
    pub name: &'static str,
    /// The question, and documents that grant the permission because the field has its right value.
    pub grants: Rule,
    pub permission: &'static str,
    pub right: Bson,
    pub usage: FieldUse,
    /// The document that contains the field, and the change that sets the field.
    pub at: &'static str,
    pub put: Put,
    /// Another document that grants the permission, if there is one.
    pub also_granted_by: Option<(&'static str, Document)>,
    /// The reason of the denial if the value has the right type but does not grant.
    pub denial: &'static str,
}

impl Field {
    fn of(
        name: &'static str,
        grants: Rule,
        at: &'static str,
        put: Put,
        right: impl Into<Bson>,
        usage: FieldUse,
    ) -> Self {
        let denial = if matches!(usage, FieldUse::Excludes(_)) { "EXCLUDED" } else { "NO_GRANT" };
        Self { name, grants, permission: "read", right: right.into(), usage, at, put, also_granted_by: None, denial }
    }

    fn asks(self, permission: &'static str) -> Self {
        Self { permission, ..self }
    }

    fn also_granted_by(self, at: &'static str, document: Document) -> Self {
        Self { also_granted_by: Some((at, document)), ..self }
    }

    fn denial(self, denial: &'static str) -> Self {
        Self { denial, ..self }
    }
}

/// Every field that the schema's relations read. The test `every_field_that_relations_read_is_in_the_table` verifies that.
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

/// A file two levels beneath a shared folder.
fn beneath(share: Document) -> Rule {
    Rule::sharing("")
        .with("folders/work", doc! { "owner_id": "@bob", "parent_id": null, "is_deleted": false })
        .with("folders/low", doc! { "owner_id": "@bob", "parent_id": "@work", "is_deleted": false })
        .with("files/plan", doc! { "owner_id": "@bob", "folder_id": "@low", "is_deleted": false })
        .with("shares/1", share)
}

/// The fields of a share that grants. The other grant is a copy of that share.
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
        Field::of(name, grants(), AT, key.0, key.1, FieldUse::Key),
        Field::of(name, grants(), AT, |value| doc! { "share_type": value }, share_type, FieldUse::Equal),
        Field::of(name, grants(), AT, |value| doc! { "is_active": value }, true, FieldUse::Equal),
        Field::of(name, grants(), AT, |value| doc! { "expires_at": value }, future(), FieldUse::Date),
    ];
    if relation == "guest" {
        fields.push(Field::of(
            name,
            grants(),
            AT,
            |value| doc! { "shared_with_user_id": value },
            "@alice",
            FieldUse::Id,
        ));
    } else {
        fields.push(Field::of(name, grants(), AT, |value| doc! { "public_token": value }, "#token", FieldUse::Secret));
    }
    if relation == "link" {
        fields.push(Field::of(
            name,
            grants(),
            AT,
            |value| doc! { "requires_password": value },
            false,
            FieldUse::NotEqual(true),
        ));
        fields.push(Field::of(name, grants(), AT, |value| doc! { "password_hash": value }, Bson::Null, FieldUse::Null));
    }
    fields.into_iter().map(|field| field.also_granted_by("shares/2", share.clone())).collect()
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
                Field::of(name, grants(), AT, |value| doc! { "resource_id": value }, "@plan", FieldUse::Key),
                Field::of(name, grants(), AT, |value| doc! { "access_code": value }, "#code", FieldUse::Secret),
                Field::of(name, grants(), AT, |value| doc! { "resource_type": value }, kind, FieldUse::Equal),
                Field::of(name, grants(), AT, |value| doc! { "permissions": value }, word, FieldUse::Equal),
                Field::of(name, grants(), AT, |value| doc! { "is_active": value }, true, FieldUse::Equal),
                Field::of(
                    name,
                    grants(),
                    AT,
                    |value| doc! { "requires_password": value },
                    false,
                    FieldUse::NotEqual(true),
                ),
                Field::of(name, grants(), AT, |value| doc! { "password_hash": value }, Bson::Null, FieldUse::Null),
                Field::of(name, grants(), AT, |value| doc! { "expires_at": value }, future(), FieldUse::Date),
                Field::of(name, grants(), AT, |value| doc! { "max_uses": value }, 3, FieldUse::Limit),
                Field::of(name, grants(), AT, |value| doc! { "use_count": value }, 2, FieldUse::Uses),
            ];
            fields.extend(
                of_code.map(|field| field.asks(permission).also_granted_by("temporaryaccesses/2", code.clone())),
            );
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
        Field::of("file: its owner", owned_file(), "files/plan", owner, "@alice", FieldUse::Id)
            .also_granted_by("shares/1", share),
        Field::of("folder: its owner", owned_folder(), "folders/plan", owner, "@alice", FieldUse::Id).asks("delete"),
        Field::of("the user", owned_file(), "users/alice", active, true, FieldUse::NotEqual(false))
            .denial("SUBJECT_INACTIVE"),
        Field::of(
            "file: its folder",
            guest_beneath(),
            "files/plan",
            |value| doc! { "folder_id": value },
            "@low",
            FieldUse::Id,
        )
        .also_granted_by("files/plan", own()),
        Field::of(
            "folder: its parent",
            guest_beneath(),
            "folders/low",
            |value| doc! { "parent_id": value },
            "@work",
            FieldUse::Id,
        )
        .also_granted_by("files/plan", own()),
        Field::of("folder on the way", guest_beneath(), "folders/low", deleted, false, FieldUse::Excludes(true))
            .also_granted_by("files/plan", own()),
        Field::of("shared folder", link_beneath(), "folders/work", deleted, false, FieldUse::Excludes(true)),
        Field::of("file: a public share", link_of_file(), "files/plan", deleted, false, FieldUse::Excludes(true)),
        Field::of("file beneath", guest_beneath(), "files/plan", deleted, false, FieldUse::Excludes(true)),
    ];
    for permission in ["read", "write", "share", "delete"] {
        fields.push(
            Field::of("file", owned_file(), "files/plan", deleted, false, FieldUse::Excludes(true)).asks(permission),
        );
        fields.push(
            Field::of("folder", owned_folder(), "folders/plan", deleted, false, FieldUse::Excludes(true))
                .asks(permission),
        );
    }
    for permission in ["restore", "purge"] {
        for (name, owned, at) in [("file", owned_file(), "files/plan"), ("folder", owned_folder(), "folders/plan")] {
            let trashed = owned.with(at, deleted(true.into()));
            fields.push(Field::of(name, trashed, at, deleted, true, FieldUse::Equal).asks(permission));
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
        Field::of("note: its owner", owned(), AT, |value| doc! { "owner_id": value }, "@alice", FieldUse::Id)
            .also_granted_by(AT, doc! { "shared_with": [{ "user_id": "@alice", "permission": "read" }] }),
        Field::of("note: its token", public(), AT, |value| doc! { "public_token": value }, "#token", FieldUse::Secret),
        Field::of("note: is it public", public(), AT, |value| doc! { "is_public": value }, true, FieldUse::Equal),
        Field::of("note: public", public(), AT, |value| doc! { "is_deleted": value }, false, FieldUse::Excludes(true)),
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
            Field::of("note: whom it is shared with", list(), AT, put, "@alice", FieldUse::Id),
            Field::of(
                "note: a level",
                list(),
                AT,
                |value| doc! { "shared_with": [{ "user_id": "@alice", "permission": value }] },
                word,
                FieldUse::Equal,
            ),
            Field::of(
                "note: the list",
                list(),
                AT,
                |value| doc! { "shared_with": value },
                vec![Bson::Document(element)],
                FieldUse::List,
            ),
        ];
        fields.extend(of_list.map(|field| field.asks(permission).also_granted_by(AT, own())));
    }
    for permission in ["read", "write", "share", "delete", "publish"] {
        fields.push(
            Field::of("note", owned(), AT, |value| doc! { "is_deleted": value }, false, FieldUse::Excludes(true))
                .asks(permission),
        );
    }
    for permission in ["restore", "purge"] {
        let trashed = owned().with(AT, doc! { "is_deleted": true });
        fields.push(
            Field::of("note", trashed, AT, |value| doc! { "is_deleted": value }, true, FieldUse::Equal)
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
        Field::of("team: its owner", grants(own()), AT, |value| doc! { "owner_id": value }, "@alice", FieldUse::Id)
            .asks("manage"),
        Field::of("team: its owner", grants(own()), AT, |value| doc! { "owner_id": value }, "@alice", FieldUse::Id)
            .asks("invite")
            .also_granted_by(AT, member()),
        Field::of(
            "team: a role",
            grants(member()),
            AT,
            |value| doc! { "members": [{ "user_id": "@alice", "role": value }] },
            "admin",
            FieldUse::Equal,
        )
        .asks("remove")
        .also_granted_by(AT, own()),
    ];
    for permission in ["view", "invite"] {
        fields.push(
            Field::of("team: a member", grants(member()), AT, user_id, "@alice", FieldUse::Id)
                .asks(permission)
                .also_granted_by(AT, own()),
        );
        fields.push(
            Field::of("team: the list", grants(member()), AT, members, list(), FieldUse::List)
                .asks(permission)
                .also_granted_by(AT, own()),
        );
    }
    for permission in ["view", "invite", "remove", "manage"] {
        fields.push(Field::of("team", grants(own()), AT, active, true, FieldUse::Excludes(false)).asks(permission));
    }
    fields
}
