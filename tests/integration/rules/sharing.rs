//! The rules for files and folders that only `fylora-sharing.toml` has: internal shares, shares that apply to everything
//! beneath a folder, shares whose password was checked, and access codes.
//!
//! Notes and teams have no such rules.

use mongodb::bson::{Bson, Decimal128, doc};

use super::{
    items::{FILE, FOLDER, Kind, link_off, share_off, tree, user},
    rule::{Rule, from_now, future, gone, missing, past},
};

pub fn rules() -> Vec<Rule> {
    let of_each = |kind| {
        let mut rules = vec![guest(kind), verified(kind), locked_for_links(kind), any_code(kind)];
        rules.extend([guest_beneath(kind), link_beneath(kind), verified_beneath(kind), nearest_deleted(kind)]);
        rules.extend([circle(kind), depth(kind, 32), depth(kind, 33), code_above(kind), deleted_code(kind)]);
        let words = [("view", "read", "reading_code"), ("download", "read", "reading_code")];
        let words = words.into_iter().chain([("edit", "write", "editing_code"), ("share", "share", "sharing_code")]);
        rules.extend(words.map(|(word, permission, by)| code(kind, word, permission, by)));
        rules
    };
    [FILE, FOLDER].into_iter().flat_map(of_each).collect()
}

/// An internal share of an item with Alice.
fn internal(kind: Kind, of: &str) -> mongodb::bson::Document {
    let mut share = kind.share(of, "internal");
    share.insert("shared_with_user_id", "@alice");
    share
}

/// Adds the changes after which an internal share grants nothing, in addition to [`share_off`].
fn guest_off(rule: Rule, kind: Kind, of: &str) -> Rule {
    share_off(rule, kind, of)
        .off("shares/1", doc! { "share_type": "public" }, "NO_GRANT")
        .off("shares/1", doc! { "shared_with_user_id": "@bob" }, "NO_GRANT")
        .off("shares/1", doc! { "shared_with_user_id": null }, "NO_GRANT")
        .off("shares/1", doc! { "shared_with_user_id": missing() }, "NO_GRANT")
        // A password matters only for links.
        .same("shares/1", doc! { "requires_password": true, "password_hash": "x" })
        .same("shares/1", doc! { "public_token": "#token" })
        .not_for("link:#token")
}

fn guest(kind: Kind) -> Rule {
    let rule = Rule::sharing(format!("an internal share gives read on its {} to whom it names", kind.name))
        .with("users/alice", user())
        .with(kind.plan, kind.item("@bob"))
        .with("shares/1", internal(kind, "@plan"))
        .asks("user:@alice", kind.resource())
        .grants("read", "guest")
        .off(kind.plan, doc! { "is_deleted": true }, "EXCLUDED")
        .same(kind.plan, doc! { "is_deleted": null })
        .but(kind.plan, doc! { "owner_id": "@alice" })
        .grants("read write delete share", "owner");
    guest_off(rule, kind, "@plan")
}

/// Adds the changes that break the path from the shared folder `mid` down to the item.
fn way_off(rule: Rule, kind: Kind) -> Rule {
    rule.off(kind.plan, doc! { "is_deleted": true }, "EXCLUDED")
        .off("folders/low", doc! { "is_deleted": true }, "EXCLUDED")
        .off("folders/mid", doc! { "is_deleted": true }, "EXCLUDED")
        .off("folders/low", gone(), "NO_GRANT")
        .off("folders/mid", gone(), "NO_GRANT")
        .off(kind.plan, doc! { kind.up: null }, "NO_GRANT")
        .off(kind.plan, doc! { kind.up: missing() }, "NO_GRANT")
        .off(kind.plan, doc! { kind.up: "@top" }, "NO_GRANT")
        .off(kind.plan, doc! { kind.up: "@elsewhere" }, "NO_GRANT")
        .off("folders/low", doc! { "parent_id": null }, "NO_GRANT")
        .off("folders/low", doc! { "parent_id": missing() }, "NO_GRANT")
        .off("folders/low", doc! { "parent_id": "@top" }, "NO_GRANT")
        .off(kind.plan, doc! { kind.up: "65f000000000000000000001" }, "MALFORMED")
        .off("folders/low", doc! { "is_deleted": "true" }, "MALFORMED")
        .same(kind.plan, doc! { kind.up: "@mid" })
        .same("folders/top", doc! { "is_deleted": true })
        .same("folders/top", gone())
        .same("folders/mid", doc! { "parent_id": null })
        .same("folders/low", doc! { "owner_id": "@zoe", "is_deleted": null })
        .same("folders/mid", doc! { "is_deleted": missing() })
}

