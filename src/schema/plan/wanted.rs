//! The queries for the documents that relations can use, beside that these have the key of a lookup.
//!
//! A query may find more documents than that, never less: each relation is read from the documents again.

use bson::{Bson, Document, doc};

use crate::schema::{Condition, Relation, Test};

/// The names of all types of values, except those of no value.
const TYPES: [&str; 19] = [
    "double",
    "string",
    "object",
    "array",
    "binData",
    "objectId",
    "bool",
    "date",
    "regex",
    "dbPointer",
    "javascript",
    "symbol",
    "javascriptWithScope",
    "int",
    "timestamp",
    "long",
    "decimal",
    "minKey",
    "maxKey",
];

impl Relation {
    /// The query for the documents that the relation can use; none if it can use all.
    ///
    /// Under a `!`, documents that do not match count if a value has a wrong type. So only those are left out that surely are
    /// another type's.
    pub(crate) fn wanted(&self) -> Option<Document> {
        let condition = if self.each.is_some() { &self.document_condition } else { &self.condition };
        let condition = condition.as_ref()?;
        if !self.negated {
            return Some(condition.to_query());
        }
        if self.foreign.is_empty() {
            return None;
        }
        let own =
            self.foreign.iter().map(|foreign| doc! { foreign.path.as_str(): { "$nin": foreign.values.to_vec() } });
        let mut any = vec![doc! { "$and": own.collect::<Vec<_>>() }];
        wrong_types(condition, &mut any)?;
        // If the key is in an array, what else is in it may belong to another resource, so the document counts.
        for part in self.shared.iter().flat_map(|shared| shared.outer().chain([shared.to_string()])) {
            if part.contains('$') {
                return None;
            }
            any.push(doc! { part: { "$type": "array" } });
        }
        // Of a name that occurs twice, mongod compares the first value only.
        let mut objects = vec!["$$ROOT".to_owned()];
        condition.paths(&mut |path| objects.extend(path.outer().map(|part| format!("${part}"))));
        objects.sort_unstable();
        objects.dedup();
        let repeated: Vec<Bson> = objects.iter().map(|object| repeats(object)).collect();
        any.push(doc! { "$expr": { "$or": repeated } });
        Some(doc! { "$or": any })
    }
}

/// An expression that says whether an object has a name twice.
pub(crate) fn repeats(object: &str) -> Bson {
    let fields = doc! { "$objectToArray": object };
    let names = doc! { "$setUnion": [{ "$map": { "input": fields.clone(), "in": "$$this.k" } }, []] };
    let repeats = doc! { "$ne": [{ "$size": fields }, { "$size": names }] };
    doc! { "$cond": [{ "$eq": [{ "$type": object }, "object"] }, repeats, false] }.into()
}

/// The query for the documents that some of the relations can use; none if one of them can use all.
pub(super) fn wanted<'a>(relations: impl Iterator<Item = &'a Relation>) -> Option<Document> {
    let all: Vec<Document> = relations.map(Relation::wanted).collect::<Option<_>>()?;
    let mut distinct: Vec<Document> = Vec::new();
    for query in all {
        if !distinct.contains(&query) {
            distinct.push(query);
        }
    }
    Some(doc! { "$or": distinct })
}

/// Adds conditions, one of which holds if a value that the condition looks at may have a wrong type. None if no condition tells.
fn wrong_types(condition: &Condition, any: &mut Vec<Document>) -> Option<()> {
    match condition {
        Condition::And(all) | Condition::Or(all) => all.iter().try_for_each(|condition| wrong_types(condition, any)),
        Condition::Field(path, test) => {
            let types = types(test)?;
            if path.as_str().contains('$') {
                return None;
            }
            any.extend(path.outer().map(|part| of_other_types(&part, &["object"])));
            // An array may have the constants of several types.
            any.push(match &*types {
                [] => doc! { path.as_str(): { "$type": "array" } },
                types => of_other_types(path.as_str(), types),
            });
            Some(())
        }
        Condition::Expr(..) => None,
    }
}

/// The types of values that a test compares with; all if it is empty. None if they have no names.
fn types(test: &Test) -> Option<Vec<&'static str>> {
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
            Bson::String(_) => &["string"],
            Bson::Boolean(_) => &["bool"],
            Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => {
                &["int", "long", "double", "decimal"]
            }
            Bson::DateTime(_) => &["date"],
            Bson::ObjectId(_) => &["objectId"],
            _ => return None,
        });
    }
    Some(types)
}

/// Whether there is a value of a type that is none of these. What is in an array is not looked at.
fn of_other_types(path: &str, types: &[&str]) -> Document {
    let others: Vec<&str> = TYPES.into_iter().filter(|name| !types.contains(name)).collect();
    doc! { path: { "$type": others } }
}
