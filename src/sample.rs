//! Realistic questions for load tests, drawn from a live database. They are about existing resources, and asked by subjects
//! that these resources name, and by other subjects. Without them, a load test would measure how fast requests about missing
//! resources are denied.
//!
//! Answers no question, and knows no file format. Subjects of secret types are left out, as the questions end up in a file.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    time::Duration,
};

use fastrand::Rng;

use crate::{
    fact::{Fact, FactKey, Grant, Grantee},
    question::{Id, IdForm, PermissionId, Question, Resource, ResourceTypeId, Subject, SubjectTypeId},
    schema::{Owner, Schema, Target},
    source::{Deadline, Source, SourceError, mongodb::MongoDb},
};

/// How many resources of one type are drawn at most, and how many subjects of one type.
const DRAWN_MAX: usize = 50_000;

/// How many resources' facts are read at once.
const CHUNK: usize = 500;

/// How many edges and sets in a row are followed from a resource to the subjects that it names.
const STEPS_MAX: usize = 8;

/// How many subjects are collected for one resource at most, and how many other resources are searched for them.
const NAMED_MAX: usize = 64;

/// One question in this many is asked by the anonymous subject.
const ANONYMOUS_EVERY: usize = 50;

/// How long one read of facts may take.
const LOAD_TIME: Duration = Duration::from_secs(30);

/// The result of a draw.
#[derive(Debug)]
pub struct Sample {
    /// The questions. They take every permission of every type in turn, and the drawn resources of that type in turn. Half of
    /// them are asked by a subject that the resource, or a resource above it, names, if there is one. The others are asked by
    /// any subject.
    pub questions: Vec<Question>,
    /// The resource types without documents in the database.
    pub missing: Vec<ResourceTypeId>,
}

/// How many resources that subjects lead to by relations of their own are kept at most.
const MEMBERS_MAX: usize = 100_000;

/// A subject that is not anonymous.
type Known = (SubjectTypeId, Id);

/// For each resource, the subjects that lead to it by a relation of their own.
type Members = HashMap<(ResourceTypeId, Id), BTreeSet<Known>>;

/// A permission and the resources that a question about it can name.
struct Turns<'a> {
    permission: PermissionId,
    resources: &'a [Resource],
}

/// Draws `count` questions, or none if the database has no resource. The same documents and the same `seed` give the same
/// questions. Calls `progress` with the number of questions that have been drawn.
///
/// # Errors
/// The source's.
pub async fn draw(
    schema: &Schema,
    source: &MongoDb,
    count: usize,
    seed: u64,
    progress: &(impl Fn(usize) + Sync),
) -> Result<Sample, SourceError> {
    let mut random = Rng::with_seed(seed);
    let (mut drawn, mut missing) = (Vec::new(), Vec::new());
    for (kind, resource) in schema.resources() {
        let Some(lookup) = resource.document.or_else(|| schema.lookups_of(kind).next()) else { continue };
        let condition = resource.gate.and_then(|gate| schema.relation(gate).condition.as_ref());
        let ids = source.sample(lookup, condition, count.min(DRAWN_MAX), &mut random).await?;
        let ids = ids.into_iter().filter(|id| has_form(id, resource.id));
        let resources: Vec<Resource> = ids.map(|id| Resource { kind, id }).collect();
        if resources.is_empty() {
            missing.push(kind);
        } else {
            drawn.push((kind, resources));
        }
    }
    let others = others(schema, source, count, &mut random).await?;
    let members = members(schema, source, &others).await?;

    let turns = drawn.iter().flat_map(|(kind, resources)| {
        schema.public_permissions(*kind).map(move |permission| Turns { permission, resources })
    });
    let asked = take_turns(&turns.collect::<Vec<_>>(), count);
    let mut questions = Vec::with_capacity(asked.len());
    for chunk in asked.chunks(CHUNK) {
        progress(questions.len());
        let resources: Vec<&Resource> = chunk.iter().map(|(_, resource)| *resource).collect();
        let named = named(schema, source, &resources, &members).await?;
        for ((permission, resource), named) in chunk.iter().zip(&named) {
            let is_anonymous = questions.len() % ANONYMOUS_EVERY == ANONYMOUS_EVERY - 1;
            let subject = if is_anonymous { Subject::Anonymous } else { choose(named, &others, &mut random) };
            questions.push(Question { subject, permission: *permission, resource: (*resource).clone() });
        }
    }
    Ok(Sample { questions, missing })
}

