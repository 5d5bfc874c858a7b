//! The rules for files and folders that both schemas have: by their own documents, and by shares of exactly the item.
//!
//! Shares that apply to items beneath a folder are in `sharing`.

use mongodb::bson::{Bson, Document, doc};

use super::rule::{Rule, from_now, future, gone, missing, past};

/// The type of item that a rule is about. Files and folders have the same rules.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The resource type.
    pub name: &'static str,
    /// The document of the item in question.
    pub plan: &'static str,
    /// The field that leads to the folder above it.
    pub up: &'static str,
    /// The field with which shares name it.
    pub by: &'static str,
    /// The field with which shares name items of the other type.
    pub not_by: &'static str,
}

pub const FILE: Kind = Kind { name: "file", plan: "files/plan", up: "folder_id", by: "file_id", not_by: "folder_id" };
pub const FOLDER: Kind =
    Kind { name: "folder", plan: "folders/plan", up: "parent_id", by: "folder_id", not_by: "file_id" };

/// An active user in Fylora's format.
pub fn user() -> Document {
    doc! { "is_active": true, "is_admin": false }
}

impl Kind {
    /// The item in question in Fylora's format.
    pub fn item(self, owner: &str) -> Document {
        doc! { "name": "plan", "owner_id": owner, self.up: null, "is_deleted": false }
    }

    /// A public share of an item in Fylora's format.
    pub fn public_share(self, of: &str) -> Document {
        let mut share = self.share(of, "public");
        share.insert("public_token", "#token");
        share
    }

    /// A share of an item in Fylora's format.
    pub fn share(self, of: &str, share_type: &str) -> Document {
        doc! {
            self.by: of, self.not_by: null, "created_by_id": "@alice", "share_type": share_type,
            "requires_password": false, "password_hash": null, "shared_with_user_id": null, "expires_at": null,
            "is_active": true,
        }
    }

    /// The resource of a rule's question.
    pub fn resource(self) -> String {
        format!("{}:@plan", self.name)
    }
}

pub fn rules() -> Vec<Rule> {
    [FILE, FOLDER]
        .into_iter()
        .flat_map(|kind| {
            [
                owner(kind),
                trash(kind),
                trash_of_others(kind),
                link(kind),
                deleted_link(kind),
                owner_above(kind),
                nobody(kind),
                administrator(kind),
            ]
        })
        .collect()
}

fn owner(kind: Kind) -> Rule {
    Rule::new(format!("the owner of a {} may read, write, delete, share", kind.name))
        .with("users/alice", user())
        .with("folders/work", doc! { "owner_id": "@bob", "parent_id": null, "is_deleted": false })
        .with(kind.plan, kind.item("@alice"))
        .asks("user:@alice", kind.resource())
        .grants("read write delete share", "owner")
        .off(kind.plan, doc! { "is_deleted": true }, "EXCLUDED")
        .grants("restore purge", "owner")
        .off(kind.plan, doc! { "owner_id": "@bob" }, "NO_GRANT")
        .off(kind.plan, doc! { "owner_id": null }, "NO_GRANT")
        .off(kind.plan, doc! { "owner_id": missing() }, "NO_GRANT")
        .off(kind.plan, doc! { "owner_id": "65f000000000000000000001" }, "MALFORMED")
        .off(kind.plan, doc! { "is_deleted": "false" }, "MALFORMED")
        .same(kind.plan, doc! { "is_deleted": null })
        .same(kind.plan, doc! { "is_deleted": missing() })
        .same(kind.plan, doc! { "deleted_at": past() })
        .same(kind.plan, doc! { kind.up: "@work" })
        .same(kind.plan, doc! { kind.up: "@work" })
        .and("folders/work", doc! { "is_deleted": true })
        .same(kind.plan, doc! { kind.up: "@work" })
        .and("folders/work", gone())
        .same(kind.plan, doc! { kind.up: missing() })
}

