//! The naive evaluator's own reading of conditions: whether a query of MongoDB finds a document, and whether the values that it
//! looks at have the types that it compares them with.
//!
//! It reads the query as text would be read, and knows only the operators and the values that the generator uses.

use std::cmp::Ordering;

use bson::{Bson, Document};

use super::naive::{End, ends};

/// A test of a field as it stands in a query: an operator and its operand.
type Test<'a> = (&'a str, &'a Bson);

/// Whether mongod finds the document.
pub fn matches(query: &Document, document: &Document) -> bool {
    query.iter().all(|(key, value)| match key.as_str() {
        "$and" => queries(value).all(|side| matches(side, document)),
        "$or" => queries(value).any(|side| matches(side, document)),
        "$expr" => {
            let (operator, [left, right]) = compared(value);
            let order = order(projected(document, left).as_ref(), projected(document, right).as_ref());
            is_ordered(operator, order)
        }
        path => tests(value).all(|test| holds(test, &found(document, path), true)),
    })
}

/// Whether every value that the query looks at has the type of what it is compared with.
pub fn is_typed(query: &Document, document: &Document) -> bool {
    query.iter().all(|(key, value)| match key.as_str() {
        "$and" | "$or" => queries(value).all(|side| is_typed(side, document)),
        "$expr" => {
            let (_, paths) = compared(value);
            let kinds = paths.map(|path| kind(projected(document, path).as_ref().unwrap_or(&Bson::Null)));
            let is_blocked = |path| ends(document, path).iter().any(|end| matches!(end, End::Blocked));
            (kinds[0] == kinds[1] || kinds.contains(&NOTHING)) && !paths.into_iter().any(is_blocked)
        }
        path => ends(document, path).iter().all(|end| match end {
            End::Missing => true,
            End::Blocked => false,
            End::Value(value @ Bson::Array(items)) => {
                tests(&query[path]).all(|test| items.iter().all(|item| fits(test, item)) && fits_whole(test, value))
            }
            End::Value(value) => tests(&query[path]).all(|test| fits(test, value) && fits_whole(test, value)),
        }),
    })
}

fn queries(sides: &Bson) -> impl Iterator<Item = &Document> {
    sides.as_array().expect("a list of queries").iter().map(|side| side.as_document().expect("a query"))
}

fn tests(value: &Bson) -> impl Iterator<Item = Test<'_>> {
    value.as_document().expect("tests").iter().map(|(operator, operand)| (operator.as_str(), operand))
}

fn list(operand: &Bson) -> &[Bson] {
    operand.as_array().expect("a list of operands")
}

/// The operator of an `$expr` and the two fields that it compares.
fn compared(value: &Bson) -> (&str, [&str; 2]) {
    let (operator, fields) = tests(value).next().expect("a comparison");
    let field = |at: usize| list(fields)[at].as_str().and_then(|field| field.strip_prefix('$')).expect("a field");
    (operator, [field(0), field(1)])
}

/// The values at a path, none for a missing one. Of an array on the way, only its documents count.
fn found<'a>(document: &'a Document, path: &str) -> Vec<Option<&'a Bson>> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    match (document.get(first), rest) {
        (Some(Bson::Document(inner)), Some(rest)) => found(inner, rest),
        (Some(Bson::Array(items)), Some(rest)) => {
            items.iter().filter_map(Bson::as_document).flat_map(|inner| found(inner, rest)).collect()
        }
        (value, None) => vec![value],
        (_, Some(_)) => vec![None],
    }
}

/// The value of a path in an expression: of an array on the way, the list of what its documents have there.
fn projected(document: &Document, path: &str) -> Option<Bson> {
    let Some((first, rest)) = path.split_once('.') else { return document.get(path).cloned() };
    match document.get(first)? {
        Bson::Document(inner) => projected(inner, rest),
        Bson::Array(items) => {
            let inner = items.iter().filter_map(Bson::as_document).filter_map(|inner| projected(inner, rest));
            Some(Bson::Array(inner.collect()))
        }
        _ => None,
    }
}