fn guest_beneath(kind: Kind) -> Rule {
    let rule = Rule::sharing(format!("an internal share of a folder reaches the {}s beneath it", kind.name));
    let rule = tree(rule.with("users/alice", user()), kind, "@bob")
        .with("shares/1", internal(FOLDER, "@mid"))
        .asks("user:@alice", kind.resource())
        .grants("read", "folder#guest");
    way_off(guest_off(rule, FOLDER, "@mid"), kind)
}

fn link_beneath(kind: Kind) -> Rule {
    let rule = Rule::sharing(format!("a public share of a folder reaches the {}s beneath it", kind.name));
    let rule = tree(rule, kind, "@bob")
        .with("shares/1", FOLDER.public_share("@mid"))
        .asks("link:#token", kind.resource())
        .grants("read", "folder#link");
    way_off(link_off(rule, FOLDER, "@mid"), kind)
}

fn verified_beneath(kind: Kind) -> Rule {
    let rule = Rule::sharing(format!("a checked password of a folder's share opens the {}s beneath it", kind.name));
    let rule = tree(rule, kind, "@bob")
        .with("shares/1", with_password(FOLDER, "@mid"))
        .asks("verified_link:#token", kind.resource())
        .grants("read", "folder#verified_link");
    way_off(verified_off(rule, FOLDER, "@mid"), kind)
}

fn nearest_deleted(kind: Kind) -> Rule {
    let rule = Rule::sharing(format!("above a {}, the shares of a live folder beneath a deleted one count", kind.name));
    tree(rule.with("users/alice", user()), kind, "@bob")
        .with("shares/1", internal(FOLDER, "@low"))
        .with("shares/2", internal(FOLDER, "@top"))
        .asks("user:@alice", kind.resource())
        .grants("read", "folder#guest")
        .same("folders/mid", doc! { "is_deleted": true })
        // One of the two shares is enough, but not the one above the deleted folder.
        .same("shares/1", gone())
        .same("shares/2", gone())
        .off("shares/1", gone(), "EXCLUDED")
        .and("folders/mid", doc! { "is_deleted": true })
        .off("shares/1", doc! { "expires_at": past() }, "EXPIRED")
        .and("shares/2", gone())
        .off("shares/1", doc! { "expires_at": past() }, "EXCLUDED")
        .and("folders/mid", doc! { "is_deleted": true })
}

fn circle(kind: Kind) -> Rule {
    let folder = |parent: &str| doc! { "owner_id": "@bob", "parent_id": parent, "is_deleted": false };
    let mut plan = kind.item("@zoe");
    plan.insert(kind.up, "@a");
    Rule::sharing(format!("folders in a cycle above a {}: shares of these folders count", kind.name))
        .with("users/alice", user())
        .with("folders/a", folder("@b"))
        .with("folders/b", folder("@a"))
        .with(kind.plan, plan)
        .with("shares/1", internal(FOLDER, "@b"))
        .asks("user:@alice", kind.resource())
        .grants("read", "folder#guest")
        .same("shares/1", doc! { "folder_id": "@a" })
        .same("folders/b", doc! { "parent_id": "@b" })
        .off("shares/1", gone(), "NO_GRANT")
        .off("folders/a", doc! { "parent_id": "@a" }, "NO_GRANT")
        .off("folders/b", doc! { "is_deleted": true }, "EXCLUDED")
}

