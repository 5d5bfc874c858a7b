//! The documents that relations can use, beside that these have the key of a lookup.
//!
//! More documents may be wanted than relations can use, never fewer: each relation is read from the documents again.

use bson::{Bson, Document, doc, spec::ElementType};

use crate::schema::{
    Condition, Path, Relation, Test,
    types::{NUMBERS, value_types_except},
};

/// Which documents relations can use.
#[derive(Clone, Debug)]
pub struct Wanted {
    condition: Condition,
    /// Objects in which no name may occur twice, as MongoDB's expressions. If one does, the document is wanted, as mongod compares
    /// the first value only.
    objects: Vec<String>,
    query: Document,
}

impl Wanted {
    fn new(condition: Condition, objects: Vec<String>) -> Self {
        let mut any = vec![condition.to_query()];
        if !objects.is_empty() {
            let repeated: Vec<Bson> = objects.iter().map(|object| repeats(object)).collect();
            any.push(doc! { "$expr": { "$or": repeated } });
        }
        let query = match any.pop() {
            Some(only) if any.is_empty() => only,
            last => doc! { "$or": any.into_iter().chain(last).collect::<Vec<_>>() },
        };
        Self { condition, objects, query }
    }

    /// Whether the query finds a document. Names that occur twice are [`unreadable`](super::super::unreadable) in it.
    #[must_use]
    pub fn matches(&self, document: &Document) -> bool {
        self.condition.matches(document)
    }

    /// The query for these documents.
    #[must_use]
    pub fn query(&self) -> &Document {
        &self.query
    }
}

impl Relation {
    /// The documents that the relation can use; none if it can use all.
    ///
    /// Dates are never part of the condition, because the clock would make the result outdated. Under a `!`, documents that do not
    /// match count if a value has a wrong type. So only those are left out that surely are another type's.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let condition = self.condition_of_document()?;
        if !self.negated {
            return Some(Wanted::new(condition.clone(), Vec::new()));
        }
        if self.foreign.is_empty() {
            return None;
        }
        let own = self
            .foreign
            .iter()
            .map(|foreign| Condition::Field(foreign.path.clone(), Test::Nin(foreign.values.to_vec())));
        let mut any = vec![Condition::And(own.collect())];
        wrong_types(condition, &mut any)?;
        // If the key is in an array, what else is in it may belong to another resource, so the document counts.
        for part in self.shared.iter().flat_map(|shared| shared.outer().chain([shared.to_string()])) {
            any.push(of_types(path(&part)?, vec![ElementType::Array]));
        }
        let mut objects = vec!["$$ROOT".to_owned()];
        condition.paths(&mut |path| objects.extend(path.outer().map(|part| format!("${part}"))));
        objects.sort_unstable();
        objects.dedup();
        Some(Wanted::new(Condition::Or(any), objects))
    }
}

/// An expression that says whether an object has a name twice.
pub(crate) fn repeats(object: &str) -> Bson {
    let fields = doc! { "$objectToArray": object };
    let names = doc! { "$setUnion": [{ "$map": { "input": fields.clone(), "in": "$$this.k" } }, []] };
    let repeats = doc! { "$ne": [{ "$size": fields }, { "$size": names }] };
    doc! { "$cond": [{ "$eq": [{ "$type": object }, "object"] }, repeats, false] }.into()
}

/// The documents that some of the relations can use; none if one of them can use all.
pub(super) fn wanted<'a>(relations: impl Iterator<Item = &'a Relation>) -> Option<Wanted> {
    let (mut conditions, mut objects): (Vec<Condition>, Vec<String>) = (Vec::new(), Vec::new());
    for relation in relations {
        let wanted = relation.wanted()?;
        if !conditions.contains(&wanted.condition) {
            conditions.push(wanted.condition);
        }
        objects.extend(wanted.objects);
    }
    objects.sort_unstable();
    objects.dedup();
    Some(Wanted::new(Condition::Or(conditions), objects))
}

/// Adds conditions, one of which holds if a value that the condition looks at may have a wrong type. None if no condition tells.
fn wrong_types(condition: &Condition, any: &mut Vec<Condition>) -> Option<()> {
    match condition {
        Condition::And(all) | Condition::Or(all) => all.iter().try_for_each(|condition| wrong_types(condition, any)),
        Condition::Field(field, test) => {
            let types = types(test)?;
            for part in field.outer() {
                any.push(of_other_types(path(&part)?, &[ElementType::EmbeddedDocument]));
            }
            let field = path(field.as_str())?;
            // An array may have the constants of several types.
            any.push(match &*types {
                [] => of_types(field, vec![ElementType::Array]),
                types => of_other_types(field, types),
            });
            Some(())
        }
        Condition::Expr(..) => None,
    }
}

/// A path; none if no expression can name it.
fn path(text: &str) -> Option<Path> {
    Path::parse(text).ok().filter(|path| !path.as_str().contains('$'))
}

/// The types of values that a test compares with; all if it is empty. None if they have no names.
fn types(test: &Test) -> Option<Vec<ElementType>> {
    let operands = if let Test::Eq(operand) | Test::Ne(operand) = test {
        std::slice::from_ref(operand)
    } else if let Test::In(operands) | Test::Nin(operands) = test {
        operands
    } else {
        return None;
    };
    let mut types = Vec::new();
    for operand in operands {
        types.extend_from_slice(match operand {
            Bson::Null => &[],
            Bson::String(_) => &[ElementType::String],
            Bson::Boolean(_) => &[ElementType::Boolean],
            Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => &NUMBERS,
            Bson::DateTime(_) => &[ElementType::DateTime],
            Bson::ObjectId(_) => &[ElementType::ObjectId],
            _ => return None,
        });
    }
    Some(types)
}

/// Whether there is a value of a type that is none of these. What is in an array is not looked at.
fn of_other_types(path: Path, types: &[ElementType]) -> Condition {
    of_types(path, value_types_except(types).collect())
}

/// Whether there is a value of one of these types.
fn of_types(path: Path, types: Vec<ElementType>) -> Condition {
    Condition::Field(path, Test::Type(types))
}
