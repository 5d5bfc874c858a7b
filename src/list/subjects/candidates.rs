//! The candidates of a list of subjects: those that the facts name where that may grant the permission, and where others are listed
//! from.
//!
//! Of an `&`, those of one side that grants nobody who is not named suffice. A `!` gives no candidates: whoever it lets through, it
//! lets others through whom nothing names, which the bounds say.

use std::collections::{BTreeSet, HashSet, VecDeque};

use super::{
    bounds::AllBounds,
    grants::{EndCertainty, Granted},
    graph::{Existence, Graph, Node},
    listings::{self, LISTINGS_AT_ONCE, LISTINGS_MAX},
};
use crate::{
    check::{Inquiry, Slice},
    list::{
        CANDIDATES_MAX, ListError,
        listings::{Search, read},
    },
    question::{Id, RelationId},
    schema::{Expression, Member, Origin, Target},
    source::{Listed, Source},
};

/// How many sets one list returns.
const SETS_MAX: usize = 1_000;

/// What it costs to check the candidates of one part of an `&`, compared with one named subject: guesses, which decide only which
/// side is taken.
const COST_OF_END: usize = 10;
const COST_OF_RELATION: usize = 1_000;
const COST_OF_FLAG: usize = 5_000;
const COST_MAX: usize = 1_000_000;

/// What a list of subjects has to look at.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// The subjects, no more than [`CANDIDATES_MAX`].
    pub(super) ids: BTreeSet<Id>,
    /// The members of resources that are not expanded: there would be too many subjects.
    sets: BTreeSet<(usize, Member)>,
    /// What has to be listed.
    unread: BTreeSet<Unread>,
    /// Whether there are more subjects, which no set has.
    pub(super) are_incomplete: bool,
}

/// Subjects that have to be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unread {
    /// Those that a large relation of a resource leads to: the place of the resource, and the relation.
    Large(usize, RelationId),
    /// Those whose relation leads to a resource by `of`: that relation, the relation of the resource, and the place of the resource.
    Of(RelationId, RelationId, usize),
    /// Those that have a flag.
    Flag(RelationId),
}

impl Candidates {
    /// Finds the candidates in a graph, without those that have to be listed.
    pub(super) async fn of<'g, 's>(graph: &'g Graph<'s>, bounds: &mut AllBounds<'g, 's>) -> Self {
        let mut finder = Finder { graph, bounds, todo: VecDeque::new(), seen: HashSet::new(), found: Self::default() };
        finder.todo.push_back(0);
        let mut slice = Slice::begin();
        while let Some(node) = finder.todo.pop_front() {
            finder.node(node);
            slice.pause_if_over().await;
        }
        finder.found
    }

    /// Lists what has to be listed.
    pub(super) async fn list(
        &mut self,
        source: &dyn Source,
        inquiry: &mut Inquiry<'_>,
        graph: &Graph<'_>,
    ) -> Result<(), ListError> {
        let unread: Vec<Unread> = std::mem::take(&mut self.unread).into_iter().collect();
        let may_join = unread.len() > LISTINGS_MAX;
        let mut searches = Vec::new();
        for together in unread.chunk_by(|one, next| may_join && one.is_of_same_documents(*next)) {
            match Unread::search(together, graph) {
                Some(search) if searches.len() < LISTINGS_MAX => searches.push((together, search)),
                Some(_) | None => self.take(together, None),
            }
        }
        for some in searches.chunks(LISTINGS_AT_ONCE) {
            let listings = some.iter().map(|(_, search)| search.listing(None, CANDIDATES_MAX));
            let listings: Vec<_> = listings.filter(|_| !self.is_full()).collect();
            let mut listed = read(source, inquiry, listings).await?.into_iter();
            for (together, _) in some {
                self.take(together, listed.next().flatten().filter(|listed| listed.is_complete));
            }
        }
        Ok(())
    }

    /// Whether there is no place for one more subject.
    fn is_full(&self) -> bool {
        self.ids.len() >= CANDIDATES_MAX
    }