/// Trees may be 32 folders deep. A share above that depth does not allow: the reason of the denial is `LIMIT`.
fn depth(kind: Kind, depth: usize) -> Rule {
    let mut rule = Rule::sharing(format!("a share {depth} folders above a {}", kind.name));
    for at in 1..=depth {
        let folder = doc! { "owner_id": "@bob", "parent_id": format!("@f{}", at + 1), "is_deleted": false };
        rule = rule.with(&format!("folders/f{at}"), folder);
    }
    let mut plan = kind.item("@zoe");
    plan.insert(kind.up, "@f1");
    let highest = format!("folders/f{depth}");
    rule = rule
        .with("users/alice", user())
        .with(kind.plan, plan)
        .with("shares/1", internal(FOLDER, &format!("@f{depth}")))
        .asks("user:@alice", kind.resource());
    if depth > 32 {
        return rule.denies("read", "LIMIT").same(&highest, doc! { "parent_id": null });
    }
    rule.grants("read", "folder#guest").same(&highest, doc! { "parent_id": null }).off(&highest, gone(), "NO_GRANT")
}

/// A public share that requires a password.
fn with_password(kind: Kind, of: &str) -> mongodb::bson::Document {
    let mut share = kind.public_share(of);
    share.extend(doc! { "requires_password": true, "password_hash": "$2b$12$hash" });
    share
}

/// Adds the changes after which a share grants nothing to a `verified_link`, in addition to [`share_off`].
fn verified_off(rule: Rule, kind: Kind, of: &str) -> Rule {
    share_off(rule, kind, of)
        .off("shares/1", doc! { "share_type": "internal" }, "NO_GRANT")
        .off("shares/1", doc! { "public_token": "#another" }, "NO_GRANT")
        .off("shares/1", doc! { "public_token": null }, "NO_GRANT")
        .off("shares/1", doc! { "public_token": missing() }, "NO_GRANT")
        .same("shares/1", doc! { "requires_password": false })
        .same("shares/1", doc! { "password_hash": null })
        .same("shares/1", doc! { "requires_password": missing(), "password_hash": missing() })
        .not_for("link:#token")
        .not_for("code:#token")
}

fn verified(kind: Kind) -> Rule {
    let rule = Rule::sharing(format!("a checked password of a share opens its {}", kind.name))
        .with(kind.plan, kind.item("@alice"))
        .with("shares/1", with_password(kind, "@plan"))
        .asks("verified_link:#token", kind.resource())
        .grants("read", "verified_link")
        .off(kind.plan, doc! { "is_deleted": true }, "EXCLUDED")
        .same(kind.plan, doc! { "is_deleted": missing() });
    verified_off(rule, kind, "@plan")
}

fn locked_for_links(kind: Kind) -> Rule {
    Rule::sharing(format!("a share of a {} with a password opens to no plain link", kind.name))
        .with(kind.plan, kind.item("@alice"))
        .with("shares/1", with_password(kind, "@plan"))
        .asks("link:#token", kind.resource())
        .but("shares/1", doc! { "requires_password": false, "password_hash": null })
        .grants("read", "link")
}

/// A temporary access code for the item in Fylora's format: used two of three times.
fn access(kind: Kind, permissions: &[&str]) -> mongodb::bson::Document {
    doc! {
        "access_code": "#code", "resource_type": kind.name, "resource_id": "@plan", "owner_id": "@alice",
        "permissions": permissions, "expires_at": future(), "max_uses": 3, "use_count": 2, "is_active": true,
        "password_hash": null,
    }
}

fn code(kind: Kind, word: &str, permission: &str, by: &str) -> Rule {
    let other_kind = if kind.name == "file" { "folder" } else { "file" };
    let rule = Rule::sharing(format!("a code that lists only `{word}` gives {permission} on its {}", kind.name))
        .with("users/alice", user())
        .with(kind.plan, kind.item("@alice"))
        .with("temporaryaccesses/1", access(kind, &[word]))
        .asks("code:#code", kind.resource())
        .grants(permission, by)
        .not_for("link:#code")
        .not_for("verified_link:#code")
        .off(kind.plan, doc! { "is_deleted": true }, "EXCLUDED")
        .same(kind.plan, doc! { "is_deleted": null })
        .same("users/alice", doc! { "is_active": false });
    let mut rule = uses(rule);
    for permissions in [Bson::Array(Vec::new()), Bson::Null, missing(), Bson::Array(vec!["admin".into()])] {
        rule = rule.off("temporaryaccesses/1", doc! { "permissions": permissions }, "NO_GRANT");
    }
    let off = [
        doc! { "access_code": "#another" },
        doc! { "access_code": null },
        doc! { "access_code": missing() },
        doc! { "resource_type": other_kind },
        doc! { "resource_type": null },
        doc! { "resource_type": missing() },
        doc! { "resource_id": "@other" },
        doc! { "resource_id": null },
        doc! { "resource_id": missing() },
        doc! { "is_active": false },
        doc! { "is_active": null },
        doc! { "is_active": missing() },
        doc! { "password_hash": "x" },
        doc! { "requires_password": true },
        gone(),
    ];
    for change in off {
        rule = rule.off("temporaryaccesses/1", change, "NO_GRANT");
    }
    for date in [past(), from_now(0)] {
        rule = rule.off("temporaryaccesses/1", doc! { "expires_at": date }, "EXPIRED");
    }
    let same = [
        doc! { "expires_at": null },
        doc! { "expires_at": missing() },
        doc! { "expires_at": from_now(1) },
        doc! { "password_hash": missing() },
        doc! { "requires_password": false },
        doc! { "owner_id": "@zoe" },
    ];
    same.into_iter().fold(rule, |rule, change| rule.same("temporaryaccesses/1", change))
}

