//! Reads operands: the plain values that conditions compare with.
//!
//! Does not know which operators there are, except where a help names one.

use bson::{Bson, spec::BinarySubtype};

use super::Parser;
use crate::schema::{
    error::{SchemaError, Span},
    node::{Node, Value},
    order::{Class, is_nan},
    path::{CLOCK_HELP, VARIABLES_HELP},
};

/// The variables of MongoDB that stand for the current time.
const CLOCKS: [&str; 2] = ["$$NOW", "$$CLUSTER_TIME"];

impl Parser<'_> {
    /// Reads a list of plain values.
    pub(super) fn operands(&mut self, operator: &str, node: &Node) -> Option<Vec<Bson>> {
        let Value::List(items) = &node.value else {
            let message = format!("`{operator}` expects a list, not {}", node.describe());
            let error = SchemaError::new(&node.span, message);
            let example = match &node.value {
                Value::Scalar(value) => self.literal(value),
                Value::List(_) | Value::Table(_) => None,
            };
            return self.wrong(match example {
                Some(value) => error.help(format!("write a list even for one value: [{value}]")),
                None => error.help("write a list of plain values"),
            });
        };
        Some(items.iter().filter_map(|item| self.operand(Some(operator), item)).collect())
    }

    /// Reads a plain value to compare with.
    pub(super) fn operand(&mut self, operator: Option<&str>, node: &Node) -> Option<Bson> {
        let is_plain = |value: &Bson| match value {
            Bson::Binary(binary) => binary.subtype == BinarySubtype::Uuid,
            Bson::Symbol(_) => false,
            value => {
                matches!(
                    Class::of(value),
                    Class::Null | Class::Bool | Class::String | Class::ObjectId | Class::Date | Class::Number
                ) && !is_nan(value)
            }
        };
        let help = match (&node.value, operator) {
            (Value::Scalar(Bson::String(text)), _) if text.starts_with('$') => {
                return self.not_literal(text, &node.span);
            }
            (Value::Scalar(value), _) if is_plain(value) => return Some(value.clone()),
            (Value::List(items), None | Some("$eq")) => {
                format!("for one of several values: {}", self.with_list("$in", items))
            }
            (Value::List(items), Some("$ne")) => {
                format!("for none of several values: {}", self.with_list("$nin", items))
            }
            (Value::Scalar(_) | Value::List(_) | Value::Table(_), _) => {
                "use a string, a number, a boolean, a date, null, an ObjectId or a UUID".to_owned()
            }
        };
        let message = match operator {
            Some(operator) => format!("`{operator}` cannot compare with {}", node.describe()),
            None => format!("a field cannot be compared with {}", node.describe()),
        };
        self.wrong(SchemaError::new(&node.span, message).help(help))
    }

    /// Reports a text that somebody means as a variable or a field, but that MongoDB would compare with as it is.
    fn not_literal<T>(&mut self, text: &str, span: &Span) -> Option<T> {
        let help = if CLOCKS.iter().any(|clock| text.eq_ignore_ascii_case(clock)) {
            CLOCK_HELP
        } else if text.starts_with("$$") {
            VARIABLES_HELP
        } else {
            "to compare two fields use `$expr`; who asks is compared by a relation's `field`, never in a condition"
        };
        let message = format!("`{text}` begins with `$`, but MongoDB would compare with this text itself");
        self.wrong(SchemaError::new(span, message).help(help))
    }

    /// Reads a value of a type that has an order.
    pub(super) fn ordered(&mut self, operator: &str, node: &Node) -> Option<Bson> {
        let operand = self.operand(Some(operator), node)?;
        if matches!(Class::of(&operand), Class::Number | Class::String | Class::Date | Class::ObjectId) {
            return Some(operand);
        }
        self.wrong(
            SchemaError::new(&node.span, format!("`{operator}` cannot order {}", node.describe()))
                .help("numbers, strings, dates and ObjectIds have an order"),
        )
    }

    /// A test with an operator and these values, or with others if they cannot be written.
    fn with_list(&self, operator: &str, items: &[Node]) -> String {
        let literal = |item: &Node| match &item.value {
            Value::Scalar(value) => self.literal(value),
            Value::List(_) | Value::Table(_) => None,
        };
        let values: Option<Vec<_>> = items.iter().map(literal).collect();
        let values = values.filter(|values| !values.is_empty()).map_or_else(|| "…".to_owned(), |all| all.join(", "));
        self.example(&format!("{{ \"{operator}\": [{values}] }}"))
    }

    /// The value as it is written in the language of the condition. None if that language cannot write it.
    pub(super) fn literal(&self, value: &Bson) -> Option<String> {
        match value {
            Bson::DateTime(date) if !self.is_json => date.try_to_rfc3339_string().ok(),
            Bson::String(_) | Bson::Boolean(_) | Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) => {
                Some(value.clone().into_relaxed_extjson().to_string())
            }
            value => self.is_json.then(|| value.clone().into_relaxed_extjson().to_string()),
        }
    }
}
