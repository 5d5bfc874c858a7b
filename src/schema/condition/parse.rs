//! Parses the text of a condition into a [`Condition`]. It reports every error with its place.
//!
//! Evaluates nothing.

mod arrays;
mod kinds;
mod operand;

use bson::{Bson, doc};

use super::{BitTest, Comparison, Condition, Test};
use crate::schema::{
    error::{SchemaError, Span, listed, suggestion},
    node::{self, Entry, Node, Value},
    path::{Path, VARIABLES_HELP, is_dbref, is_field},
};

/// The maximal depth of nested conditions.
const DEPTH_MAX: usize = 16;

/// The operators of a field.
const FIELD_OPERATORS: [&str; 18] = [
    "$eq",
    "$ne",
    "$in",
    "$nin",
    "$exists",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$not",
    "$all",
    "$elemMatch",
    "$size",
    "$bitsAllSet",
    "$bitsAnySet",
    "$bitsAllClear",
    "$bitsAnyClear",
    "$type",
];

/// The operators of a whole condition.
const TOP_OPERATORS: [&str; 3] = ["$and", "$or", "$expr"];

/// Other operators of MongoDB. They are not misspelt, so their error suggests no similar name.
const UNSUPPORTED: [&str; 20] = [
    "$nor",
    "$regex",
    "$options",
    "$mod",
    "$text",
    "$where",
    "$jsonSchema",
    "$geoWithin",
    "$comment",
    "$any",
    "$none",
    "$one",
    "$some",
    "$like",
    "$near",
    "$nearSphere",
    "$geoIntersects",
    "$contains",
    "$startsWith",
    "$endsWith",
];

/// Operators of other languages, each with the one of MongoDB that means the same.
const RENAMED: [(&str, &str); 6] =
    [("$ge", "$gte"), ("$geq", "$gte"), ("$gteq", "$gte"), ("$le", "$lte"), ("$leq", "$lte"), ("$lteq", "$lte")];

/// Words that are the names of operators without the `$`, and more likely meant as such than as a field.
const BARE: [&str; 4] = ["and", "or", "nor", "not"];

/// The help for `$nor`.
const NOR_HELP: &str =
    "use `$and` with the opposites (`$ne` for `$eq`, else `$not`), and `$or` within an alternative of several fields";

/// Names of values in Extended JSON.
const JSON_TYPES: [&str; 8] =
    ["$oid", "$date", "$uuid", "$binary", "$numberInt", "$numberLong", "$numberDouble", "$numberDecimal"];

/// Parses a condition: a table, or a string of Extended JSON. `source` is the schema's text. Returns none if it adds an
/// error to `errors`.
pub(crate) fn parse(source: &str, node: &Node, errors: &mut Vec<SchemaError>) -> Option<Condition> {
    let before = errors.len();
    let condition = match node.as_text() {
        None => Parser { errors, is_json: false, is_element: false }.condition(node, 0),
        Some(text) => match extended_json(source, &node.span, text) {
            Ok(node) => Parser { errors, is_json: true, is_element: false }.condition(&node, 0),
            Err(error) => {
                errors.push(error);
                return None;
            }
        },
    };
    condition.filter(|_| errors.len() == before)
}

/// As [`parse`], for a text of Extended JSON that is no part of a schema.
pub(super) fn parse_json(text: &str, errors: &mut Vec<SchemaError>) -> Option<Condition> {
    let before = errors.len();
    let condition = match node::from_extended_json(text, &(0..text.len()), text) {
        Ok(node) => Parser { errors, is_json: true, is_element: false }.condition(&node, 0),
        Err(error) => {
            errors.push(error);
            return None;
        }
    };
    condition.filter(|_| errors.len() == before)
}

fn extended_json(source: &str, span: &Span, text: &str) -> Result<Node, SchemaError> {
    if text.trim_start().starts_with(['{', '[']) {
        return node::from_extended_json(source, span, text);
    }
    let field = if is_field(text) { text } else { "is_deleted" };
    let json = format!("{{\"{field}\": true}}");
    let help = format!("for example: {}, or '{json}'", as_toml(&format!("{{ \"{field}\": true }}")));
    Err(SchemaError::new(span, "a condition must be a table or a string of Extended JSON").help(help))
}

