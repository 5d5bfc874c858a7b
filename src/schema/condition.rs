//! Conditions on documents: the useful few of MongoDB's query operators, pushed down into queries and evaluated the same
//! in process.
//!
//! Matching is mongod's. Whether the values that were compared have the right types is a second question ([`Condition::is_typed`]).
//! Operands are plain values; documents and arrays as operands are not supported.

use std::cmp::Ordering;

use bson::{Bson, Document, doc, spec::BinarySubtype};

use super::{
    mistake::{Mistake, Span},
    node::{Entry, Node, Value},
    order::{Class, compare, is_nan},
    path::{End, Path},
};

/// How deep conditions nest at most.
const DEPTH_MAX: usize = 16;

/// The operators of a field.
const FIELD_OPERATORS: [&str; 10] =
    ["$eq", "$ne", "$in", "$nin", "$exists", "$gt", "$gte", "$lt", "$lte", "$not"];

/// The operators of a whole condition.
const TOP_OPERATORS: [&str; 3] = ["$and", "$or", "$expr"];

/// A condition on a document, or on an element of an array of documents.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// All of them hold.
    And(Vec<Condition>),
    /// One of them holds.
    Or(Vec<Condition>),
    /// A test of what stands at a path.
    Field(Path, Test),
    /// A comparison of two fields, as aggregation compares (`$expr`).
    Expr(Comparison, Path, Path),
}

/// A test of what stands at a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Equal to a value; null is equal to missing.
    Eq(Bson),
    /// Not [`Test::Eq`].
    Ne(Bson),
    /// Equal to one of the values.
    In(Vec<Bson>),
    /// Not [`Test::In`].
    Nin(Vec<Bson>),
    /// There or not, null being there.
    Exists(bool),
    /// Less or greater, among values of the operand's type.
    Compare(Comparison, Bson),
    /// None, or not all, of these hold.
    Not(Vec<Test>),
}

/// A comparison of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `$eq`
    Eq,
    /// `$ne`
    Ne,
    /// `$gt`
    Gt,
    /// `$gte`
    Gte,
    /// `$lt`
    Lt,
    /// `$lte`
    Lte,
}

impl Comparison {
    const ALL: [Self; 6] = [Self::Eq, Self::Ne, Self::Gt, Self::Gte, Self::Lt, Self::Lte];

    /// The operator as MongoDB writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "$eq",
            Self::Ne => "$ne",
            Self::Gt => "$gt",
            Self::Gte => "$gte",
            Self::Lt => "$lt",
            Self::Lte => "$lte",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|comparison| comparison.as_str() == name)
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Eq => order.is_eq(),
            Self::Ne => order.is_ne(),
            Self::Gt => order.is_gt(),
            Self::Gte => order.is_ge(),
            Self::Lt => order.is_lt(),
            Self::Lte => order.is_le(),
        }
    }
}

impl Condition {
    /// Whether mongod would find the document with this condition.
    #[must_use]
    pub fn matches(&self, document: &Document) -> bool {
        match self {
            Self::And(all) => all.iter().all(|condition| condition.matches(document)),
            Self::Or(any) => any.iter().any(|condition| condition.matches(document)),
            Self::Field(path, test) => test.matches(path, document),
            Self::Expr(comparison, left, right) => {
                let value = |path: &Path| path.project(document).unwrap_or(Bson::Undefined);
                comparison.holds(compare(&value(left), &value(right)))
            }
        }
    }