/// Whether a test holds for the values of a field. `is_open` is whether mongod looks into arrays.
fn holds((operator, operand): Test<'_>, values: &[Option<&Bson>], is_open: bool) -> bool {
    let mut each = Vec::new();
    for value in values {
        if let Some(Bson::Array(items)) = value
            && is_open
        {
            each.extend(items.iter().map(Some));
        }
        each.push(*value);
    }
    let is_equal =
        |operand: &Bson| each.iter().any(|value| order(Some(value.unwrap_or(&Bson::Null)), Some(operand)).is_eq());
    let has_element = |query: &Document| {
        let arrays = values.iter().filter_map(|value| value.and_then(Bson::as_array));
        arrays.flatten().any(|item| element_holds(query, item))
    };
    match operator {
        "$eq" => is_equal(operand),
        "$ne" => !is_equal(operand),
        "$in" => list(operand).iter().any(is_equal),
        "$nin" => !list(operand).iter().any(is_equal),
        "$exists" => each.iter().any(Option::is_some) == (*operand == Bson::Boolean(true)),
        "$not" => !tests(operand).all(|test| holds(test, values, is_open)),
        "$all" => list(operand).iter().all(|operand| match operand.as_document() {
            Some(element) => has_element(element.get_document("$elemMatch").expect("an $elemMatch")),
            None => is_equal(operand),
        }),
        "$elemMatch" => has_element(operand.as_document().expect("a query")),
        "$size" => {
            let is_size = |items: &Vec<Bson>| operand.as_i64() == i64::try_from(items.len()).ok();
            values.iter().any(|value| value.and_then(Bson::as_array).is_some_and(is_size))
        }
        "$type" => {
            each.iter().flatten().any(|value| list(operand).iter().any(|name| name.as_str() == Some(name_of(value))))
        }
        "$bitsAllSet" | "$bitsAnySet" | "$bitsAllClear" | "$bitsAnyClear" => {
            let mask = operand.as_i64().expect("a mask");
            let is_set = |bits: i64| match operator {
                "$bitsAllSet" => bits & mask == mask,
                "$bitsAnySet" => bits & mask != 0,
                "$bitsAllClear" => bits & mask == 0,
                _ => bits & mask != mask,
            };
            each.iter().flatten().filter_map(|value| whole(value)).any(is_set)
        }
        _ => {
            let is_it =
                |value: &&Bson| kind(value) == kind(operand) && is_ordered(operator, order(Some(value), Some(operand)));
            each.iter().flatten().any(is_it)
        }
    }
}

/// Whether an `$elemMatch` tests the elements themselves, and not the fields of documents.
fn is_of_values(query: &Document) -> bool {
    query.keys().all(|key| key.starts_with('$') && !["$and", "$or", "$expr"].contains(&key.as_str()))
}

fn element_holds(query: &Document, item: &Bson) -> bool {
    match item {
        _ if is_of_values(query) => query.iter().all(|(name, operand)| holds((name, operand), &[Some(item)], false)),
        Bson::Document(inner) => matches(query, inner),
        // mongod takes an array for a document whose names are positions.
        Bson::Array(_) => matches(query, &Document::new()),
        _ => false,
    }
}

/// Whether a value, or an element of an array, has the type that a test compares it with.
fn fits((operator, operand): Test<'_>, value: &Bson) -> bool {
    let is_one_of = |operands: &[Bson]| {
        let kinds: Vec<_> = operands.iter().map(kind).filter(|kind| *kind != NOTHING).collect();
        kinds.is_empty() || kinds.contains(&kind(value))
    };
    if kind(value) == NOTHING {
        return true;
    }
    match operator {
        "$not" => tests(operand).all(|test| fits(test, value)),
        "$all" if list(operand).iter().any(|operand| operand.as_document().is_some()) => true,
        "$in" | "$nin" | "$all" => is_one_of(list(operand)),
        "$exists" | "$type" | "$size" | "$elemMatch" => true,
        "$bitsAllSet" | "$bitsAnySet" | "$bitsAllClear" | "$bitsAnyClear" => whole(value).is_some(),
        _ => is_one_of(std::slice::from_ref(operand)),
    }
}

