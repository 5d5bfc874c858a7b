//! The members of resources that a permission on one resource may depend on: those that sets and edges lead to, one behind the other.
//!
//! Discovered in breadth, a level at a time, with a visited set: nothing recurses into data, and circles end. Decides nothing.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Range,
};

use super::{
    grants::{End, EndCertainty, Granted, Reader},
    listings::{self, LISTINGS_AT_ONCE, LISTINGS_MAX},
};
use crate::{
    check::{CheckError, Inquiry, Slice},
    evaluate::{DEPTH_MAX, NODES_MAX},
    fact::{Certainty, Fact, FactKey, Window},
    list::{ListError, listings::read},
    question::{Id, PermissionId, RelationId, Resource, ResourceTypeId, Subject, SubjectTypeId},
    schema::{Expression, Member, Origin, Schema, Target},
    source::{Listed, Source},
};

/// Whether a resource exists: whether it has a document that fulfils the condition of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existence {
    Exists,
    Absent,
    /// Its document has a value of a wrong type.
    Indeterminate,
    /// Its document is too large for a fact.
    Unknown,
}

/// A member of a resource, as the question whether a subject has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// The place of the resource.
    pub(super) resource: usize,
    pub(super) member: Member,
}

/// What a member of a type is read from.
#[derive(Debug, Default)]
struct Parts {
    /// The relations that are read from documents, edges included.
    relations: BTreeSet<RelationId>,
    /// The edges, each with the member at its end.
    walks: BTreeSet<(RelationId, Member)>,
}

/// The members of resources that a permission may depend on. The first one is the permission itself.
pub(super) struct Graph<'s> {
    pub(super) schema: &'s Schema,
    /// The type of the subjects.
    pub(super) kind: SubjectTypeId,
    resources: Vec<(Resource, Option<Existence>)>,
    places: HashMap<Resource, usize>,
    /// In the order of their distance from the first one.
    pub(super) nodes: Vec<Node>,
    node_places: HashMap<Node, usize>,
    granted: HashMap<(usize, RelationId), Granted>,
    /// Whether there are more nodes than the evaluator looks at, so that some were not discovered.
    pub(super) is_full: bool,
    /// The relations whose facts are over their limit, and whose ends are not listed yet.
    large: Vec<(usize, RelationId)>,
    /// How many listings were read.
    listings: usize,
    parts: HashMap<Member, Parts>,
}

impl<'s> Graph<'s> {
    /// Discovers what a member of a resource may depend on, for subjects of one type.
    ///
    /// # Errors
    /// [`ListError`] if a fact cannot be loaded or a listing cannot be read.
    pub(super) async fn discover(
        source: &dyn Source,
        inquiry: &mut Inquiry<'s>,
        (resource, member): (&Resource, Member),
        kind: SubjectTypeId,
    ) -> Result<Self, ListError> {
        let mut graph = Self {
            schema: inquiry.schema(),
            kind,
            resources: Vec::new(),
            places: HashMap::new(),
            nodes: Vec::new(),
            node_places: HashMap::new(),
            granted: HashMap::new(),
            is_full: false,
            large: Vec::new(),
            listings: 0,
            parts: HashMap::new(),
        };
        let resource = graph.place(resource.clone());
        graph.add(Node { resource, member });
        let mut next = 0;
        for level in 0..=DEPTH_MAX {
            let nodes = next..graph.nodes.len();
            if nodes.is_empty() {
                break;
            }
            if inquiry.deadline().is_over() {
                return Err(CheckError::DeadlineExceeded.into());
            }
            next = nodes.end;
            graph.read(inquiry, nodes.clone()).await?;
            graph.list_ends(source, inquiry).await?;
            // Beyond this depth, every check is indeterminate.
            if level < DEPTH_MAX {
                graph.follow(nodes).await;
            }
        }
        Ok(graph)
    }

    /// The resource at a place.
    pub(super) fn resource(&self, place: usize) -> Option<&Resource> {
        self.resources.get(place).map(|(resource, _)| resource)
    }