    /// Whether every value that the condition looks at has the type of what it is compared with. Numbers are one type, an
    /// array is judged by its elements, null and missing are never wrong; what stands in the way of a path is.
    #[must_use]
    pub fn is_typed(&self, document: &Document) -> bool {
        match self {
            Self::And(all) | Self::Or(all) => all.iter().all(|condition| condition.is_typed(document)),
            Self::Field(path, test) => {
                let mut kinds = Vec::new();
                test.kinds(&mut kinds);
                let is_right = |value: &Bson| {
                    Class::of(value).is_nothing() || kinds.is_empty() || kinds.contains(&Kind::of(value))
                };
                ends_all(path, document, |value| match value {
                    Bson::Array(items) => items.iter().all(is_right),
                    value => is_right(value),
                })
            }
            Self::Expr(_, left, right) => {
                let kind = |path: &Path| Kind::of(&path.project(document).unwrap_or(Bson::Null));
                let (l, r) = (kind(left), kind(right));
                let is_one_type = l == r || l.0.is_nothing() || r.0.is_nothing();
                is_one_type && [left, right].into_iter().all(|path| ends_all(path, document, |_| true))
            }
        }
    }

    /// The condition as a query.
    #[must_use]
    pub fn to_query(&self) -> Document {
        let list = |all: &[Self]| all.iter().map(|condition| Bson::Document(condition.to_query())).collect::<Vec<_>>();
        match self {
            Self::And(all) if all.is_empty() => Document::new(),
            Self::And(all) => doc! { "$and": list(all) },
            Self::Or(any) => doc! { "$or": list(any) },
            Self::Field(path, test) => doc! { path.as_str(): test.to_query() },
            Self::Expr(comparison, left, right) => {
                doc! { "$expr": { comparison.as_str(): [format!("${left}"), format!("${right}")] } }
            }
        }
    }

    /// Every field that the condition looks at.
    pub fn paths(&self, visit: &mut impl FnMut(&Path)) {
        match self {
            Self::And(all) | Self::Or(all) => all.iter().for_each(|condition| condition.paths(visit)),
            Self::Field(path, _) => visit(path),
            Self::Expr(_, left, right) => [left, right].into_iter().for_each(visit),
        }
    }
}

/// Whether the way to every end of a path is clear, and every value there passes.
fn ends_all(path: &Path, document: &Document, test: impl Fn(&Bson) -> bool) -> bool {
    let mut all = true;
    path.ends(document, &mut |end| {
        all &= match end {
            End::Value(value) => test(value),
            End::Missing => true,
            End::Blocked => false,
        };
    });
    all
}

/// The type of a value, as a condition wants it: a binary that is no UUID is something else than a UUID.
#[derive(Clone, Copy, PartialEq)]
struct Kind(Class, Option<BinarySubtype>);

impl Kind {
    fn of(value: &Bson) -> Self {
        let subtype = match value {
            Bson::Binary(binary) => Some(binary.subtype),
            _ => None,
        };
        Self(Class::of(value), subtype)
    }
}

impl Test {
    fn matches(&self, path: &Path, document: &Document) -> bool {
        match self {
            Self::Eq(operand) => path.any(document, |value| is_equal(value, operand)),
            Self::Ne(operand) => !path.any(document, |value| is_equal(value, operand)),
            Self::In(operands) => path.any(document, |value| operands.iter().any(|operand| is_equal(value, operand))),
            Self::Nin(operands) => !path.any(document, |value| operands.iter().any(|operand| is_equal(value, operand))),
            Self::Exists(wanted) => path.any(document, |value| value.is_some()) == *wanted,
            Self::Compare(comparison, operand) => path.any(document, |value| {
                value.is_some_and(|value| {
                    Class::of(value) == Class::of(operand) && !is_nan(value) && comparison.holds(compare(value, operand))
                })
            }),
            Self::Not(all) => !all.iter().all(|test| test.matches(path, document)),
        }
    }

    /// The types that this test compares with. None: any will do.
    fn kinds(&self, kinds: &mut Vec<Kind>) {
        let mut add = |operand: &Bson| {
            let kind = Kind::of(operand);
            if !kind.0.is_nothing() {
                kinds.push(kind);
            }
        };
        match self {
            Self::Eq(operand) | Self::Ne(operand) | Self::Compare(_, operand) => add(operand),
            Self::In(operands) | Self::Nin(operands) => operands.iter().for_each(add),
            Self::Exists(_) => {}
            Self::Not(all) => all.iter().for_each(|test| test.kinds(kinds)),
        }
    }