/// `count` permissions, each with a resource. The permissions of one type share one position in its resources, so that no
/// resource comes up again before all have.
fn take_turns<'a>(turns: &[Turns<'a>], count: usize) -> Vec<(PermissionId, &'a Resource)> {
    let mut positions: HashMap<ResourceTypeId, usize> = HashMap::new();
    let asked = turns.iter().cycle().take(count).filter_map(|Turns { permission, resources }| {
        let position = positions.entry(resources.first()?.kind).or_default();
        let resource = resources.get(*position % resources.len())?;
        *position += 1;
        Some((*permission, resource))
    });
    asked.collect()
}

/// Subjects of every type that has documents and is not secret.
async fn others(schema: &Schema, source: &MongoDb, count: usize, random: &mut Rng) -> Result<Vec<Known>, SourceError> {
    let mut others = Vec::new();
    for (kind, subject) in schema.subjects().filter(|(_, subject)| !subject.secret) {
        let lookup = subject.gate.and_then(|gate| schema.relation(gate).lookup());
        let Some(lookup) = lookup else { continue };
        let ids = source.sample(lookup, None, count.min(DRAWN_MAX), random).await?;
        others.extend(ids.into_iter().filter(|id| has_form(id, subject.id)).map(|id| (kind, id)));
    }
    Ok(others)
}

/// The resources to which subjects lead by relations of their own: at most [`MEMBERS_MAX`] of them, and at most
/// [`NAMED_MAX`] subjects of each.
async fn members(schema: &Schema, source: &MongoDb, subjects: &[Known]) -> Result<Members, SourceError> {
    let at = source.probe(Deadline::after(LOAD_TIME)).await?;
    let mut members = Members::new();
    for chunk in subjects.chunks(CHUNK) {
        let keys: BTreeSet<FactKey> = chunk.iter().flat_map(|(kind, id)| keys_of_subject(schema, *kind, id)).collect();
        let loaded = source.load(keys.into_iter().collect(), &[], at, Deadline::after(LOAD_TIME)).await;
        let loaded = loaded.into_iter().map(|(key, fact)| fact.map(|fact| (key, fact)));
        let facts = loaded.collect::<Result<HashMap<FactKey, Fact>, _>>()?;
        for (kind, id) in chunk {
            for relation in schema.subject(*kind).relations.values() {
                let lookup = schema.relation(*relation).lookup();
                let fact = lookup.and_then(|lookup| facts.get(&FactKey::whole(lookup, id.clone())));
                let leads = fact.into_iter().flat_map(|fact| fact.grants(*relation));
                for (target, resource) in leads.filter_map(|grant| lead(schema, grant)) {
                    let Target::Resource(end) = target else { continue };
                    let is_full = members.len() >= MEMBERS_MAX;
                    match members.entry((end, resource)) {
                        Entry::Occupied(mut known) if known.get().len() < NAMED_MAX => {
                            known.get_mut().insert((*kind, id.clone()));
                        }
                        Entry::Vacant(place) if !is_full => {
                            place.insert(BTreeSet::from([(*kind, id.clone())]));
                        }
                        Entry::Occupied(_) | Entry::Vacant(_) => {}
                    }
                }
            }
        }
    }
    Ok(members)
}

/// The keys of the facts that the relations of a subject are read from.
fn keys_of_subject(schema: &Schema, kind: SubjectTypeId, id: &Id) -> impl Iterator<Item = FactKey> {
    let lookups = schema.subject(kind).relations.values().filter_map(|relation| schema.relation(*relation).lookup());
    lookups.map(|lookup| FactKey::whole(lookup, id.clone()))
}

/// What a grant leads to; none if that is no id.
fn lead(schema: &Schema, grant: &Grant) -> Option<(Target, Id)> {
    match &grant.grantee {
        Grantee::Id(id) => {
            let ids = schema.relation(grant.relation).ids.as_ref()?;
            Some((*ids.targets.get(usize::from(grant.target))?, id.clone()))
        }
        Grantee::Flag | Grantee::Everyone | Grantee::Unreadable | Grantee::Unknown(_) | Grantee::OverLimit => None,
    }
}

