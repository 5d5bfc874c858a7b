//! Every shape of a relation of the subject, and every place in which it can be used.

use bson::doc;

use super::{assert_answers, now};
use crate::support::both::{Both, Collections, found_in, question, schema};

/// The schema of docs/schema.md, with ids that are text, so that documents are short.
const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "string"
collection = "users"
where = { is_active = { "$ne" = false } }
since = "starts_at"
until = "ends_at"

[subject.user.relations]
admin   = { where = { role = "admin" } }
teams   = { field = "team_ids", resource = "team" }
manages = { each = "tenants", field = "tenant", resource = "tenant", where = { roles = "tenant-admin" } }
groups  = { collection = "memberships", by = "user_id", field = "group_id", resource = "group", since = "from", until = "to" }
badge   = { collection = "badges", by = "user_ids", where = { kind = "gold" } }

[subject.service]
id = "string"

[subject.service.relations]
admin = { collection = "services", by = "name", where = { is_admin = true } }
teams = { collection = "services", by = "name", field = "team_ids", resource = "team" }

[subject.link]
id = "string"
secret = true

[resource.team]
id = "string"
collection = "teams"

[resource.team.relations]
member = { of = ["user.teams", "service.teams"] }
parent = { field = "parent_id", resource = "team" }

[resource.team.permissions]
reach = "member | parent.reach"
edit  = "member & !subject.admin"

[resource.tenant]
id = "string"

[resource.tenant.relations]
manager = { of = ["user.manages"] }

[resource.tenant.permissions]
manage = "manager"
avoid  = "!manager"

[resource.group]
id = "string"

[resource.group.relations]
member = { of = "user.groups" }

[resource.group.permissions]
join = "!member"

[resource.project]
id = "string"
collection = "projects"

[resource.project.relations]
owner     = { field = "owner_id" }
link      = { field = "token", subject = "link" }
team      = { field = "team_id", resource = "team" }
tenant    = { field = "tenant_id", resource = "tenant" }
reviewers = { field = "reviewer_ids", subject = "group.member" }
readers   = { each = "readers", field = "id", subject = ["user", "team.member"], subject_type = "type" }

[resource.project.permissions]
read   = "owner | team.member | subject.admin"
delete = "owner | tenant.manager"
review = "reviewers"
see    = "readers"
shine  = "subject.badge"
open   = "!subject.admin & (link | team.reach)"
"#;

const USERS: (&str, &[&str]) = (
    "users",
    &[
        r#"{"_id": "ann", "role": "admin"}"#,
        r#"{"_id": "bob", "role": "editor", "team_ids": ["web", "sales"]}"#,
        r#"{"_id": "cyd", "role": ["editor", "admin"], "team_ids": "web"}"#,
        r#"{"_id": "dan", "team_ids": ["web"], "is_active": false}"#,
        r#"{"_id": "eve", "tenants": [{"tenant": "acme", "roles": ["tenant-viewer"]}, {"tenant": "eves-own", "roles": ["tenant-admin"]}]}"#,
        r#"{"_id": "fay", "tenants": [{"tenant": "acme", "roles": ["tenant-viewer", "tenant-admin"]}, null]}"#,
        r#"{"_id": "gus", "team_ids": [], "tenants": []}"#,
        r#"{"_id": "odd", "role": 7, "team_ids": ["web", 7], "tenants": [{"tenant": "acme", "roles": ["tenant-admin"]}, "eves-own"]}"#,
        r#"{"_id": "ida", "role": "admin", "starts_at": {"$date": "2026-11-23T12:00:00.001Z"}}"#,
        r#"{"_id": "jim", "role": "admin", "ends_at": {"$date": "2026-11-23T12:00:00Z"}}"#,
        r#"{"_id": "kim", "role": "admin", "starts_at": {"$date": "2026-11-23T12:00:00Z"}, "ends_at": {"$date": "2026-11-23T12:00:00.001Z"}}"#,
        r#"{"_id": "leo", "role": "admin", "ends_at": "2030-01-01"}"#,
    ],
);

