//! Candidates: the resources on which a permission may hold for the subject. Follows the ways to them level by level, as a least
//! fixpoint: what was found before is not followed again.
//!
//! Does not decide whether a permission holds on a candidate.

use std::collections::{BTreeMap, HashSet};

use super::{
    Asker, CANDIDATES_MAX, ListError, earliest,
    listings::{self, Search},
    ways::{Way, Ways},
};
use crate::{
    check::{Inquiry, Slice},
    evaluate::DEPTH_MAX,
    fact::{Certainty, Fact, FactKey, Grantee},
    question::{Id, IdForm, Millis, RelationId, Subject},
    schema::{Reverse, Schema},
    source::Source,
};

/// How many searches one request may have. A page reads all of them that stay unread at once.
const SEARCHES_MAX: usize = 100;

/// How many searches are read at once to their end.
const LISTINGS_AT_ONCE: usize = 8;

/// The candidates of one set.
#[derive(Default)]
pub(super) struct Found {
    /// Those that were found so far.
    pub(super) ids: HashSet<Id>,
    /// Those of the last level, through which others are found.
    frontier: Vec<Id>,
    /// More candidates, which are not read: only where whoever asks reads them page by page.
    pub(super) unread: Vec<Search>,
    /// Whether there were too many, so that all of them are unread.
    is_unread: bool,
}

/// Finds candidates of sets.
pub(super) struct Finder<'f, 'c> {
    pub(super) source: &'f dyn Source,
    pub(super) inquiry: &'f mut Inquiry<'c>,
    pub(super) asker: &'f Asker,
    pub(super) ways: &'f Ways,
    /// Whether the candidates of each set may stay unread where they are not in facts.
    pub(super) may_stay_unread: &'f [bool],
    /// The earliest time at which a fact leads to something to which it does not lead yet.
    pub(super) begins_at: Option<Millis>,
    /// How many searches there were so far.
    pub(super) searches_count: usize,
}

/// What is asked for one set.
enum Ask {
    /// The grants of a relation in a fact, or what is listed in its place if the fact is over its limit.
    Fact { key: FactKey, relation: RelationId, otherwise: Otherwise },
    /// A listing.
    Listing(Search),
}

/// What is listed in place of a fact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Otherwise {
    /// What leads to the key by the relation.
    By(RelationId),
    /// What leads to the asking subject, or to everybody, by the relation.
    ByAsker(RelationId),
    /// What a relation of the key, which is the asking subject, leads to.
    Of(RelationId),
}

impl Finder<'_, '_> {
    /// The candidates of each set, in the order of the sets.
    ///
    /// # Errors
    /// [`ListError::TooManyIds`] if a set has too many, and the errors of facts and of the source.
    pub(super) async fn find(&mut self) -> Result<Vec<Found>, ListError> {
        let mut found: Vec<Found> = self.ways.nodes.iter().map(|_| Found::default()).collect();
        let first = self.first_asks()?;
        self.ask(first, &mut found).await?;
        for _ in 0..DEPTH_MAX {
            let next = self.next_asks(&mut found);
            if next.is_empty() {
                break;
            }
            self.ask(next, &mut found).await?;
        }
        for place in 0..found.len() {
            if found.get(place).is_some_and(|found| found.is_unread) {
                let searches = self.whole_searches(place, &found)?;
                self.count(place, searches.len())?;
                if let Some(found) = found.get_mut(place) {
                    found.unread = searches;
                }
            }
        }
        Ok(found)
    }