/// Whether a value is an array of the right elements, if the test wants an array.
fn fits_whole((operator, operand): Test<'_>, value: &Bson) -> bool {
    let is_array_of = |queries: Vec<&Document>| match value {
        Bson::Array(items) => queries.iter().all(|query| items.iter().all(|item| element_fits(query, item))),
        value => kind(value) == NOTHING,
    };
    match operator {
        "$not" => tests(operand).all(|test| fits_whole(test, value)),
        "$size" => is_array_of(Vec::new()),
        "$elemMatch" => is_array_of(operand.as_document().into_iter().collect()),
        "$all" => {
            let elements = list(operand).iter().filter_map(|one| one.as_document()?.get_document("$elemMatch").ok());
            let elements: Vec<_> = elements.collect();
            elements.is_empty() || is_array_of(elements)
        }
        _ => true,
    }
}

fn element_fits(query: &Document, item: &Bson) -> bool {
    match item {
        _ if is_of_values(query) => query.iter().all(|(name, operand)| {
            let test = (name.as_str(), operand);
            fits(test, item) && fits_whole(test, item)
        }),
        Bson::Document(inner) => is_typed(query, inner),
        _ => kind(item) == NOTHING,
    }
}

const NOTHING: u8 = 1;

/// The place of a value's type in MongoDB's order of types. All numbers are one type.
fn kind(value: &Bson) -> u8 {
    match value {
        Bson::Null => NOTHING,
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) => 2,
        Bson::String(_) => 3,
        Bson::Document(_) => 4,
        Bson::Array(_) => 5,
        Bson::Binary(_) => 6,
        Bson::ObjectId(_) => 7,
        Bson::Boolean(_) => 8,
        Bson::DateTime(_) => 9,
        _ => unreachable!("the generator has no such value: {value}"),
    }
}

/// The name of a value's type in `$type`.
fn name_of(value: &Bson) -> &'static str {
    match value {
        Bson::Int32(_) => "int",
        Bson::Int64(_) => "long",
        Bson::Double(_) => "double",
        Bson::String(_) => "string",
        Bson::Boolean(_) => "bool",
        Bson::Array(_) => "array",
        Bson::Null => "null",
        _ => "another",
    }
}

/// A number without a fraction. The generator's numbers are small.
fn whole(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        Bson::Double(number) if number.fract() == 0.0 => Some(*number as i64),
        _ => None,
    }
}

/// The order of two values, a missing one before all others. The documents that the generator compares are all empty.
fn order(left: Option<&Bson>, right: Option<&Bson>) -> Ordering {
    let (Some(left), Some(right)) = (left, right) else { return left.is_some().cmp(&right.is_some()) };
    let number = |value: &Bson| match value {
        Bson::Double(number) => *number,
        value => f64::from(whole(value).and_then(|number| i32::try_from(number).ok()).expect("a small number")),
    };
    kind(left).cmp(&kind(right)).then_with(|| match (left, right) {
        (Bson::String(left), Bson::String(right)) => left.cmp(right),
        (Bson::Boolean(left), Bson::Boolean(right)) => left.cmp(right),
        (Bson::DateTime(left), Bson::DateTime(right)) => left.cmp(right),
        (Bson::Array(left), Bson::Array(right)) => {
            let pairs = left.iter().zip(right);
            let different = pairs.map(|(left, right)| order(Some(left), Some(right))).find(|order| order.is_ne());
            different.unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        (Bson::Null, _) => Ordering::Equal,
        (Bson::Document(left), Bson::Document(right)) => left.len().cmp(&right.len()),
        (left, right) => number(left).total_cmp(&number(right)),
    })
}

fn is_ordered(operator: &str, order: Ordering) -> bool {
    match operator {
        "$eq" => order.is_eq(),
        "$ne" => order.is_ne(),
        "$gt" => order.is_gt(),
        "$gte" => order.is_ge(),
        "$lt" => order.is_lt(),
        "$lte" => order.is_le(),
        _ => unreachable!("the generator has no such operator: {operator}"),
    }
}
