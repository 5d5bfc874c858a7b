//! The rules for notes: by the levels in their own list, and by their own public token.
//!
//! The folder that contains a note grants nothing on it.

use mongodb::bson::{Bson, Document, doc};

use super::{
    items::{FOLDER, user},
    rule::{Rule, future, missing},
};

const PLAN: &str = "notes/plan";

pub fn rules() -> Vec<Rule> {
    let levels =
        [("read", "reader", "read"), ("write", "writer", "read write"), ("admin", "admin", "read write share delete")];
    let mut rules = vec![owner(), trash(), link(), only_its_own_list(), its_folder(), administrator(), nobody()];
    rules.extend(levels.map(|(word, relation, permissions)| level(word, relation, permissions)));
    rules.extend(["verified_link:#token", "code:#token"].map(no_other_secret));
    rules.push(union());
    rules
}

/// A note of Bob's in Fylora's format.
fn note() -> Document {
    doc! {
        "title": "Plan", "owner_id": "@bob", "folder_id": null, "shared_with": [], "is_public": false,
        "public_token": null, "is_deleted": false,
    }
}

fn listed(permission: impl Into<Bson>) -> Document {
    let alice = doc! { "user_id": "@alice", "permission": permission.into() };
    doc! { "shared_with": [{ "user_id": "@zoe", "permission": "read" }, alice] }
}

fn owner() -> Rule {
    Rule::new("the owner of a note has all levels, and alone publishes it")
        .with("users/alice", user())
        .with(PLAN, note())
        .with(PLAN, doc! { "owner_id": "@alice" })
        .asks("user:@alice", "note:@plan")
        .grants("read write share delete publish", "owner")
        .off(PLAN, doc! { "is_deleted": true }, "EXCLUDED")
        .grants("restore purge", "owner")
        .off(PLAN, doc! { "owner_id": "@bob" }, "NO_GRANT")
        .off(PLAN, doc! { "owner_id": null }, "NO_GRANT")
        .off(PLAN, doc! { "owner_id": missing() }, "NO_GRANT")
        .off(PLAN, doc! { "is_deleted": "false" }, "MALFORMED")
        .same(PLAN, doc! { "is_deleted": null })
        .same(PLAN, doc! { "is_deleted": missing() })
        .same(PLAN, doc! { "shared_with": missing() })
        .same(PLAN, listed("read"))
}

fn trash() -> Rule {
    Rule::new("a deleted note: its owner may restore and purge it, and nothing else")
        .with("users/alice", user())
        .with(PLAN, note())
        .with(PLAN, doc! { "owner_id": "@alice" })
        .asks("user:@alice", "note:@plan")
        .with(PLAN, doc! { "is_deleted": true })
        .grants("restore purge", "owner")
        .denies("read write share delete publish", "EXCLUDED")
        .off(PLAN, doc! { "is_deleted": false }, "NO_GRANT")
        .grants("read write share delete publish", "owner")
        .off(PLAN, doc! { "is_deleted": missing() }, "NO_GRANT")
        .grants("read write share delete publish", "owner")
        .off(PLAN, doc! { "owner_id": "@bob" }, "NO_GRANT")
        // Level admin is not enough either.
        .off(PLAN, doc! { "owner_id": "@bob" }, "NO_GRANT")
        .and(PLAN, listed("admin"))
        .denies("read write share delete publish", "EXCLUDED")
}

fn level(word: &str, relation: &str, permissions: &str) -> Rule {
    let mut rule = Rule::new(format!("level {word} of a note: {permissions}"))
        .with("users/alice", user())
        .with(PLAN, note())
        .with(PLAN, listed(word))
        .asks("user:@alice", "note:@plan")
        .grants(permissions, relation)
        .off(PLAN, doc! { "is_deleted": true }, "EXCLUDED")
        .off(PLAN, doc! { "shared_with": [] }, "NO_GRANT")
        .off(PLAN, doc! { "shared_with": null }, "NO_GRANT")
        .off(PLAN, doc! { "shared_with": missing() }, "NO_GRANT")
        .off(PLAN, doc! { "shared_with": [{ "user_id": "@zoe", "permission": word }] }, "NO_GRANT")
        .off(PLAN, doc! { "shared_with": [{ "user_id": "@alice" }] }, "NO_GRANT")
        .off(PLAN, doc! { "shared_with": [{ "permission": word }] }, "NO_GRANT")
        .off(PLAN, doc! { "shared_with": [{ "user_id": null, "permission": word }] }, "NO_GRANT")
        .off(
            PLAN,
            doc! { "shared_with": [{ "user_id": "@alice" }, { "user_id": "@zoe", "permission": word }] },
            "NO_GRANT",
        )
        .off(PLAN, doc! { "shared_with": { "user_id": "@alice", "permission": word } }, "MALFORMED")
        .same(PLAN, doc! { "is_deleted": missing() })
        .same(PLAN, doc! { "shared_with": [{ "user_id": "@alice", "permission": word, "added_at": future() }] });
    for other in [Bson::Null, "comment".into(), "owner".into(), "Admin".into(), "".into()] {
        rule = rule.off(PLAN, listed(other), "NO_GRANT");
    }
    rule
}