    /// Searches for everything to which the ways of a set lead, except the same resources of other sets.
    fn whole_searches(&self, place: usize, found: &[Found]) -> Result<Vec<Search>, ListError> {
        let (schema, ways) = (self.inquiry.schema(), self.ways.nodes.get(place).map(|node| &node.ways));
        let mut searches = Vec::new();
        for way in ways.into_iter().flatten() {
            searches.extend(match way {
                Way::Subject(relation) => self.by_asker(*relation)?,
                Way::Through(relation, end) => {
                    let ids: Vec<Id> = found.get(*end).into_iter().flat_map(|end| end.ids.iter().cloned()).collect();
                    by_ids(schema, *relation, &ids)
                }
                Way::OfSubject(relation) => match &self.asker.subject {
                    Subject::Known { id, .. } => Search::of_subject(schema, *relation, id).into_iter().collect(),
                    Subject::Anonymous => Vec::new(),
                },
                Way::Flag(relation) => Search::by_flag(schema, *relation).into_iter().collect(),
                Way::Same(_) => Vec::new(),
            });
        }
        Ok(searches)
    }

    /// What is asked by what names the subject itself.
    fn first_asks(&self) -> Result<Vec<(usize, Ask)>, ListError> {
        let mut asks = Vec::new();
        let schema = self.inquiry.schema();
        for (place, node) in (0..).zip(&self.ways.nodes).filter(|(_, node)| node.is_used) {
            for way in &node.ways {
                let of_way = match way {
                    Way::Subject(relation) => self.of_asker(schema, *relation)?,
                    Way::OfSubject(relation) => of_subject(schema, *relation, &self.asker.subject),
                    Way::Flag(relation) => all_listed(Search::by_flag(schema, *relation)),
                    Way::Through(..) | Way::Same(_) => Vec::new(),
                };
                asks.extend(of_way.into_iter().map(|ask| (place, ask)));
            }
        }
        Ok(asks)
    }

    /// What leads to the asking subject by a relation.
    fn of_asker(&self, schema: &Schema, relation: RelationId) -> Result<Vec<Ask>, ListError> {
        let Subject::Known { id, kind } = &self.asker.subject else { return Ok(Vec::new()) };
        if schema.relation(relation).reverse.is_empty() {
            return Ok(all_listed(self.by_asker(relation)?));
        }
        let form = schema.subject(*kind).id;
        let mut asks = by_reverse(schema, relation, form, std::slice::from_ref(id));
        if schema.relation(relation).ids.as_ref().is_some_and(|ids| ids.wildcard) {
            asks.extend(reverses(schema, relation, form).map(|reverse| Ask::Fact {
                key: FactKey::everybody(reverse.lookup),
                relation: reverse.relation,
                otherwise: Otherwise::ByAsker(relation),
            }));
        }
        Ok(asks)
    }

    /// What is asked by the ids of the last level, which is then over.
    fn next_asks(&self, found: &mut [Found]) -> Vec<(usize, Ask)> {
        let schema = self.inquiry.schema();
        let last: Vec<Vec<Id>> = found.iter_mut().map(|found| std::mem::take(&mut found.frontier)).collect();
        let mut asks = Vec::new();
        for (place, node) in (0..).zip(&self.ways.nodes).filter(|(_, node)| node.is_used) {
            for way in &node.ways {
                let Way::Through(relation, end) = way else { continue };
                let Some(ids) = last.get(*end).filter(|ids| !ids.is_empty()) else { continue };
                let form = self.ways.nodes.get(*end).map(|node| schema.resource(node.set.kind).id);
                let of_way = match form.filter(|_| !schema.relation(*relation).reverse.is_empty()) {
                    Some(form) => by_reverse(schema, *relation, form, ids),
                    None => all_listed(by_ids(schema, *relation, ids)),
                };
                asks.extend(of_way.into_iter().map(|ask| (place, ask)));
            }
        }
        asks
    }