/// Chooses the subject of a question: one that the resource names, or any other, with the same chance.
fn choose(named: &BTreeSet<Known>, others: &[Known], random: &mut Rng) -> Subject {
    let is_named = others.is_empty() || !named.is_empty() && random.bool();
    let chosen = if is_named { random.choice(named) } else { random.choice(others) };
    chosen.map_or(Subject::Anonymous, |(kind, id)| Subject::Known { kind: *kind, id: id.clone() })
}

/// For each resource, the subjects that its facts name or that lead to it, and those of the resources and sets it leads to.
async fn named(
    schema: &Schema,
    source: &MongoDb,
    resources: &[&Resource],
    members: &Members,
) -> Result<Vec<BTreeSet<Known>>, SourceError> {
    let at = source.probe(Deadline::after(LOAD_TIME)).await?;
    let mut named = vec![BTreeSet::new(); resources.len()];
    let mut seen: Vec<BTreeSet<(ResourceTypeId, Id)>> = vec![BTreeSet::new(); resources.len()];
    let start = (0..).zip(resources).map(|(place, resource): (usize, _)| (place, (*resource).clone()));
    let mut reached: Vec<(usize, Resource)> = start.collect();
    for _ in 0..STEPS_MAX {
        for (place, resource) in &reached {
            let own = members.get(&(resource.kind, resource.id.clone())).into_iter().flatten();
            named.get_mut(*place).into_iter().for_each(|named| named.extend(own.clone().cloned()));
        }
        let keys: BTreeSet<FactKey> = reached.iter().flat_map(|(_, resource)| keys_of(schema, resource)).collect();
        if keys.is_empty() {
            break;
        }
        let loaded = source.load(keys.into_iter().collect(), &[], at, Deadline::after(LOAD_TIME)).await;
        let loaded = loaded.into_iter().map(|(key, fact)| fact.map(|fact| (key, fact)));
        let facts = loaded.collect::<Result<HashMap<FactKey, Fact>, _>>()?;
        for (place, resource) in std::mem::take(&mut reached) {
            let (Some(named), Some(seen)) = (named.get_mut(place), seen.get_mut(place)) else { continue };
            for (target, id) in leads_of(schema, &resource, &facts) {
                match target {
                    Target::Subject(kind) if named.len() < NAMED_MAX && !schema.subject(kind).secret => {
                        named.insert((kind, id));
                    }
                    Target::Subject(_) => {}
                    Target::Set(kind, _) | Target::Resource(kind) => {
                        if seen.len() < NAMED_MAX && seen.insert((kind, id.clone())) {
                            reached.push((place, Resource { kind, id }));
                        }
                    }
                }
            }
        }
    }
    Ok(named)
}

/// The keys of a resource's facts.
fn keys_of(schema: &Schema, resource: &Resource) -> impl Iterator<Item = FactKey> {
    FactKey::of_resource(schema, resource)
}

/// The subjects, sets and resources that the facts of a resource lead to.
fn leads_of(schema: &Schema, resource: &Resource, facts: &HashMap<FactKey, Fact>) -> Vec<(Target, Id)> {
    let keys: BTreeSet<FactKey> = keys_of(schema, resource).collect();
    let mut leads = Vec::new();
    for (key, fact) in keys.iter().filter_map(|key| Some((key, facts.get(key)?))) {
        let relations = schema.lookup(key.lookup).relations.iter();
        for relation in relations.filter(|relation| schema.relation(**relation).owner == Owner::Resource(resource.kind))
        {
            leads.extend(fact.grants(*relation).filter_map(|grant| lead(schema, grant)));
        }
    }
    leads
}

/// Whether a request can name an id. A document may have an `_id` of another form than its type declares.
fn has_form(id: &Id, form: IdForm) -> bool {
    let own = match id {
        Id::ObjectId(_) => IdForm::ObjectId,
        Id::Integer(_) => IdForm::Integer,
        Id::Uuid(_) => IdForm::Uuid,
        Id::String(_) => IdForm::String,
        Id::Digest(_) => return false,
    };
    own == form && Id::parse(&id.to_string(), form, false).is_ok()
}