fn trash(kind: Kind) -> Rule {
    let back = |rule: Rule| rule.grants("read write delete share", "owner");
    let rule = Rule::new(format!("the owner of a deleted {} may restore and purge, and nothing else", kind.name))
        .with("users/alice", user())
        .with(kind.plan, kind.item("@alice"))
        .asks("user:@alice", kind.resource())
        .grants("restore purge", "owner")
        .denies("read write delete share", "EXCLUDED");
    let mut rule = rule.with(kind.plan, doc! { "is_deleted": true });
    for value in [Bson::Boolean(false), Bson::Null, missing()] {
        rule = back(rule.off(kind.plan, doc! { "is_deleted": value }, "NO_GRANT"));
    }
    rule.off(kind.plan, doc! { "owner_id": "@bob" }, "NO_GRANT").denies("read write delete share", "EXCLUDED")
}

fn trash_of_others(kind: Kind) -> Rule {
    Rule::new(format!("an internal share of a deleted {} gives nothing, not even restore", kind.name))
        .with("users/alice", user())
        .with(kind.plan, kind.item("@bob"))
        .with("shares/1", kind.share("@plan", "internal"))
        .asks("user:@alice", kind.resource())
        .with(kind.plan, doc! { "is_deleted": true })
        .denies("read write delete share", "EXCLUDED")
        .same("shares/1", doc! { "shared_with_user_id": "@alice" })
}

/// Adds the changes after which a share of `of` grants nothing, for any type of subject and any item.
pub fn share_off(rule: Rule, kind: Kind, of: &str) -> Rule {
    rule.off("shares/1", doc! { "is_active": false }, "NO_GRANT")
        // The routes look a share up by `is_active: true`.
        .off("shares/1", doc! { "is_active": null }, "NO_GRANT")
        .off("shares/1", doc! { "is_active": missing() }, "NO_GRANT")
        .off("shares/1", doc! { "is_active": missing(), "expires_at": past() }, "NO_GRANT")
        .off("shares/1", doc! { "is_active": "true" }, "NO_GRANT")
        .off("shares/1", doc! { "is_active": 1 }, "NO_GRANT")
        .off("shares/1", doc! { "expires_at": past() }, "EXPIRED")
        .off("shares/1", doc! { "expires_at": from_now(0) }, "EXPIRED")
        .off("shares/1", doc! { "expires_at": past(), "is_active": false }, "NO_GRANT")
        .off("shares/1", doc! { kind.by: "@other" }, "NO_GRANT")
        .off("shares/1", doc! { kind.by: null }, "NO_GRANT")
        .off("shares/1", doc! { kind.by: missing() }, "NO_GRANT")
        .off("shares/1", doc! { kind.by: null, kind.not_by: of }, "NO_GRANT")
        .off("shares/1", doc! { "share_type": null }, "NO_GRANT")
        .off("shares/1", doc! { "share_type": missing() }, "NO_GRANT")
        .off("shares/1", doc! { "share_type": "private" }, "NO_GRANT")
        .off("shares/1", gone(), "NO_GRANT")
        .same("shares/1", doc! { "expires_at": missing() })
        .same("shares/1", doc! { "expires_at": future() })
        .same("shares/1", doc! { "expires_at": from_now(1) })
        .same("shares/1", doc! { "created_by_id": "@zoe" })
}

/// Adds the changes after which a share grants nothing to a `link`, in addition to [`share_off`].
pub fn link_off(rule: Rule, kind: Kind, of: &str) -> Rule {
    share_off(rule, kind, of)
        .off("shares/1", doc! { "share_type": "internal" }, "NO_GRANT")
        .off("shares/1", doc! { "share_type": "PUBLIC" }, "NO_GRANT")
        .off("shares/1", doc! { "requires_password": true }, "NO_GRANT")
        .off("shares/1", doc! { "password_hash": "x" }, "NO_GRANT")
        .off("shares/1", doc! { "requires_password": true, "password_hash": "x" }, "NO_GRANT")
        .off("shares/1", doc! { "password_hash": "" }, "NO_GRANT")
        .off("shares/1", doc! { "public_token": "#another" }, "NO_GRANT")
        .off("shares/1", doc! { "public_token": null }, "NO_GRANT")
        .off("shares/1", doc! { "public_token": missing() }, "NO_GRANT")
        .off("shares/1", doc! { "public_token": "" }, "NO_GRANT")
        .same("shares/1", doc! { "requires_password": null })
        .same("shares/1", doc! { "requires_password": missing() })
        .same("shares/1", doc! { "password_hash": missing() })
        .same("shares/1", doc! { "shared_with_user_id": "@zoe" })
}