    fn to_query(&self) -> Document {
        match self {
            Self::Eq(operand) => doc! { "$eq": operand },
            Self::Ne(operand) => doc! { "$ne": operand },
            Self::In(operands) => doc! { "$in": operands },
            Self::Nin(operands) => doc! { "$nin": operands },
            Self::Exists(wanted) => doc! { "$exists": wanted },
            Self::Compare(comparison, operand) => doc! { comparison.as_str(): operand },
            Self::Not(all) => {
                let tests = all.iter().flat_map(Self::to_query).collect::<Document>();
                doc! { "$not": tests }
            }
        }
    }
}

/// Equality as in queries: numbers by value, null with missing.
fn is_equal(value: Option<&Bson>, operand: &Bson) -> bool {
    match value {
        None => *operand == Bson::Null,
        Some(Bson::Undefined) => *operand == Bson::Null,
        Some(value) => compare(value, operand).is_eq(),
    }
}

/// Reads a condition as a schema writes it: a table, or a string of Extended JSON. What is wrong with it goes to `mistakes`.
pub(crate) fn parse(node: &Node, mistakes: &mut Vec<Mistake>) -> Option<Condition> {
    let before = mistakes.len();
    let condition = match &node.value {
        Value::Scalar(Bson::String(text)) => match Node::from_extended_json(text, &node.span) {
            Ok(node) => Parser { mistakes }.condition(&node, 0),
            Err(mistake) => {
                mistakes.push(mistake);
                return None;
            }
        },
        _ => Parser { mistakes }.condition(node, 0),
    };
    condition.filter(|_| mistakes.len() == before)
}

struct Parser<'a> {
    mistakes: &'a mut Vec<Mistake>,
}

