//! The rules for teams: by their `owner_id`, and by the roles of their members.
//!
//! No share and no secret applies to a team.

use mongodb::bson::{Bson, Document, doc};

use super::{
    items::user,
    rule::{Rule, missing},
};

const DESIGN: &str = "teams/design";

pub fn rules() -> Vec<Rule> {
    let mut rules = vec![owner(), administrator(), nobody(), links()];
    rules.extend(["owner", "admin"].map(changes_members));
    rules.extend(["member", "viewer"].map(views));
    rules
}

fn team() -> Document {
    let bob = doc! { "user_id": "@bob", "role": "owner" };
    doc! { "name": "Design", "owner_id": "@bob", "members": [bob], "is_active": true }
}

fn member(role: impl Into<Bson>) -> Document {
    doc! { "members": [{ "user_id": "@bob", "role": "owner" }, { "user_id": "@alice", "role": role.into() }] }
}

fn owner() -> Rule {
    Rule::new("owner_id of a team may view, invite, remove, and alone manage")
        .with("users/alice", user())
        .with(DESIGN, team())
        .with(DESIGN, doc! { "owner_id": "@alice" })
        .asks("user:@alice", "team:@design")
        .grants("view invite remove manage", "owner")
        .off(DESIGN, doc! { "is_active": false }, "EXCLUDED")
        .off(DESIGN, doc! { "is_active": "true" }, "MALFORMED")
        .off(DESIGN, doc! { "owner_id": "@zoe" }, "NO_GRANT")
        .off(DESIGN, doc! { "owner_id": null }, "NO_GRANT")
        .off(DESIGN, doc! { "owner_id": missing() }, "NO_GRANT")
        .same(DESIGN, doc! { "is_active": null })
        .same(DESIGN, doc! { "is_active": missing() })
        .same(DESIGN, doc! { "members": missing() })
        .same(DESIGN, doc! { "is_deleted": true })
        .same(DESIGN, member("viewer"))
}

/// Adds the changes after which a user is no longer a member of a team.
fn membership_off(team: Rule, role: &str) -> Rule {
    team.off(DESIGN, doc! { "is_active": false }, "EXCLUDED")
        .off(DESIGN, doc! { "members": [] }, "NO_GRANT")
        .off(DESIGN, doc! { "members": null }, "NO_GRANT")
        .off(DESIGN, doc! { "members": missing() }, "NO_GRANT")
        .off(DESIGN, doc! { "members": [{ "user_id": "@zoe", "role": role }, { "role": role }] }, "NO_GRANT")
        .off(DESIGN, doc! { "members": "@alice" }, "MALFORMED")
        .same(DESIGN, doc! { "is_active": missing() })
        .same(DESIGN, doc! { "is_active": null })
        .same(DESIGN, doc! { "owner_id": missing() })
}

fn changes_members(role: &str) -> Rule {
    let team = Rule::new(format!("role {role} in a team: view, invite, remove, not manage"))
        .with("users/alice", user())
        .with(DESIGN, team())
        .with(DESIGN, member(role))
        .asks("user:@alice", "team:@design")
        .grants("view", "member")
        .grants("invite remove", "admin");
    let mut team = membership_off(team, role);
    for other in ["member".into(), "viewer".into(), "Admin".into(), Bson::Null, missing()] {
        let members = match other.as_str() {
            Some("(missing)") => doc! { "members": [{ "user_id": "@alice" }] },
            _ => member(other),
        };
        team = team.but(DESIGN, members).grants("view", "member").denies("invite remove manage", "NO_GRANT");
    }
    team
}

fn views(role: &str) -> Rule {
    let team = Rule::new(format!("role {role} in a team: view"))
        .with("users/alice", user())
        .with(DESIGN, team())
        .with(DESIGN, member(role))
        .asks("user:@alice", "team:@design")
        .grants("view", "member")
        // Any member, with any role.
        .same(DESIGN, member(Bson::Null))
        .same(DESIGN, member("guest"))
        .same(DESIGN, doc! { "members": [{ "user_id": "@alice" }] })
        .but(
            DESIGN,
            doc! { "members": [{ "user_id": "@alice", "role": role }, { "user_id": "@alice", "role": "admin" }] },
        )
        .grants("view", "member")
        .grants("invite remove", "admin");
    membership_off(team, role)
}

fn administrator() -> Rule {
    Rule::new("is_admin is not role admin of a team")
        .with("users/admin", doc! { "is_active": true, "is_admin": true })
        .with(DESIGN, team())
        .asks("user:@admin", "team:@design")
        .but(DESIGN, doc! { "members": [{ "user_id": "@admin", "role": "admin" }] })
        .grants("view", "member")
        .grants("invite remove", "admin")
}

fn nobody() -> Rule {
    Rule::new("anonymous may nothing with a team")
        .with(DESIGN, team())
        .asks("anonymous", "team:@design")
        .same(DESIGN, doc! { "owner_id": null, "members": [{ "user_id": null, "role": "owner" }] })
}

fn links() -> Rule {
    let share = doc! {
        "file_id": "@design", "folder_id": "@design", "share_type": "public", "public_token": "#token",
        "is_active": true,
    };
    Rule::new("a link opens no team")
        .with(DESIGN, team())
        .with(DESIGN, doc! { "public_token": "#token", "is_public": true })
        .with("shares/1", share)
        .asks("link:#token", "team:@design")
}