fn link(kind: Kind) -> Rule {
    let title = format!("a link reads the {} of a public, active, unexpired share that needs no password", kind.name);
    let rule = Rule::new(title)
        .with("users/alice", user())
        .with(kind.plan, kind.item("@alice"))
        .with("shares/1", kind.public_share("@plan"))
        .asks("link:#token", kind.resource())
        .grants("read", "link")
        .not_for("user:@alice_too")
        .off(kind.plan, doc! { "is_deleted": true }, "EXCLUDED")
        .same(kind.plan, doc! { "is_deleted": missing() })
        .same("users/alice", doc! { "is_active": false })
        .same("users/alice", gone())
        // One valid share among several is enough.
        .same("shares/1", doc! { "is_active": false })
        .and("shares/2", kind.public_share("@plan"))
        .same("shares/1", doc! { "expires_at": past() })
        .and("shares/2", kind.public_share("@plan"))
        .off("shares/1", doc! { "is_active": false }, "EXPIRED")
        .and("shares/2", kind.public_share("@plan"))
        .and("shares/2", doc! { "expires_at": past() });
    link_off(rule, kind, "@plan")
}

fn deleted_link(kind: Kind) -> Rule {
    Rule::new(format!("a public share of a deleted {} gives nothing", kind.name))
        .with(kind.plan, kind.item("@alice"))
        .with("shares/1", kind.public_share("@plan"))
        .asks("link:#token", kind.resource())
        .with(kind.plan, doc! { "is_deleted": true })
        .denies("read write delete share", "EXCLUDED")
        .but(kind.plan, doc! { "is_deleted": false })
        .grants("read", "link")
}

/// Adds the tree above an item: it is in `low`, `low` in `mid`, and `mid` in `top`.
pub fn tree(rule: Rule, kind: Kind, owner: &str) -> Rule {
    let folder = |parent: Bson| doc! { "owner_id": owner, "parent_id": parent, "is_deleted": false };
    let mut plan = kind.item("@zoe");
    plan.insert(kind.up, "@low");
    rule.with("folders/top", folder(Bson::Null))
        .with("folders/mid", folder("@top".into()))
        .with("folders/low", folder("@mid".into()))
        .with(kind.plan, plan)
}

fn owner_above(kind: Kind) -> Rule {
    let rule = Rule::new(format!("the owner of a parent folder gains nothing on other people's {}s", kind.name));
    tree(rule.with("users/alice", user()), kind, "@alice")
        .asks("user:@alice", kind.resource())
        .but(kind.plan, doc! { "is_deleted": true })
        .denies("restore purge", "NO_GRANT")
        .denies("read write delete share", "EXCLUDED")
        .but(kind.plan, doc! { "owner_id": "@alice" })
        .grants("read write delete share", "owner")
}

fn nobody(kind: Kind) -> Rule {
    Rule::new(format!("anonymous may nothing with a {}, however public", kind.name))
        .with(kind.plan, kind.item("@alice"))
        .with("shares/1", kind.public_share("@plan"))
        .with("shares/2", kind.share("@plan", "internal"))
        .asks("anonymous", kind.resource())
        .same(kind.plan, doc! { "owner_id": null })
        .same(kind.plan, doc! { "owner_id": missing() })
        .same("shares/1", doc! { "public_token": null })
        .same("shares/2", doc! { "shared_with_user_id": missing() })
}

fn administrator(kind: Kind) -> Rule {
    Rule::new(format!("is_admin opens nobody's {}", kind.name))
        .with("users/admin", doc! { "is_active": true, "is_admin": true })
        .with(kind.plan, kind.item("@alice"))
        .asks("user:@admin", kind.resource())
        .but(kind.plan, doc! { "owner_id": "@admin" })
        .grants("read write delete share", "owner")
}