impl Parser<'_> {
    fn wrong<T>(&mut self, mistake: Mistake) -> Option<T> {
        self.mistakes.push(mistake);
        None
    }

    fn too_deep<T>(&mut self, span: &Span) -> Option<T> {
        self.wrong(Mistake::new(span, format!("conditions nest deeper than {DEPTH_MAX}")))
    }

    fn condition(&mut self, node: &Node, depth: usize) -> Option<Condition> {
        let Value::Table(entries) = &node.value else {
            return self.wrong(
                Mistake::new(&node.span, format!("a condition is a table, not {}", node.describe()))
                    .help("for example: { is_deleted = true }"),
            );
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
            "$expr" => self.expr(entry),
            name if name.starts_with('$') => self.wrong(
                Mistake::new(&entry.span, format!("unknown operator `{name}` in a condition"))
                    .meant(name, TOP_OPERATORS),
            ),
            _ => self.field(entry, depth),
        }
    }

    fn conditions(&mut self, entry: &Entry, depth: usize) -> Option<Vec<Condition>> {
        let Value::List(items) = &entry.node.value else {
            let message = format!("`{}` wants a list of conditions, not {}", entry.name, entry.node.describe());
            return self.wrong(Mistake::new(&entry.node.span, message));
        };
        if items.is_empty() {
            return self.wrong(Mistake::new(&entry.node.span, format!("`{}` of nothing", entry.name)));
        }
        Some(items.iter().filter_map(|item| self.condition(item, depth + 1)).collect())
    }

    fn expr(&mut self, entry: &Entry) -> Option<Condition> {
        let help = "for example: \"$expr\" = { \"$lt\" = [\"$use_count\", \"$max_uses\"] }";
        let wants = |span: &Span| Mistake::new(span, "`$expr` wants one comparison of two fields").help(help);
        let Value::Table(entries) = &entry.node.value else { return self.wrong(wants(&entry.node.span)) };
        let [Entry { name, span, node }] = entries.as_slice() else { return self.wrong(wants(&entry.node.span)) };
        let Some(comparison) = Comparison::named(name) else {
            let names = Comparison::ALL.map(Comparison::as_str);
            return self.wrong(Mistake::new(span, format!("unknown comparison `{name}` in `$expr`")).meant(name, names));
        };
        let Value::List(sides) = &node.value else { return self.wrong(wants(&node.span)) };
        let fields: Vec<Path> = sides.iter().filter_map(|side| self.field_reference(side)).collect();
        match <[Path; 2]>::try_from(fields) {
            Ok([left, right]) => Some(Condition::Expr(comparison, left, right)),
            Err(_) => self.wrong(wants(&node.span)),
        }
    }

    fn field_reference(&mut self, node: &Node) -> Option<Path> {
        let Value::Scalar(Bson::String(text)) = &node.value else { return None };
        let name = text.strip_prefix('$')?;
        match Path::parse(name) {
            Ok(path) => Some(path),
            Err(why) => self.wrong(Mistake::new(&node.span, format!("the field `{text}` {why}"))),
        }
    }

    fn field(&mut self, entry: &Entry, depth: usize) -> Option<Condition> {
        let path = match Path::parse(&entry.name) {
            Ok(path) => path,
            Err(why) => return self.wrong(Mistake::new(&entry.span, format!("the field `{}` {why}", entry.name))),
        };
        let tests = match &entry.node.value {
            Value::Table(operators) => self.tests(&entry.name, &entry.node.span, operators, depth)?,
            _ => vec![Test::Eq(self.operand("$eq", &entry.node)?)],
        };
        let all = tests.into_iter().map(|test| Condition::Field(path.clone(), test)).collect();
        Some(one_or(all, Condition::And))
    }

    fn tests(&mut self, field: &str, span: &Span, operators: &[Entry], depth: usize) -> Option<Vec<Test>> {
        if depth > DEPTH_MAX {
            return self.too_deep(span);
        }
        if operators.is_empty() {
            return self.wrong(Mistake::new(span, format!("the field `{field}` is compared with nothing")));
        }
        if let Some(inner) = operators.iter().find(|operator| !operator.name.starts_with('$')) {
            let message = format!("the field `{field}` is compared with a document, which is not supported");
            return self.wrong(
                Mistake::new(&inner.span, message)
                    .help(format!("a field inside is named by its path, in quotes: \"{field}.{}\"", inner.name)),
            );
        }
        Some(operators.iter().filter_map(|operator| self.test(field, operator, depth)).collect())
    }

    fn test(&mut self, field: &str, operator: &Entry, depth: usize) -> Option<Test> {
        let node = &operator.node;
        match operator.name.as_str() {
            "$eq" => Some(Test::Eq(self.operand("$eq", node)?)),
            "$ne" => Some(Test::Ne(self.operand("$ne", node)?)),
            "$in" => Some(Test::In(self.operands("$in", node)?)),
            "$nin" => Some(Test::Nin(self.operands("$nin", node)?)),
            "$exists" => match node.value {
                Value::Scalar(Bson::Boolean(wanted)) => Some(Test::Exists(wanted)),
                _ => self.wrong(Mistake::new(&node.span, format!("`$exists` wants true or false, not {}", node.describe()))),
            },
            "$not" => match &node.value {
                Value::Table(operators) => Some(Test::Not(self.tests(field, &node.span, operators, depth + 1)?)),
                _ => self.wrong(
                    Mistake::new(&node.span, format!("`$not` wants a table of operators, not {}", node.describe()))
                        .help("for a plain value there is `$ne`"),
                ),
            },
            name => match Comparison::named(name) {
                Some(comparison) => Some(Test::Compare(comparison, self.ordered(name, node)?)),
                None => self.wrong(
                    Mistake::new(&operator.span, format!("unknown operator `{name}` for a field"))
                        .meant(name, FIELD_OPERATORS),
                ),
            },
        }
    }

    fn operands(&mut self, operator: &str, node: &Node) -> Option<Vec<Bson>> {
        let Value::List(items) = &node.value else {
            return self.wrong(Mistake::new(&node.span, format!("`{operator}` wants a list, not {}", node.describe())));
        };
        Some(items.iter().filter_map(|item| self.operand(operator, item)).collect())
    }

    /// A plain value to compare with.
    fn operand(&mut self, operator: &str, node: &Node) -> Option<Bson> {
        let is_plain = |value: &Bson| match value {
            Bson::Double(double) => !double.is_nan(),
            Bson::Binary(binary) => binary.subtype == BinarySubtype::Uuid,
            Bson::Null | Bson::Boolean(_) | Bson::String(_) | Bson::ObjectId(_) | Bson::DateTime(_) => true,
            Bson::Int32(_) | Bson::Int64(_) => true,
            _ => false,
        };
        match &node.value {
            Value::Scalar(value) if is_plain(value) => Some(value.clone()),
            _ => self.wrong(
                Mistake::new(&node.span, format!("`{operator}` cannot compare with {}", node.describe()))
                    .help("there are strings, numbers, booleans, dates, null, ObjectIds and UUIDs"),
            ),
        }
    }

    /// A value that is less or greater than others.
    fn ordered(&mut self, operator: &str, node: &Node) -> Option<Bson> {
        let operand = self.operand(operator, node)?;
        if matches!(Class::of(&operand), Class::Number | Class::String | Class::Date | Class::ObjectId) {
            return Some(operand);
        }
        self.wrong(
            Mistake::new(&node.span, format!("`{operator}` cannot order {}", node.describe()))
                .help("numbers, strings, dates and ObjectIds have an order"),
        )
    }
}