/// The operator that an unknown one negates by its name, as `$notExists` does `$exists`, however it is spelt. It is never what is
/// meant.
fn negated<'a>(name: &str, valid: &[&'a str]) -> Option<&'a str> {
    const PREFIXES: [&str; 4] = ["$not", "$no", "$n", "$x"];
    let name = name.to_lowercase();
    // How many letters differ, if few do: `ge` for `gte` counts as the same.
    let distance = |operator: &str, rest: &str| {
        let operator = operator.trim_start_matches('$').to_lowercase();
        let distance = match (rest, &*operator) {
            ("ge", "gte") | ("le", "lte") => 0,
            _ => strsim::damerau_levenshtein(rest, &operator),
        };
        (!operator.starts_with('n') && distance <= usize::from(rest.len() > 2)).then_some(distance)
    };
    let rests = PREFIXES.into_iter().filter_map(|prefix| name.strip_prefix(prefix));
    let rests = rests.map(|rest| rest.trim_start_matches(['_', '$']));
    let near =
        rests.flat_map(|rest| valid.iter().filter_map(move |operator| Some((distance(operator, rest)?, *operator))));
    near.min_by_key(|(distance, _)| *distance).map(|(_, operator)| operator)
}

/// Whether a value is a condition or a list of conditions, and no test of a field.
fn is_nested(node: &Node) -> bool {
    match &node.value {
        Value::Table(entries) => entries.first().is_some_and(|entry| !entry.name.starts_with('$')),
        Value::List(items) => items.iter().any(|item| matches!(item.value, Value::Table(_))),
        Value::Scalar(_) => false,
    }
}

/// The help for an unknown operator. Operators are short, so that many a word is near to one that means something else.
fn meant(name: &str, valid: &[&str]) -> String {
    let lower = name.to_lowercase();
    if let Some((_, meant)) = RENAMED.iter().find(|(other, meant)| *other == lower && valid.contains(meant)) {
        return format!("did you mean `{meant}`?");
    }
    let distance_max = (lower.len() / 5).max(1);
    let is_near = |operator: &&str| strsim::damerau_levenshtein(&lower, &operator.to_lowercase()) <= distance_max;
    let near: Vec<&str> = valid.iter().copied().filter(is_near).collect();
    let suggested = suggestion(name, near).filter(|text| text.starts_with("did you mean"));
    suggested.unwrap_or_else(|| {
        let mut all = valid.to_vec();
        all.sort_unstable();
        format!("the choices are {}", listed(&all))
    })
}

struct Parser<'a> {
    errors: &'a mut Vec<SchemaError>,
    is_json: bool,
    /// Whether the condition is about an element of an array, within `$elemMatch`.
    is_element: bool,
}