/// Adds the changes of `use_count` and `max_uses`. A code grants if `use_count`, which is 0 if it is missing, is below
/// `max_uses`, or if `max_uses` is not set.
fn uses(mut rule: Rule) -> Rule {
    let five: Decimal128 = "5".parse().expect("a decimal");
    let below = [
        doc! { "max_uses": null },
        doc! { "max_uses": missing() },
        doc! { "max_uses": null, "use_count": 1_000 },
        doc! { "max_uses": missing(), "use_count": missing() },
        doc! { "max_uses": 1, "use_count": missing() },
        doc! { "max_uses": 1, "use_count": null },
        doc! { "max_uses": 1, "use_count": 0 },
        doc! { "max_uses": 3_i64, "use_count": 2.0 },
        doc! { "max_uses": five, "use_count": 4_i64 },
    ];
    for change in below {
        rule = rule.same("temporaryaccesses/1", change);
    }
    let used_up = [
        doc! { "use_count": 3 },
        doc! { "use_count": 4 },
        doc! { "use_count": 3.0 },
        doc! { "use_count": 3_i64 },
        doc! { "max_uses": 2 },
        doc! { "max_uses": 0, "use_count": missing() },
        doc! { "max_uses": 0, "use_count": null },
        doc! { "max_uses": 0, "use_count": 0 },
        doc! { "max_uses": -1, "use_count": missing() },
        doc! { "max_uses": five, "use_count": five },
    ];
    for change in used_up {
        rule = rule.off("temporaryaccesses/1", change, "NO_GRANT");
    }
    rule
}

fn any_code(kind: Kind) -> Rule {
    Rule::sharing(format!("a code that lists all four gives read, write and share on its {}, and no more", kind.name))
        .with(kind.plan, kind.item("@alice"))
        .with("temporaryaccesses/1", access(kind, &["view", "download", "edit", "share"]))
        .asks("code:#code", kind.resource())
        .grants("read", "reading_code")
        .grants("write", "editing_code")
        .grants("share", "sharing_code")
        .but("temporaryaccesses/1", doc! { "permissions": ["edit", "share"] })
        .grants("write", "editing_code")
        .grants("share", "sharing_code")
        .denies("read delete restore purge", "NO_GRANT")
}

fn code_above(kind: Kind) -> Rule {
    let rule = Rule::sharing(format!("a code for a folder gives nothing on the {}s in it", kind.name));
    let mut access = access(FOLDER, &["view", "download", "edit", "share"]);
    access.insert("resource_id", "@low");
    tree(rule, kind, "@alice")
        .with("temporaryaccesses/1", access)
        .asks("code:#code", kind.resource())
        .but("temporaryaccesses/1", doc! { "resource_id": "@plan", "resource_type": kind.name })
        .grants("read", "reading_code")
        .grants("write", "editing_code")
        .grants("share", "sharing_code")
}

fn deleted_code(kind: Kind) -> Rule {
    Rule::sharing(format!("a code for a deleted {} gives nothing", kind.name))
        .with(kind.plan, kind.item("@alice"))
        .with("temporaryaccesses/1", access(kind, &["view", "download", "edit", "share"]))
        .asks("code:#code", kind.resource())
        .with(kind.plan, doc! { "is_deleted": true })
        .denies("read write delete share", "EXCLUDED")
}