    /// Takes what was listed together; none if that is too much.
    fn take(&mut self, together: &[Unread], listed: Option<Listed>) {
        match listed.filter(|listed| self.has_place_for(listed.ids.iter())) {
            Some(listed) => self.ids.extend(listed.ids),
            None => {
                for unread in together {
                    match *unread {
                        Unread::Large(resource, relation) | Unread::Of(_, relation, resource) => {
                            self.add_set((resource, Member::Relation(relation)));
                        }
                        Unread::Flag(_) => self.are_incomplete = true,
                    }
                }
            }
        }
    }

    fn has_place_for<'i>(&self, ids: impl Iterator<Item = &'i Id>) -> bool {
        let new = ids.filter(|id| !self.ids.contains(*id)).take(CANDIDATES_MAX + 1).count();
        self.ids.len() + new <= CANDIDATES_MAX
    }

    /// Adds subjects, or the set that they belong to if that would be too many.
    fn add<'i>(&mut self, set: (usize, Member), ids: impl Iterator<Item = &'i Id> + Clone) {
        if self.has_place_for(ids.clone()) {
            self.ids.extend(ids.cloned());
        } else {
            self.add_set(set);
        }
    }

    /// Adds a set that is not expanded.
    fn add_set(&mut self, set: (usize, Member)) {
        if self.sets.len() <= SETS_MAX {
            self.sets.insert(set);
        }
    }

    /// The sets that are not expanded. Instead of too many, `whole` alone, to which all of them lead.
    pub(super) fn sets(&self, whole: (usize, Member)) -> Vec<(usize, Member)> {
        if self.sets.len() > SETS_MAX { vec![whole] } else { self.sets.iter().copied().collect() }
    }
}

/// Finds candidates.
struct Finder<'f, 'g, 's> {
    graph: &'g Graph<'s>,
    bounds: &'f mut AllBounds<'g, 's>,
    /// The nodes to look at next.
    todo: VecDeque<usize>,
    seen: HashSet<usize>,
    found: Candidates,
}