/// The only one, or all of them joined.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a condition as it stands behind `where =`.
    fn read(text: &str) -> Result<Condition, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let root = Node::from_toml(&format!("where = {text}"), &mut mistakes);
        let Value::Table(entries) = &root.value else { panic!("{root:?}") };
        parse(&entries[0].node, &mut mistakes).ok_or(mistakes)
    }

    fn assert_typed(expected: bool, cases: &[(&str, Document)]) {
        for (text, document) in cases {
            assert_eq!(read(text).unwrap().is_typed(document), expected, "{text} on {document}");
        }
    }

    #[test]
    fn conditions_nest_only_so_deep() {
        let and = |depth| format!("{}{{ a = 1 }}{}", "{ '$and' = [".repeat(depth), "] }".repeat(depth));
        let not = |depth| format!("{{ a = {}{{ '$gt' = 1 }}{} }}", "{ '$not' = ".repeat(depth), " }".repeat(depth));
        for (shallow, deep) in [(and(DEPTH_MAX), and(DEPTH_MAX + 1)), (not(DEPTH_MAX), not(DEPTH_MAX + 1))] {
            assert!(read(&shallow).is_ok());
            assert!(read(&deep).unwrap_err()[0].message.contains("nest deeper"));
        }
    }

    #[test]
    fn a_field_has_the_type_of_its_operand() {
        assert_typed(
            true,
            &[
                ("{ a = 1 }", doc! { "a": 2.5 }),
                ("{ a = 1 }", doc! { "a": Bson::Decimal128("2".parse().unwrap()) }),
                ("{ a = 1.5 }", doc! { "a": f64::NAN }),
                ("{ a = { '$ne' = true } }", doc! { "a": false }),
                ("{ a = { '$in' = [1, 'x'] } }", doc! { "a": "y" }),
                ("{ a = { '$not' = { '$gt' = 1, '$ne' = 'x' } } }", doc! { "a": "y" }),
                ("{ '$or' = [{ a = 1 }, { b = 'x' }] }", doc! { "a": 2, "b": "y" }),
                (r#"'{"a": {"$oid": "65f000000000000000000001"}}'"#, doc! { "a": bson::oid::ObjectId::new() }),
            ],
        );
        assert_typed(
            false,
            &[
                ("{ a = 1 }", doc! { "a": "1" }),
                ("{ a = true }", doc! { "a": 1 }),
                ("{ a = 'x' }", doc! { "a": { "b": "x" } }),
                ("{ a = { '$ne' = true } }", doc! { "a": "false" }),
                ("{ a = { '$nin' = [1, 'x'] } }", doc! { "a": true }),
                ("{ a = { '$not' = { '$gt' = 1 } } }", doc! { "a": "x" }),
                ("{ a = 2026-01-31T12:00:00Z }", doc! { "a": 1 }),
                // It matches, and yet what it looked at is wrong.
                ("{ '$or' = [{ a = 1 }, { b = 'x' }] }", doc! { "a": 1, "b": 2 }),
                (r#"'{"a": {"$oid": "65f000000000000000000001"}}'"#, doc! { "a": "65f000000000000000000001" }),
                (
                    r#"'{"a": {"$uuid": "00000000-0000-4000-8000-000000000001"}}'"#,
                    doc! { "a": bson::Binary { subtype: BinarySubtype::Generic, bytes: vec![0; 16] } },
                ),
            ],
        );
    }

    #[test]
    fn null_and_missing_are_never_wrong_and_ask_for_no_type() {
        assert_typed(
            true,
            &[
                ("{ a = 1 }", doc! {}),
                ("{ a = 1 }", doc! { "a": null }),
                ("{ 'a.b' = 1 }", doc! { "a": null }),
                ("{ 'a.b' = 1 }", doc! { "a": {} }),
                ("{ a = { '$exists' = true } }", doc! { "a": "x" }),
                (r#"'{"a": null}'"#, doc! { "a": "x" }),
                (r#"'{"a": {"$in": [null, 1]}}'"#, doc! { "a": 2 }),
            ],
        );
        assert_typed(false, &[(r#"'{"a": {"$in": [null, 1]}}'"#, doc! { "a": "x" })]);
    }

    #[test]
    fn an_array_is_judged_by_its_elements() {
        assert_typed(
            true,
            &[
                ("{ a = 1 }", doc! { "a": [] }),
                ("{ a = 1 }", doc! { "a": [2, null, 1.5] }),
                ("{ 'a.b' = 1 }", doc! { "a": [] }),
                ("{ 'a.b' = 1 }", doc! { "a": [{ "b": 2 }, { "b": [3] }, {}, null] }),
            ],
        );
        assert_typed(
            false,
            &[
                ("{ a = 1 }", doc! { "a": [1, "x"] }),
                ("{ a = 1 }", doc! { "a": [[1]] }),
                ("{ 'a.b' = 1 }", doc! { "a": [{ "b": 1 }, { "b": "x" }] }),
            ],
        );
    }

    #[test]
    fn a_value_in_the_way_is_wrong() {
        assert_typed(
            false,
            &[
                ("{ 'a.b' = 1 }", doc! { "a": 1 }),
                ("{ 'a.b' = { '$exists' = false } }", doc! { "a": "x" }),
                ("{ 'a.b' = 1 }", doc! { "a": [{ "b": 1 }, 2] }),
                ("{ 'a.b' = 1 }", doc! { "a": [[{ "b": 1 }]] }),
                ("{ 'a.b.c' = 1 }", doc! { "a": { "b": true } }),
            ],
        );
    }

    #[test]
    fn two_fields_need_one_type() {
        let less = "{ '$expr' = { '$lt' = ['$a', '$b.c'] } }";
        assert_typed(
            true,
            &[
                (less, doc! { "a": 1, "b": { "c": 2.5 } }),
                (less, doc! { "a": 1 }),
                (less, doc! { "a": null, "b": { "c": "x" } }),
                (less, doc! { "a": [1], "b": [{ "c": 1 }] }),
            ],
        );
        assert_typed(
            false,
            &[
                (less, doc! { "a": 1, "b": { "c": "x" } }),
                (less, doc! { "a": 1, "b": [{ "c": 1 }] }),
                (less, doc! { "a": 1, "b": 2 }),
            ],
        );
    }
}