    /// Whether the resource at a place exists, if it was looked at.
    pub(super) fn existence(&self, place: usize) -> Option<Existence> {
        self.resources.get(place).and_then(|(_, existence)| *existence)
    }

    /// What a relation grants on the resource at a place; none if it concerns no subject of the type.
    pub(super) fn granted(&self, resource: usize, relation: RelationId) -> Option<&Granted> {
        self.granted.get(&(resource, relation))
    }

    /// The place of a node, if it was discovered.
    pub(super) fn node(&self, node: Node) -> Option<usize> {
        self.node_places.get(&node).copied()
    }

    /// The node that an end of a relation leads to. `member` is what an edge is followed to.
    pub(super) fn end(end: End, member: Option<Member>) -> Option<Node> {
        Some(Node { resource: end.resource, member: end.member.or(member)? })
    }

    /// Loads all facts of these nodes at once, and reads them.
    async fn read(&mut self, inquiry: &mut Inquiry<'s>, nodes: Range<usize>) -> Result<(), ListError> {
        let (mut keys, mut seen) = (Vec::new(), HashSet::new());
        let mut slice = Slice::begin();
        for node in nodes.clone() {
            for key in self.keys(node) {
                if seen.insert(key.clone()) {
                    keys.push(key);
                }
            }
            slice.pause_if_over().await;
        }
        let facts = inquiry.facts(&keys).await?;
        let facts: HashMap<FactKey, Fact> = keys.into_iter().zip(facts).collect();
        let reader = Reader { schema: self.schema, kind: self.kind, now: inquiry.now() };
        for node in nodes {
            self.read_node(node, &facts, &reader);
            slice.pause_if_over().await;
        }
        Ok(())
    }

    /// The keys of the facts of a node.
    fn keys(&mut self, node: usize) -> Vec<FactKey> {
        let Some((Node { member, .. }, Resource { kind, id })) = self.of(node) else { return Vec::new() };
        let schema = self.schema;
        let own = schema.resource(kind).document.map(|lookup| FactKey::whole(lookup, id.clone()));
        let relations = self.parts(member).relations.iter().map(|relation| schema.relation(*relation));
        let of_relations = relations.flat_map(|relation| {
            let whole = relation.lookup().map(|lookup| FactKey::whole(lookup, id.clone()));
            [whole, schema.structures(relation).map(FactKey::structures)]
        });
        own.into_iter().chain(of_relations.flatten()).collect()
    }

    fn of(&self, node: usize) -> Option<(Node, Resource)> {
        let node = *self.nodes.get(node)?;
        Some((node, self.resource(node.resource)?.clone()))
    }

    /// Reads whether the resource of a node exists, and what its relations grant.
    fn read_node(&mut self, node: usize, facts: &HashMap<FactKey, Fact>, reader: &Reader<'_>) {
        let Some((Node { resource, member }, Resource { kind, id })) = self.of(node) else { return };
        let schema = self.schema;
        let fact = |lookup| facts.get(&FactKey::whole(lookup, id.clone()));
        let own = schema.resource(kind).document.and_then(fact);
        let existence = self.read_existence(kind, own, reader);
        if let Some((_, known)) = self.resources.get_mut(resource) {
            *known = Some(existence);
        }
        if existence == Existence::Absent {
            return;
        }
        let relations: Vec<RelationId> = self.parts(member).relations.iter().copied().collect();
        for relation in relations {
            if self.granted.contains_key(&(resource, relation)) {
                continue;
            }
            let (mut granted, declared) = (Granted::default(), schema.relation(relation));
            let structures = schema.structures(declared).and_then(|lookup| facts.get(&FactKey::structures(lookup)));
            for fact in declared.lookup().and_then(fact).into_iter().chain(structures) {
                reader.read(fact, relation, &mut granted, |resource| self.place(resource));
            }
            if granted.is_large && declared.ids.is_some() {
                self.large.push((resource, relation));
            }
            self.granted.insert((resource, relation), granted);
        }
    }

