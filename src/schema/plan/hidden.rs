//! Hidden permissions: by them a list asks for a single relation, or for what a single edge leads to, as if a permission of the
//! schema said nothing else.
//!
//! No request can ask for them, and no other permission refers to them.

use std::collections::BTreeSet;

use super::{Expression, Member, Schema, Target};
use crate::{
    question::{PermissionId, RelationId, ResourceTypeId},
    schema::{HiddenPermissions, Owner, Permission},
};

/// Adds a permission for each relation of a resource that is no edge, and for each member that some permission follows an edge to.
pub(super) fn add_hidden_permissions(schema: &mut Schema) {
    let mut hidden = HiddenPermissions { first: schema.permissions.len(), ..HiddenPermissions::default() };
    let mut added = Vec::new();
    let mut add = |resource: ResourceTypeId, expression: Expression| {
        let id = PermissionId(u16::try_from(hidden.first + added.len()).unwrap_or(u16::MAX));
        let (name, private, stale_if_error) = (Box::default(), true, None);
        added.push(Permission { name, resource, expression, private, stale_if_error });
        id
    };
    for (kind, resource) in schema.resources() {
        for member in resource.members.values() {
            if let Member::Relation(id) = member
                && !is_edge(schema, *id)
            {
                hidden.of_relations.insert(*id, add(kind, Expression::Relation(*id)));
            }
        }
    }
    for (edge, member) in walks(schema) {
        if let Owner::Resource(kind) = schema.relation(edge).owner {
            hidden.of_walks.insert((edge, member), add(kind, Expression::Walk { edge, member }));
        }
    }
    schema.permissions = std::mem::take(&mut schema.permissions).into_iter().chain(added).collect();
    schema.hidden = hidden;
}

/// Whether a relation leads to resources.
fn is_edge(schema: &Schema, relation: RelationId) -> bool {
    let mut targets = schema.relation(relation).ids.iter().flat_map(|ids| &ids.targets);
    targets.any(|target| matches!(target, Target::Resource(_)))
}

/// Each member that some permission follows an edge to, with the edge.
fn walks(schema: &Schema) -> BTreeSet<(RelationId, Member)> {
    let mut walks = BTreeSet::new();
    let mut todo: Vec<&Expression> = schema.permissions.iter().map(|permission| &permission.expression).collect();
    while let Some(expression) = todo.pop() {
        match expression {
            Expression::Walk { edge, member } => {
                walks.insert((*edge, *member));
            }
            Expression::Not(inner) => todo.push(inner),
            Expression::And(sides) | Expression::Or(sides) => todo.extend(sides),
            Expression::Relation(_) | Expression::Permission(_) | Expression::SubjectFlag(_) => {}
        }
    }
    walks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_relation_and_each_way_over_an_edge_can_be_asked_for_alone() {
        let text = r#"
default_subject = "user"
[subject.user]
[resource.folder]
collection = "folders"
[resource.folder.relations]
owner = { field = "owner_id" }
parent = { field = "parent_id", resource = "folder" }
locked = { where = { locked = true } }
[resource.folder.permissions]
read = "owner | parent.read"
write = "!locked & (parent.owner | read & !parent.locked)"
"#;
        let schema = Schema::parse("schema.toml", text).unwrap();
        let (kind, folder) = schema.resources().next().unwrap();
        let member = |name: &str| folder.members[name];
        let Member::Relation(parent) = member("parent") else { panic!("an edge is a relation") };
        let hidden = |id: PermissionId| {
            let permission = schema.permission(id);
            assert!(permission.private && permission.name.is_empty() && permission.resource == kind);
            assert!(id.index() >= schema.permissions().count(), "the schema does not declare it");
            &permission.expression
        };
        assert_eq!(schema.permissions().count(), 2);
        for name in ["owner", "locked"] {
            let Member::Relation(id) = member(name) else { panic!("{name} is a relation") };
            assert_eq!(hidden(schema.permission_of(member(name)).unwrap()), &Expression::Relation(id));
        }
        assert_eq!(schema.permission_of(member("read")).map(Member::Permission), Some(member("read")));
        assert_eq!(schema.permission_of(member("parent")), None);
        for name in ["read", "owner", "locked"] {
            let walk = Expression::Walk { edge: parent, member: member(name) };
            assert_eq!(hidden(schema.permission_of_walk(parent, member(name)).unwrap()), &walk);
        }
        assert_eq!(schema.permission_of_walk(parent, member("write")), None);
    }
}
