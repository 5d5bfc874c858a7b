//! Parses tests of arrays: `$elemMatch`, `$all` and `$size`.
//!
//! Evaluates nothing.

use super::{Parser, TOP_OPERATORS, kinds::position};
use crate::schema::{
    condition::{Element, Test},
    error::SchemaError,
    node::{Entry, Node, Value},
};

/// The name of the test of an array's elements.
const ELEMENT: &str = "$elemMatch";

impl Parser<'_> {
    /// Parses what an element of the array in `field` has to fulfil: operators for the element itself, or a condition on its
    /// fields.
    pub(super) fn element(&mut self, field: &str, node: &Node, depth: usize) -> Option<Element> {
        let Value::Table(entries) = &node.value else {
            let message = format!("`{ELEMENT}` expects a table, not {}", node.describe());
            let operand = match &node.value {
                Value::Scalar(value) => self.literal(value),
                Value::List(_) | Value::Table(_) => None,
            };
            let help = match (&node.value, operand) {
                (Value::Scalar(_), Some(value)) => {
                    format!(
                        "for an element that is equal to a value: {}",
                        self.example(&format!("{{ \"$eq\": {value} }}"))
                    )
                }
                _ => format!("for an element that is one of some values: {}", self.example("{ \"$in\": [1, 2] }")),
            };
            return self.wrong(SchemaError::new(&node.span, message).help(help));
        };
        let is_operator = |entry: &&Entry| entry.name.starts_with('$') && !TOP_OPERATORS.contains(&&*entry.name);
        let operators = entries.iter().filter(is_operator).count();
        if entries.is_empty() || (1..entries.len()).contains(&operators) {
            let what = if entries.is_empty() { "tests nothing" } else { "mixes operators and fields" };
            let (value, document) =
                (self.example("{ \"$gte\": 1, \"$lt\": 5 }"), self.example("{ \"kind\": \"note\" }"));
            let help = format!(
                "test elements that are values as in {value}, and elements that are documents as in {document}"
            );
            return self.wrong(SchemaError::new(&node.span, format!("`{ELEMENT}` {what}")).help(help));
        }
        if operators > 0 {
            return Some(Element::Value(self.tests(field, &node.span, entries, depth + 1)?));
        }
        let is_element = std::mem::replace(&mut self.is_element, true);
        let condition = self.condition(node, depth + 1);
        self.is_element = is_element;
        Some(Element::Document(Box::new(condition?)))
    }

    /// Parses `$all`: a list of values, or of `$elemMatch`.
    pub(super) fn all(&mut self, field: &str, node: &Node, depth: usize) -> Option<Test> {
        let element = |item: &Node| match &item.value {
            Value::Table(entries) => match entries.as_slice() {
                [entry] if entry.name == ELEMENT => Some(entry.node.clone()),
                _ => None,
            },
            Value::List(_) | Value::Scalar(_) => None,
        };
        let items = node.items();
        let is_document = |item: &&Node| matches!(item.value, Value::Table(_)) && element(item).is_none();
        if let Some(document) = items.iter().find(is_document) {
            let example = self.example("{ \"$elemMatch\": { \"kind\": \"note\" } }");
            let message = "`$all` cannot compare with a document";
            let help = format!("to test the fields of an element: {example}");
            return self.wrong(SchemaError::new(&document.span, message).help(help));
        }
        let elements: Vec<Node> = items.iter().filter_map(element).collect();
        if elements.is_empty() || !matches!(node.value, Value::List(_)) {
            return Some(Test::All(self.operands("$all", node)?));
        }
        if elements.len() < items.len() {
            let help =
                format!("write each value as an element: {}", self.example("{ \"$elemMatch\": { \"$eq\": 1 } }"));
            return self
                .wrong(SchemaError::new(&node.span, "`$all` lists values or `$elemMatch`, not both").help(help));
        }
        Some(Test::AllElements(elements.iter().filter_map(|node| self.element(field, node, depth + 1)).collect()))
    }

    /// Parses the size of an array.
    pub(super) fn size(&mut self, node: &Node) -> Option<u32> {
        if let Some(size) = position(node) {
            return Some(size);
        }
        let help = "an array's size is compared with one number; list several in `$or`";
        let message = format!("`$size` expects a whole number from 0 to {}", i32::MAX);
        self.wrong(SchemaError::new(&node.span, message).help(help))
    }
}