impl Finder<'_, '_, '_> {
    fn node(&mut self, place: usize) {
        let Some(node) = self.graph.nodes.get(place).copied() else { return };
        if !self.seen.insert(place) {
            return;
        }
        // Nobody has a permission on it.
        if let Some(Existence::Absent | Existence::Indeterminate) = self.graph.existence(node.resource) {
            return;
        }
        match node.member {
            Member::Relation(id) => self.relation(node, id),
            Member::Permission(id) => self.expression(node, &self.graph.schema.permission(id).expression),
        }
    }

    fn expression(&mut self, node: Node, expression: &Expression) {
        match expression {
            Expression::Relation(id) => self.relation(node, *id),
            Expression::Permission(id) => self.expression(node, &self.graph.schema.permission(*id).expression),
            Expression::Walk { edge, member } => self.walk(node, *edge, *member),
            Expression::SubjectFlag(flags) => {
                self.found.unread.extend(self.graph.own_flag(flags).map(Unread::Flag));
            }
            Expression::Not(_) => {}
            Expression::And(sides) => self.all(node, sides),
            Expression::Or(sides) => sides.iter().for_each(|side| self.expression(node, side)),
        }
    }

    /// Looks at one side of an `&` that grants nobody who is not named, or else at all sides.
    fn all(&mut self, node: Node, sides: &[Expression]) {
        let mut cheapest: Option<(usize, &Expression)> = None;
        for side in sides {
            let bounds = self.bounds.expression(node.resource, side);
            if !bounds.may_not_fail {
                return;
            }
            let cost = self.cost(node.resource, side);
            if !bounds.may_hold_for_unnamed && cheapest.is_none_or(|(least, _)| cost < least) {
                cheapest = Some((cost, side));
            }
        }
        match cheapest {
            Some((_, side)) => self.expression(node, side),
            None => sides.iter().for_each(|side| self.expression(node, side)),
        }
    }

    fn cost(&self, resource: usize, expression: &Expression) -> usize {
        let schema = self.graph.schema;
        let cost = match expression {
            Expression::Relation(id) | Expression::Walk { edge: id, .. } => match &schema.relation(*id).origin {
                Origin::Subject(_) => COST_OF_RELATION,
                Origin::Documents(_) => match self.graph.granted(resource, *id) {
                    Some(granted) if granted.is_large => CANDIDATES_MAX,
                    Some(granted) => granted.named.len() + COST_OF_END * granted.ends.len(),
                    None => 0,
                },
            },
            Expression::Permission(id) => self.cost(resource, &schema.permission(*id).expression),
            Expression::SubjectFlag(_) => COST_OF_FLAG,
            Expression::Not(_) => COST_MAX,
            Expression::And(sides) => sides.iter().map(|side| self.cost(resource, side)).min().unwrap_or(COST_MAX),
            Expression::Or(sides) => sides.iter().map(|side| self.cost(resource, side)).sum(),
        };
        cost.min(COST_MAX)
    }

    fn relation(&mut self, node: Node, id: RelationId) {
        let (graph, set) = (self.graph, (node.resource, Member::Relation(id)));
        if let Origin::Subject(of) = &graph.schema.relation(id).origin {
            self.found.unread.extend(graph.own_relations(of).map(|of| Unread::Of(of, id, node.resource)));
            return;
        }
        let Some(granted) = graph.granted(node.resource, id) else { return };
        if granted.has_unknown_ends {
            self.found.add_set(set);
        }
        if granted.is_large && graph.leads_to_subjects(id) {
            self.found.unread.insert(Unread::Large(node.resource, id));
        }
        self.found.add(set, granted.named.iter());
        self.ends(granted, None, set);
    }

    fn walk(&mut self, node: Node, edge: RelationId, member: Member) {
        let Some(granted) = self.graph.granted(node.resource, edge) else { return };
        let set = (node.resource, node.member);
        if granted.has_unknown_ends {
            self.found.add_set(set);
        }
        self.ends(granted, Some(member), set);
    }

    /// Goes on at the ends of a relation. Where one was not discovered because there are too many, `set` has all subjects that it leads
    /// to. One that is too deep leads to none.
    fn ends(&mut self, granted: &Granted, member: Option<Member>, set: (usize, Member)) {
        for end in granted.ends.iter().filter(|end| end.certainty != EndCertainty::Doubtful) {
            match Graph::end(*end, member).map(|node| self.graph.node(node)) {
                Some(Some(place)) => self.todo.push_back(place),
                Some(None) if self.graph.is_full => self.found.add_set(set),
                Some(None) | None => {}
            }
        }
    }
}

impl Unread {
    /// Whether one query can list both.
    fn is_of_same_documents(self, other: Self) -> bool {
        matches!((self, other), (Self::Of(one, ..), Self::Of(other, ..)) if one == other)
    }

    /// The search for all of them; none if it would bring secrets.
    fn search(together: &[Self], graph: &Graph<'_>) -> Option<Search> {
        let schema = graph.schema;
        match *together.first()? {
            Self::Large(..) if schema.subject(graph.kind).secret => None,
            Self::Large(resource, relation) => {
                listings::of_target(schema, relation, graph.resource(resource)?, Target::Subject(graph.kind))
            }
            Self::Of(of, ..) => {
                let resource = |unread: &Self| match *unread {
                    Self::Of(_, _, resource) => graph.resource(resource).map(|resource| resource.id.clone()),
                    Self::Large(..) | Self::Flag(_) => None,
                };
                let resources: Vec<Id> = together.iter().filter_map(resource).collect();
                listings::of_subjects(schema, of, &resources)
            }
            Self::Flag(flag) => listings::of_subjects(schema, flag, &[]),
        }
    }
}

impl Graph<'_> {
    /// Whether a relation leads to subjects of the type.
    fn leads_to_subjects(&self, relation: RelationId) -> bool {
        let ids = self.schema.relation(relation).ids.as_ref();
        ids.is_some_and(|ids| ids.targets.contains(&Target::Subject(self.kind)))
    }
}