    /// Reads everything that is asked for at once, facts first, and adds what is found.
    async fn ask(&mut self, asks: Vec<(usize, Ask)>, found: &mut [Found]) -> Result<(), ListError> {
        let mut searches: Vec<(usize, Search)> = Vec::new();
        let mut of_facts = Vec::new();
        let mut keys = Vec::new();
        for (place, ask) in asks {
            match ask {
                Ask::Fact { key, relation, otherwise } => {
                    keys.push(key);
                    of_facts.push((place, relation, otherwise));
                }
                Ask::Listing(search) => searches.push((place, search)),
            }
        }
        let facts = self.inquiry.facts(&keys).await?;
        // The ids of the facts that are over their limit: many are listed at once.
        let mut large: BTreeMap<(usize, Otherwise), Vec<Id>> = BTreeMap::new();
        let mut slice = Slice::begin();
        for (fact, (place, relation, otherwise)) in facts.iter().zip(of_facts) {
            slice.pause_if_over().await;
            if fact.is_over_limit() {
                large.entry((place, otherwise)).or_default().push(fact.id().clone());
            } else {
                let (ids, begins_at) = ids_in(fact, relation, self.inquiry.now());
                self.begins_at = earliest(self.begins_at, begins_at);
                self.add(place, ids, found)?;
            }
        }
        for ((place, otherwise), mut ids) in large {
            ids.sort_unstable();
            ids.dedup();
            searches.extend(self.searches(otherwise, &ids)?.into_iter().map(|search| (place, search)));
        }
        for (place, _) in &searches {
            self.count(*place, 1)?;
        }
        let searches = self.unread(searches, found);
        for some in searches.chunks(LISTINGS_AT_ONCE) {
            let all = some.iter().map(|(_, search)| search.listing(None, CANDIDATES_MAX + 1));
            let listed = listings::read_all(self.source, self.inquiry, all).await?;
            for ((place, _), listed) in some.iter().zip(listed) {
                if !listed.is_complete {
                    return Err(self.too_many(*place, listed.ids.len(), CANDIDATES_MAX));
                }
                self.add(*place, listed.ids, found)?;
            }
        }
        Ok(())
    }

    /// Counts searches for resources of a set. A request may have only so many.
    fn count(&mut self, place: usize, searches: usize) -> Result<(), ListError> {
        self.searches_count += searches;
        if self.searches_count <= SEARCHES_MAX {
            return Ok(());
        }
        let max = SEARCHES_MAX * listings::VALUES_MAX;
        Err(self.too_many(place, max + 1, max))
    }

    /// The searches in place of facts with these ids.
    fn searches(&self, otherwise: Otherwise, ids: &[Id]) -> Result<Vec<Search>, ListError> {
        let schema = self.inquiry.schema();
        Ok(match otherwise {
            Otherwise::By(relation) => by_ids(schema, relation, ids),
            Otherwise::ByAsker(relation) => self.by_asker(relation)?,
            Otherwise::Of(relation) => ids.iter().filter_map(|id| Search::of_subject(schema, relation, id)).collect(),
        })
    }

    /// Searches for the resources that lead to the asking subject, or to everybody, by a relation.
    fn by_asker(&self, relation: RelationId) -> Result<Vec<Search>, ListError> {
        let schema = self.inquiry.schema();
        Ok(Search::by_values(schema, relation, &listings::values_of_asker(schema, relation, self.asker)?))
    }

    /// Leaves those searches unread that may stay so, and returns the others.
    fn unread(&self, searches: Vec<(usize, Search)>, found: &mut [Found]) -> Vec<(usize, Search)> {
        let mut others = Vec::new();
        for (place, search) in searches {
            let may_stay = self.may_stay_unread(place) && search.is_in_order();
            match found.get_mut(place).filter(|_| may_stay) {
                Some(found) => found.unread.push(search),
                None => others.push((place, search)),
            }
        }
        others
    }

    fn may_stay_unread(&self, place: usize) -> bool {
        self.may_stay_unread.get(place).is_some_and(|may_stay| *may_stay)
    }

    /// Adds candidates to a set, and to those that are the same resources.
    fn add(&self, place: usize, ids: Vec<Id>, found: &mut [Found]) -> Result<(), ListError> {
        let mut todo = vec![(place, ids)];
        while let Some((place, mut ids)) = todo.pop() {
            let Some(set) = found.get_mut(place) else { continue };
            ids.retain(|id| !set.is_unread && set.ids.insert(id.clone()));
            if ids.is_empty() {
                continue;
            }
            if set.ids.len() > CANDIDATES_MAX {
                let count = set.ids.len();
                if !self.may_stay_unread(place) || !self.are_in_order(place) {
                    return Err(self.too_many(place, count, CANDIDATES_MAX));
                }
                *set = Found { is_unread: true, ..Found::default() };
                continue;
            }
            todo.extend(self.ways.users_of(place).map(|user| (user, ids.clone())));
            set.frontier.extend(ids);
        }
        Ok(())
    }