fn union() -> Rule {
    let element = |word: &str| doc! { "user_id": "@alice", "permission": word };
    Rule::new("two elements for one person in a note count together")
        .with("users/alice", user())
        .with(PLAN, note())
        .with(PLAN, doc! { "shared_with": [element("read"), element("write")] })
        .asks("user:@alice", "note:@plan")
        .grants("read write", "writer")
}

fn link() -> Rule {
    Rule::new("a note is read by its own public token while it is public")
        .with(PLAN, note())
        .with(PLAN, doc! { "is_public": true, "public_token": "#token" })
        .asks("link:#token", "note:@plan")
        .grants("read", "link")
        .off(PLAN, doc! { "is_public": false }, "NO_GRANT")
        .off(PLAN, doc! { "is_public": null }, "NO_GRANT")
        .off(PLAN, doc! { "is_public": missing() }, "NO_GRANT")
        .off(PLAN, doc! { "is_public": 1 }, "NO_GRANT")
        .off(PLAN, doc! { "public_token": "#another" }, "NO_GRANT")
        .off(PLAN, doc! { "public_token": null }, "NO_GRANT")
        .off(PLAN, doc! { "public_token": missing() }, "NO_GRANT")
        .off(PLAN, doc! { "public_token": "" }, "NO_GRANT")
        .off(PLAN, doc! { "is_deleted": true }, "EXCLUDED")
        .same(PLAN, doc! { "is_deleted": missing() })
        .same(PLAN, doc! { "shared_with": missing() })
}

fn no_other_secret(subject: &str) -> Rule {
    Rule::sharing(format!("a {} opens no note", subject.split(':').next().unwrap_or_default()))
        .with(PLAN, note())
        .with(PLAN, doc! { "is_public": true, "public_token": "#token", "folder_id": "@work" })
        .with("folders/work", doc! { "owner_id": "@bob", "parent_id": null })
        .with("shares/1", FOLDER.public_share("@work"))
        .with(
            "temporaryaccesses/1",
            doc! {
                "access_code": "#token", "resource_type": "note", "resource_id": "@plan",
                "permissions": ["view", "edit", "share"], "is_active": true,
            },
        )
        .asks(subject, "note:@plan")
        .same("temporaryaccesses/1", doc! { "resource_type": "file" })
        .same("temporaryaccesses/1", doc! { "resource_type": "folder", "resource_id": "@work" })
}

fn only_its_own_list() -> Rule {
    let share = |share_type: &str| {
        doc! {
            "file_id": "@plan", "folder_id": "@plan", "note_id": "@plan", "share_type": share_type,
            "shared_with_user_id": "@alice", "is_active": true,
        }
    };
    Rule::new("no share names a note")
        .with("users/alice", user())
        .with(PLAN, note())
        .with("shares/1", share("internal"))
        .asks("user:@alice", "note:@plan")
        .but(PLAN, listed("read"))
        .grants("read", "reader")
}

fn its_folder() -> Rule {
    let mut share = FOLDER.share("@work", "internal");
    share.insert("shared_with_user_id", "@alice");
    Rule::new("a note's folder gives nothing on it: not its owner, not its shares")
        .with("users/alice", user())
        .with("folders/work", doc! { "owner_id": "@alice", "parent_id": null, "is_deleted": false })
        .with("shares/1", share)
        .with("shares/2", FOLDER.public_share("@work"))
        .with(PLAN, note())
        .with(PLAN, doc! { "folder_id": "@work" })
        .asks("user:@alice", "note:@plan")
        .not_for("link:#token")
        .but(PLAN, doc! { "owner_id": "@alice" })
        .grants("read write share delete publish", "owner")
        .and("folders/work", doc! { "is_deleted": true })
}

fn administrator() -> Rule {
    Rule::new("is_admin is not level admin of a note")
        .with("users/admin", doc! { "is_active": true, "is_admin": true })
        .with(PLAN, note())
        .asks("user:@admin", "note:@plan")
        .but(PLAN, doc! { "shared_with": [{ "user_id": "@admin", "permission": "admin" }] })
        .grants("read write share delete", "admin")
}

fn nobody() -> Rule {
    Rule::new("anonymous may nothing with a note, however public")
        .with(PLAN, note())
        .with(PLAN, doc! { "is_public": true, "public_token": "#token" })
        .with(PLAN, doc! { "shared_with": [{ "user_id": null, "permission": "admin" }] })
        .asks("anonymous", "note:@plan")
        .same(PLAN, doc! { "public_token": null })
        .same(PLAN, doc! { "owner_id": null })
}