    /// Lists where large relations lead: the sets and the resources at the ends of edges, and everybody.
    async fn list_ends(&mut self, source: &dyn Source, inquiry: &mut Inquiry<'s>) -> Result<(), ListError> {
        let (mut asked, mut all) = (Vec::new(), Vec::new());
        for (place, relation) in std::mem::take(&mut self.large) {
            let Some(resource) = self.resource(place).cloned() else { continue };
            let ends = ends(self.schema, relation);
            let of_ends = ends.into_iter().filter_map(|(target, kind, member)| {
                let search = listings::of_target(self.schema, relation, &resource, target)?;
                Some((Some((kind, member)), search.listing(None, NODES_MAX)))
            });
            let of_everybody = listings::of_everybody(self.schema, relation, &resource);
            let of_everybody = of_everybody.map(|search| (None, search.listing(None, 1)));
            for (end, listing) in of_ends.chain(of_everybody).collect::<Vec<_>>() {
                if self.listings >= LISTINGS_MAX {
                    self.take(place, relation, end, None);
                    continue;
                }
                self.listings += 1;
                asked.push((place, relation, end));
                all.push(listing);
            }
        }
        for (asked, listings) in asked.chunks(LISTINGS_AT_ONCE).zip(all.chunks(LISTINGS_AT_ONCE)) {
            // Of more ends than nodes, none would be followed.
            if self.resources.len() > NODES_MAX {
                for (place, relation, end) in asked {
                    self.take(*place, *relation, *end, None);
                }
                continue;
            }
            let listed = read(source, inquiry, listings.to_vec()).await?;
            for ((place, relation, end), listed) in asked.iter().zip(listed) {
                self.take(*place, *relation, *end, listed);
            }
        }
        Ok(())
    }

    /// Takes what was listed of a large relation: the ids of the ends of a kind, or something if it leads to everybody.
    fn take(
        &mut self,
        place: usize,
        relation: RelationId,
        end: Option<(ResourceTypeId, Option<Member>)>,
        listed: Option<Listed>,
    ) {
        let listed = listed.filter(|listed| end.is_none() || listed.is_complete);
        let mut ends = Vec::new();
        if let (Some((kind, member)), Some(listed)) = (end, &listed) {
            for id in &listed.ids {
                let resource = self.place(Resource { kind, id: id.clone() });
                ends.push(End { resource, member, certainty: EndCertainty::Unknown });
            }
        }
        let Some(granted) = self.granted.get_mut(&(place, relation)) else { return };
        granted.ends.extend(ends);
        match end {
            Some(_) => granted.has_unknown_ends |= listed.is_none(),
            None => granted.may_be_for_all |= listed.is_none_or(|listed| !listed.ids.is_empty()),
        }
    }

    fn read_existence(&self, kind: ResourceTypeId, own: Option<&Fact>, reader: &Reader<'_>) -> Existence {
        let resource = self.schema.resource(kind);
        let (Some(fact), Some(_)) = (own, resource.document) else { return Existence::Exists };
        if fact.is_absent() {
            return Existence::Absent;
        }
        if fact.is_over_limit() {
            return Existence::Unknown;
        }
        let Some(gate) = resource.gate else { return Existence::Exists };
        let is_now = |window: Window| window.since <= reader.now && reader.now < window.until;
        let certainties = fact.grants(gate).filter(|grant| is_now(fact.window(grant))).map(|grant| grant.certainty);
        match certainties.min() {
            Some(Certainty::Sure) => Existence::Exists,
            Some(Certainty::Doubtful | Certainty::Suspect) => Existence::Indeterminate,
            None => Existence::Absent,
        }
    }