    /// Whether everything that the ways of a set lead to can be listed in the order of ids.
    fn are_in_order(&self, place: usize) -> bool {
        let schema = self.inquiry.schema();
        let ways = self.ways.nodes.get(place).into_iter().flat_map(|node| &node.ways);
        ways.into_iter().all(|way| match way {
            Way::Subject(relation) | Way::Through(relation, _) | Way::Flag(relation) => {
                let lookup = schema.relation(*relation).lookup().map(|lookup| schema.lookup(lookup));
                lookup.is_some_and(|lookup| lookup.text_keys.is_none())
            }
            Way::OfSubject(relation) => schema.relation(*relation).ids.as_ref().is_some_and(|ids| ids.format.is_none()),
            Way::Same(_) => true,
        })
    }

    fn too_many(&self, place: usize, count: usize, max: usize) -> ListError {
        let relation = self.ways.nodes.get(place).map(|node| node.set.name(self.inquiry.schema()));
        ListError::TooManyIds { relation: relation.unwrap_or_default(), count, max }
    }
}

/// The ids to which a relation of a fact leads at a time, whether its documents can be relied on or not, and the time at which it first
/// leads to more.
fn ids_in(fact: &Fact, relation: RelationId, now: Millis) -> (Vec<Id>, Option<Millis>) {
    let (mut ids, mut begins_at) = (Vec::new(), None);
    for grant in fact.grants(relation).filter(|grant| grant.certainty != Certainty::Suspect) {
        let window = fact.window(grant);
        if now >= window.until {
            continue;
        }
        match &grant.grantee {
            Grantee::Id(_) if now < window.since => {
                begins_at = earliest(begins_at, Some(window.since));
            }
            Grantee::Id(id) => ids.push(id.clone()),
            Grantee::Flag | Grantee::Everyone | Grantee::Unreadable | Grantee::Unknown(_) | Grantee::OverLimit => {}
        }
    }
    (ids, begins_at)
}

/// What leads to these ids, all of one form, by a relation with reverse lookups.
fn by_reverse(schema: &Schema, relation: RelationId, form: IdForm, ids: &[Id]) -> Vec<Ask> {
    let otherwise = Otherwise::By(relation);
    let asks = reverses(schema, relation, form).flat_map(|reverse| {
        let key = |id: &Id| FactKey::whole(reverse.lookup, id.clone());
        ids.iter().map(move |id| Ask::Fact { key: key(id), relation: reverse.relation, otherwise })
    });
    asks.collect()
}

/// The reverse lookups of a relation that find ids of this form.
fn reverses(schema: &Schema, relation: RelationId, form: IdForm) -> impl Iterator<Item = &Reverse> {
    schema.relation(relation).reverse.iter().filter(move |reverse| reverse.form.is_none_or(|of_ids| of_ids == form))
}

/// What a relation of the asking subject leads to.
fn of_subject(schema: &Schema, relation: RelationId, subject: &Subject) -> Vec<Ask> {
    let (Subject::Known { id, .. }, Some(lookup)) = (subject, schema.relation(relation).lookup()) else {
        return Vec::new();
    };
    vec![Ask::Fact { key: FactKey::whole(lookup, id.clone()), relation, otherwise: Otherwise::Of(relation) }]
}

fn all_listed(searches: impl IntoIterator<Item = Search>) -> Vec<Ask> {
    searches.into_iter().map(Ask::Listing).collect()
}

/// Searches for the resources that lead to one of these ids by a relation.
fn by_ids(schema: &Schema, relation: RelationId, ids: &[Id]) -> Vec<Search> {
    Search::by_values(schema, relation, &listings::values_by(schema, relation, ids))
}