const REST: [(&str, &[&str]); 5] = [
    (
        "services",
        &[
            r#"{"_id": 1, "name": "cron", "is_admin": true, "team_ids": ["sales"]}"#,
            r#"{"_id": 2, "name": "mail", "is_admin": false}"#,
            r#"{"_id": 3, "name": "mail", "team_ids": ["web"]}"#,
        ],
    ),
    (
        "memberships",
        &[
            r#"{"_id": 1, "user_id": "bob", "group_id": "eng"}"#,
            r#"{"_id": 2, "user_id": "bob", "group_id": "ops", "to": {"$date": "2026-11-23T12:00:00Z"}}"#,
            r#"{"_id": 3, "user_id": "cyd", "group_id": ["eng", "ops"], "from": {"$date": "2026-11-23T12:00:00Z"}}"#,
            r#"{"_id": 4, "user_id": "gus", "group_id": 7}"#,
        ],
    ),
    (
        "badges",
        &[
            r#"{"_id": 1, "kind": "gold", "user_ids": ["bob", "eve"]}"#,
            r#"{"_id": 2, "kind": "tin", "user_ids": ["cyd"]}"#,
        ],
    ),
    ("teams", &[r#"{"_id": "web", "parent_id": "sales"}"#, r#"{"_id": "sales"}"#]),
    (
        "projects",
        &[
            r#"{"_id": "site", "owner_id": "gus", "team_id": "web", "tenant_id": "acme", "reviewer_ids": ["eng"], "readers": [{"type": "team", "id": "sales"}, {"type": "user", "id": "eve"}]}"#,
            r#"{"_id": "shop", "team_id": "gone", "tenant_id": "eves-own", "reviewer_ids": ["ops", "hr"], "token": "t0ken"}"#,
            r#"{"_id": "bare"}"#,
        ],
    ),
];

async fn assert_all(expected: &[(&str, &str)]) {
    let documents: Vec<(&str, &[&str])> = [USERS].into_iter().chain(REST).collect();
    assert_answers(SCHEMA, &documents, expected).await;
}

#[tokio::test]
async fn a_flag_of_the_subject_holds_for_every_resource() {
    assert_all(&[
        ("user:ann read project:site", "allowed by user#admin"),
        ("user:ann read project:bare", "allowed by user#admin"),
        ("user:ann read project:gone", "denied NOT_FOUND"),
        ("user:cyd read project:bare", "allowed by user#admin"),
        ("user:bob read project:bare", "denied NO_GRANT"),
        ("user:gone read project:bare", "denied SUBJECT_INACTIVE"),
        ("user:odd read project:bare", "denied NO_GRANT"),
        ("user:bob shine project:bare", "allowed by user#badge"),
        ("user:eve shine project:bare", "allowed by user#badge"),
        ("user:cyd shine project:bare", "denied NO_GRANT"),
    ])
    .await;
}

#[tokio::test]
async fn a_relation_of_the_subject_makes_it_a_member_of_the_resources_it_leads_to() {
    assert_all(&[
        ("user:bob read project:site", "allowed by team#member"),
        ("user:bob edit team:sales", "allowed by team#member"),
        ("user:bob edit team:web", "allowed by team#member"),
        ("user:bob edit team:gone", "denied NOT_FOUND"),
        ("user:gus edit team:web", "denied NO_GRANT"),
        ("user:dan read project:site", "denied SUBJECT_INACTIVE"),
        ("user:bob read project:shop", "denied NO_GRANT"),
        // Over an edge, from team to team.
        ("service:cron reach team:web", "allowed by team#member"),
        ("service:cron read project:bare", "allowed by service#admin"),
        ("service:cron edit team:sales", "denied EXCLUDED"),
        ("service:mail edit team:web", "allowed by team#member"),
        ("service:mail read project:bare", "denied NO_GRANT"),
        ("service:none read project:site", "denied NO_GRANT"),
    ])
    .await;
}

#[tokio::test]
async fn a_role_counts_only_in_the_element_that_names_the_tenant() {
    assert_all(&[
        ("user:eve manage tenant:acme", "denied NO_GRANT"),
        ("user:eve manage tenant:eves-own", "allowed by tenant#manager"),
        ("user:eve delete project:site", "denied NO_GRANT"),
        ("user:eve delete project:shop", "allowed by tenant#manager"),
        ("user:fay manage tenant:acme", "allowed by tenant#manager"),
        ("user:fay manage tenant:eves-own", "denied NO_GRANT"),
        ("user:gus manage tenant:acme", "denied NO_GRANT"),
        ("user:gus avoid tenant:acme", "allowed"),
        ("user:eve avoid tenant:acme", "allowed"),
        ("user:eve avoid tenant:eves-own", "denied EXCLUDED"),
    ])
    .await;
}

#[tokio::test]
async fn memberships_in_another_collection_count_within_their_times() {
    assert_all(&[
        ("user:bob review project:site", "allowed by project#reviewers"),
        ("user:bob review project:shop", "denied EXPIRED"),
        ("user:cyd review project:site", "allowed by project#reviewers"),
        ("user:cyd review project:shop", "allowed by project#reviewers"),
        ("user:cyd review project:bare", "denied NO_GRANT"),
        ("user:ann review project:site", "denied NO_GRANT"),
        ("user:bob join group:eng", "denied EXCLUDED"),
        ("user:bob join group:ops", "allowed"),
        ("user:ann join group:eng", "allowed"),
    ])
    .await;
}

#[tokio::test]
async fn a_set_of_subjects_may_be_one_that_the_subject_itself_names() {
    assert_all(&[
        ("user:bob see project:site", "allowed by project#readers"),
        ("service:cron see project:site", "allowed by project#readers"),
        ("service:mail see project:site", "denied NO_GRANT"),
        ("user:eve see project:site", "allowed by project#readers"),
        ("user:cyd see project:site", "denied NO_GRANT"),
    ])
    .await;
}

#[tokio::test]
async fn a_value_of_a_wrong_type_in_the_subjects_document_never_allows() {
    assert_all(&[
        // One of the ids is a number: whether it means this team cannot be known, and the id beside it still counts.
        ("user:odd read project:site", "allowed by team#member"),
        ("user:odd reach team:sales", "denied MALFORMED"),
        // A role that is a number is no grant, but `!` must not hold for it.
        ("user:odd edit team:web", "denied MALFORMED"),
        ("user:odd open project:site", "denied MALFORMED"),
        ("user:odd manage tenant:acme", "allowed by tenant#manager"),
        ("user:odd manage tenant:eves-own", "denied MALFORMED"),
        ("user:odd avoid tenant:eves-own", "denied MALFORMED"),
        ("user:gus review project:site", "denied MALFORMED"),
        ("user:gus join group:eng", "denied MALFORMED"),
    ])
    .await;
}

#[tokio::test]
async fn a_subject_outside_the_times_of_its_gate_is_inactive() {
    assert_all(&[
        ("user:ida read project:bare", "denied SUBJECT_INACTIVE"),
        ("user:jim read project:bare", "denied SUBJECT_INACTIVE"),
        ("user:kim read project:bare", "allowed by user#admin"),
        ("user:leo read project:bare", "denied MALFORMED"),
    ])
    .await;
}

#[tokio::test]
async fn an_anonymous_subject_and_other_types_have_no_flags_and_lead_nowhere() {
    assert_all(&[
        ("anonymous read project:site", "denied NO_GRANT"),
        ("anonymous shine project:site", "denied NO_GRANT"),
        ("anonymous avoid tenant:acme", "allowed"),
        ("anonymous open project:shop", "denied NO_GRANT"),
        ("link:t0ken open project:shop", "allowed by project#link"),
        ("link:t0ken read project:shop", "denied NO_GRANT"),
        ("link:t0ken manage tenant:acme", "denied NO_GRANT"),
        ("service:cron shine project:site", "denied NO_GRANT"),
        ("service:cron manage tenant:acme", "denied NO_GRANT"),
    ])
    .await;
}

/// The user's own document is the fact that the gate reads, however many teams it lists and whatever is asked.
#[tokio::test]
async fn a_user_with_many_teams_is_one_fact_for_all_projects() {
    let teams: Vec<String> = (0..50).map(|number| format!("t{number}")).collect();
    let user = doc! { "_id": "ann", "team_ids": teams.clone() };
    let projects = teams.iter().map(|team| doc! { "_id": format!("p-{team}"), "team_id": team }).collect();
    let documents = teams.iter().map(|team| doc! { "_id": team }).collect();
    let rest = ["services", "memberships", "badges"].map(|name| (name.to_owned(), Vec::new()));
    let mut collections = Collections::from(rest);
    collections.extend([
        ("users".to_owned(), vec![user]),
        ("projects".to_owned(), projects),
        ("teams".to_owned(), documents),
    ]);
    let both = Both::new(schema("subjects.toml", SCHEMA), &collections).await;
    let of_team = |team: &String| question(&both.schema, "user:ann", "read", &format!("project:p-{team}"));
    let questions: Vec<_> = teams.iter().map(of_team).collect();
    for answers in both.ask(&questions, now()).await {
        assert_eq!(both.objection(answers, |text| text == "allowed by team#member"), None);
    }
    for asked in [&both.documents, &both.mongodb] {
        assert_eq!(found_in(&asked.metrics, "source"), 1 + 50 + 50, "the user, the projects and their teams");
    }
}