    /// Adds the nodes that these lead to.
    async fn follow(&mut self, nodes: Range<usize>) {
        let mut slice = Slice::begin();
        for node in nodes {
            let Some(Node { resource, member }) = self.nodes.get(node).copied() else { continue };
            let Parts { relations, walks } = self.parts(member);
            let of_sets = relations.iter().map(|relation| (*relation, None));
            let of_walks = walks.iter().map(|(edge, member)| (*edge, Some(*member)));
            let all: Vec<(RelationId, Option<Member>)> = of_sets.chain(of_walks).collect();
            for (relation, member) in all {
                let ends = self.granted.get(&(resource, relation)).map(|granted| &granted.ends);
                let found = ends.into_iter().flatten().filter_map(|end| Self::end(*end, member));
                for node in found.collect::<Vec<_>>() {
                    self.add(node);
                }
                slice.pause_if_over().await;
            }
        }
    }

    /// Adds a node, unless there are too many.
    fn add(&mut self, node: Node) {
        if self.node_places.contains_key(&node) {
            return;
        }
        self.is_full |= self.nodes.len() >= NODES_MAX;
        if !self.is_full {
            self.node_places.insert(node, self.nodes.len());
            self.nodes.push(node);
        }
    }

    /// The place of a resource, which is added if it is new.
    fn place(&mut self, resource: Resource) -> usize {
        let next = self.resources.len();
        let place = *self.places.entry(resource.clone()).or_insert(next);
        if place == next {
            self.resources.push((resource, None));
        }
        place
    }

    /// What a member is read from, as far as it can concern subjects of the type.
    fn parts(&mut self, member: Member) -> &Parts {
        let (schema, kind) = (self.schema, self.kind);
        self.parts.entry(member).or_insert_with(|| {
            let mut parts = Parts::default();
            let mut permissions = HashSet::new();
            match member {
                Member::Relation(id) => parts.add(schema, kind, id),
                Member::Permission(id) => {
                    permissions.insert(id);
                    parts.add_all(schema, kind, &schema.permission(id).expression, &mut permissions);
                }
            }
            parts
        })
    }
}

impl Parts {
    fn add(&mut self, schema: &Schema, kind: SubjectTypeId, relation: RelationId) {
        // Only the type matters.
        let subject = Subject::Known { kind, id: Id::Integer(0) };
        match schema.relation(relation).origin {
            Origin::Documents(_) if schema.can_concern(relation, &subject) => {
                self.relations.insert(relation);
            }
            Origin::Documents(_) | Origin::Subject(_) => {}
        }
    }

    /// Adds what an expression is read from, with that of the permissions of the same resource.
    fn add_all(
        &mut self,
        schema: &Schema,
        kind: SubjectTypeId,
        expression: &Expression,
        permissions: &mut HashSet<PermissionId>,
    ) {
        let mut todo = vec![expression];
        while let Some(expression) = todo.pop() {
            match expression {
                Expression::Relation(id) => self.add(schema, kind, *id),
                Expression::Permission(id) => {
                    if permissions.insert(*id) {
                        todo.push(&schema.permission(*id).expression);
                    }
                }
                Expression::Walk { edge, member } => {
                    self.add(schema, kind, *edge);
                    self.walks.insert((*edge, *member));
                }
                Expression::SubjectFlag(_) => {}
                Expression::Not(inner) => todo.push(inner),
                Expression::And(sides) | Expression::Or(sides) => todo.extend(sides),
            }
        }
    }
}

/// The targets of a relation that are sets or resources, each once: with its type, and the member that a set names.
fn ends(schema: &Schema, relation: RelationId) -> Vec<(Target, ResourceTypeId, Option<Member>)> {
    let targets = schema.relation(relation).ids.iter().flat_map(|ids| ids.targets.iter().copied());
    let mut ends = Vec::new();
    for target in targets {
        let end = match target {
            Target::Set(kind, member) => (target, kind, Some(member)),
            Target::Resource(kind) => (target, kind, None),
            Target::Subject(_) => continue,
        };
        if !ends.contains(&end) {
            ends.push(end);
        }
    }
    ends
}