impl Parser<'_> {
    fn wrong<T>(&mut self, error: SchemaError) -> Option<T> {
        self.errors.push(error);
        None
    }

    fn too_deep<T>(&mut self, span: &Span) -> Option<T> {
        self.wrong(SchemaError::new(span, format!("conditions nest deeper than {DEPTH_MAX}")))
    }

    /// An example, converted from JSON to the language in which the condition is written.
    fn example(&self, json: &str) -> String {
        if self.is_json { json.to_owned() } else { as_toml(json) }
    }

    fn condition(&mut self, node: &Node, depth: usize) -> Option<Condition> {
        let Value::Table(entries) = &node.value else {
            let help = format!("for example: {}", self.example("{ \"is_deleted\": true }"));
            let message = format!("a condition must be a table, not {}", node.describe());
            return self.wrong(SchemaError::new(&node.span, message).help(help));
        };
        if depth > DEPTH_MAX {
            return self.too_deep(&node.span);
        }
        let all: Vec<Condition> = entries.iter().filter_map(|entry| self.entry(entry, depth)).collect();
        Some(one_or(all, Condition::And))
    }

    fn entry(&mut self, entry: &Entry, depth: usize) -> Option<Condition> {
        match entry.name.as_str() {
            "$and" => Some(one_or(self.conditions(entry, depth)?, Condition::And)),
            "$or" => Some(Condition::Or(self.conditions(entry, depth)?)),
            "$expr" if self.is_element => {
                let help = "use a relation with `each`, whose `where` can compare two fields of one element; in place of a \
                            `$not`, write `!` before that relation";
                self.wrong(SchemaError::new(&entry.span, "`$expr` cannot stand inside `$elemMatch`").help(help))
            }
            "$expr" => self.expr(entry),
            name if FIELD_OPERATORS.contains(&name) => {
                let operand = match name {
                    "$in" | "$nin" | "$all" => "[1, 2]",
                    "$exists" => "true",
                    "$not" | "$elemMatch" => "{ \"$lt\": 1 }",
                    "$type" => "\"number\"",
                    _ => "1",
                };
                let example = self.example(&format!("{{ \"size\": {{ \"{name}\": {operand} }} }}"));
                let message = format!("`{name}` belongs inside a field");
                self.wrong(SchemaError::new(&entry.span, message).help(format!("for example: {example}")))
            }
            name if name.starts_with('$') => self.unknown(entry, "in a condition", &TOP_OPERATORS),
            _ => self.field(entry, depth),
        }
    }

    fn unknown<T>(&mut self, operator: &Entry, place: &str, valid: &[&str]) -> Option<T> {
        let name = operator.name.as_str();
        if JSON_TYPES.contains(&name) && !self.is_json {
            let message = format!("`{name}` is Extended JSON, which a table cannot contain");
            let help = match name {
                "$date" => "write a date without quotes: 2026-01-31T12:00:00Z",
                _ => {
                    "write the whole condition as a string, for example: where = '{\"org\": {\"$oid\": \"65f000000000000000000001\"}}'"
                }
            };
            return self.wrong(SchemaError::new(&operator.span, message).help(help));
        }
        let choices = || format!("the choices are {}", listed(valid));
        if !UNSUPPORTED.contains(&name) {
            let error = SchemaError::new(&operator.span, format!("unknown operator `{name}` {place}"));
            return self.wrong(match negated(name, valid) {
                None => error.help(meant(name, valid)),
                Some("$eq") => error.help("did you mean `$ne`?"),
                Some("$in") => error.help("did you mean `$nin`?"),
                Some(other) if valid.contains(&"$not") => {
                    error.help(format!("for the opposite of `{other}`, write it inside `$not`"))
                }
                Some(_) => error.help(choices()),
            });
        }
        let help = match name {
            "$nor" => NOR_HELP.to_owned(),
            _ => choices(),
        };
        self.wrong(SchemaError::new(&operator.span, format!("`{name}` is not supported {place}")).help(help))
    }

    fn conditions(&mut self, entry: &Entry, depth: usize) -> Option<Vec<Condition>> {
        let name = &entry.name;
        let message = match &entry.node.value {
            Value::List(items) if !items.is_empty() => {
                return Some(items.iter().filter_map(|item| self.condition(item, depth + 1)).collect());
            }
            Value::List(_) => format!("`{name}` lists no condition"),
            Value::Table(_) | Value::Scalar(_) => {
                format!("`{name}` expects a list of conditions, not {}", entry.node.describe())
            }
        };
        let example = self.example("[{ \"kind\": \"note\" }, { \"kind\": \"file\" }]");
        self.wrong(SchemaError::new(&entry.node.span, message).help(format!("for example: {example}")))
    }

    fn expr(&mut self, entry: &Entry) -> Option<Condition> {
        let node = &entry.node;
        let Value::Table(entries) = &node.value else {
            return self.not_a_comparison(node);
        };
        let [operator] = entries.as_slice() else {
            return self.not_a_comparison(node);
        };
        let Some(comparison) = Comparison::named(&operator.name) else {
            let message = format!("unknown comparison `{}` in `$expr`", operator.name);
            let names = Comparison::ALL.map(Comparison::as_str);
            return self.wrong(SchemaError::new(&operator.span, message).suggesting(&operator.name, names));
        };
        let Value::List(sides) = &operator.node.value else {
            return self.not_a_comparison(&operator.node);
        };
        let [left, right] = sides.as_slice() else {
            return self.not_a_comparison(&operator.node);
        };
        let plain = match (&left.value, &right.value) {
            (Value::Scalar(Bson::String(field)), Value::Scalar(value)) => self.plain(field, comparison, value),
            (Value::Scalar(value), Value::Scalar(Bson::String(field))) => {
                self.plain(field, comparison.flipped(), value)
            }
            _ => None,
        };
        match (self.field_reference(left, plain.as_deref()), self.field_reference(right, plain.as_deref())) {
            (Some(left), Some(right)) => Some(Condition::Expr(comparison, left, right)),
            _ => None,
        }
    }

    fn not_a_comparison<T>(&mut self, node: &Node) -> Option<T> {
        let example = self.example("\"$expr\": { \"$lt\": [\"$use_count\", \"$max_uses\"] }");
        let error = SchemaError::new(&node.span, "`$expr` expects one comparison of two fields");
        self.wrong(error.help(format!("for example: {example}")))
    }

    /// A comparison of a field with a value, written without `$expr`. It means the same: in `$expr` a missing field is less
    /// than every value.
    fn plain(&self, field: &str, comparison: Comparison, value: &Bson) -> Option<String> {
        let field = field.strip_prefix('$').filter(|field| Path::parse(field).is_ok() && *value != Bson::Null)?;
        if value.as_str().is_some_and(|text| text.starts_with('$')) {
            return None;
        }
        let operator = comparison.as_str();
        if matches!(comparison, Comparison::Lt | Comparison::Lte) {
            let json = doc! { "$or": [{ field: { operator: value } }, { field: null }] };
            let json = Bson::from(json).into_relaxed_extjson();
            return Some(if self.is_json { json.to_string() } else { format!("'{json}'") });
        }
        let value = self.literal(value)?;
        Some(match comparison {
            Comparison::Eq => self.example(&format!("{{ \"{field}\": {value} }}")),
            Comparison::Ne | Comparison::Gt | Comparison::Gte | Comparison::Lt | Comparison::Lte => {
                self.example(&format!("{{ \"{field}\": {{ \"{operator}\": {value} }} }}"))
            }
        })
    }

    /// Reads a side of a comparison of two fields. `plain` is the comparison without `$expr`, if one side is a value.
    fn field_reference(&mut self, node: &Node, plain: Option<&str>) -> Option<Path> {
        let without = || match plain {
            Some(plain) => {
                format!("to compare a field with a value, omit `$expr`, which looks at no elements of arrays: {plain}")
            }
            None => "to compare a field with a value, omit `$expr`, which looks at no elements of arrays".to_owned(),
        };
        let Some(text) = node.as_text() else {
            let message = format!("`$expr` compares two fields, not {}", node.describe());
            return self.wrong(SchemaError::new(&node.span, message).help(without()));
        };
        let Some(name) = text.strip_prefix('$') else {
            let message = format!("`$expr` compares two fields, which begin with `$`, but `{text}` is a text");
            return self.wrong(SchemaError::new(&node.span, message).help(without()));
        };
        if name.starts_with('$') {
            let error = SchemaError::new(&node.span, format!("`{text}` is a variable, not a field"));
            return self.wrong(error.help(VARIABLES_HELP));
        }
        Path::read(name, &node.span).map_or_else(|error| self.wrong(error), Some)
    }

    fn field(&mut self, entry: &Entry, depth: usize) -> Option<Condition> {
        let path = match Path::read(&entry.name, &entry.span) {
            Ok(path) => path,
            Err(error) => return self.wrong(error),
        };
        if BARE.contains(&entry.name.to_lowercase().as_str()) && is_nested(&entry.node) {
            return self.bare(entry);
        }
        let tests = match &entry.node.value {
            Value::Table(operators) => self.tests(&entry.name, &entry.node.span, operators, depth)?,
            Value::List(_) | Value::Scalar(_) => vec![Test::Eq(self.operand(None, &entry.node)?)],
        };
        let all = tests.into_iter().map(|test| Condition::Field(path.clone(), test)).collect();
        Some(one_or(all, Condition::And))
    }

    /// Reports the name of an operator that lacks its `$`.
    fn bare<T>(&mut self, entry: &Entry) -> Option<T> {
        let name = entry.name.to_lowercase();
        let help = match &*name {
            "nor" => NOR_HELP.to_owned(),
            "not" => {
                format!(
                    "`$not` belongs inside a field, for example: {}",
                    self.example("{ \"size\": { \"$not\": { \"$lt\": 1 } } }")
                )
            }
            name => format!("operators begin with `$`: \"${name}\""),
        };
        let message = format!("`{}` is a field here, which cannot be compared with conditions", entry.name);
        self.wrong(SchemaError::new(&entry.span, message).help(help))
    }

    fn tests(&mut self, field: &str, span: &Span, operators: &[Entry], depth: usize) -> Option<Vec<Test>> {
        if depth > DEPTH_MAX {
            return self.too_deep(span);
        }
        if operators.is_empty() {
            let help = format!("write a value, or a test such as {}", self.example("{ \"$exists\": true }"));
            return self
                .wrong(SchemaError::new(span, format!("the field `{field}` is compared with nothing")).help(help));
        }
        if let Some(inner) = operators.iter().find(|operator| !operator.name.starts_with('$')) {
            let message = format!("the field `{field}` is compared with a document, which is not supported");
            let path = format!("\"{field}.{}\"", inner.name);
            let operator = format!("${}", inner.name);
            let help = if FIELD_OPERATORS.contains(&operator.as_str()) {
                format!(
                    "operators begin with `$`: \"{operator}\"; to test an inner field, write its path in quotes: {path}"
                )
            } else if operators.len() == 1 {
                format!("to test an inner field, write its path in quotes: {path}")
            } else {
                let one = self.example(&format!("{{ \"$elemMatch\": {{ \"{}\": …, … }} }}", inner.name));
                format!(
                    "for one element of an array that fulfils all of this: {one}; for a document, write each path in \
                     quotes, as {path}"
                )
            };
            return self.wrong(SchemaError::new(&inner.span, message).help(help));
        }
        Some(operators.iter().filter_map(|operator| self.test(field, operator, depth)).collect())
    }

    fn test(&mut self, field: &str, operator: &Entry, depth: usize) -> Option<Test> {
        let node = &operator.node;
        match operator.name.as_str() {
            "$eq" => Some(Test::Eq(self.operand(Some("$eq"), node)?)),
            "$ne" => Some(Test::Ne(self.operand(Some("$ne"), node)?)),
            "$in" => Some(Test::In(self.operands("$in", node)?)),
            "$nin" => Some(Test::Nin(self.operands("$nin", node)?)),
            "$exists" => match node.value {
                Value::Scalar(Bson::Boolean(wanted)) => Some(Test::Exists(wanted)),
                Value::Scalar(_) | Value::List(_) | Value::Table(_) => self.wrong(SchemaError::new(
                    &node.span,
                    format!("`$exists` expects true or false, not {}", node.describe()),
                )),
            },
            "$not" => match &node.value {
                Value::Table(operators) => Some(Test::Not(self.tests(field, &node.span, operators, depth + 1)?)),
                Value::List(_) | Value::Scalar(_) => {
                    let message = format!("`$not` expects a table of operators, not {}", node.describe());
                    self.wrong(SchemaError::new(&node.span, message).help("for a value use `$ne`, for a list `$nin`"))
                }
            },
            "$all" => self.all(field, node, depth),
            "$elemMatch" => Some(Test::Element(self.element(field, node, depth)?)),
            "$size" => Some(Test::Size(self.size(node)?)),
            "$type" => Some(Test::Type(self.types(node)?)),
            name if TOP_OPERATORS.contains(&name) => {
                let message = format!("`{name}` belongs outside of a field");
                let error = SchemaError::new(&operator.span, message);
                if name == "$expr" {
                    return self.wrong(error.help("write it beside the fields: it names its own two"));
                }
                let example = self.example(&format!("{{ \"{name}\": [{{ \"{field}\": 1 }}, {{ \"{field}\": 2 }}] }}"));
                self.wrong(error.help(format!("for example: {example}")))
            }
            name if is_dbref(name) => {
                let message = format!("`{name}` is the name of a field, not an operator");
                let help = format!(
                    "to test this field alone, compare \"{field}.{name}\" in place of \"{field}\", without `$elemMatch`"
                );
                self.wrong(SchemaError::new(&operator.span, message).help(help))
            }
            name => match (Comparison::named(name), BitTest::named(name)) {
                (Some(comparison), _) => Some(Test::Compare(comparison, self.ordered(name, node)?)),
                (None, Some(test)) => Some(Test::Bits(test, self.mask(name, node)?)),
                (None, None) => self.unknown(operator, "for a field", &FIELD_OPERATORS),
            },
        }
    }
}

/// Converts JSON to TOML. Keys are in quotes only if TOML requires it.
fn as_toml(json: &str) -> String {
    let mut toml = String::new();
    let mut rest = json;
    while let Some((before, after)) = rest.split_once("\": ") {
        let (start, key) = before.rsplit_once('"').unwrap_or((before, ""));
        let is_bare = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let quote = if is_bare { "" } else { "\"" };
        toml.extend([start, quote, key, quote, " = "]);
        rest = after;
    }
    toml + rest
}

/// The only condition, or all conditions joined.
fn one_or(mut all: Vec<Condition>, join: impl FnOnce(Vec<Condition>) -> Condition) -> Condition {
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => only,
        (Some(last), false) => {
            all.push(last);
            join(all)
        }
        (None, _) => join(all),
    }
}
