//! Queries for ids in a field: for those of some subjects or resources, and for values that are no ids.
//!
//! Does not know what an id leads to. `fact` defines which id a value means.

use bson::{
    Binary, Bson,
    spec::{BinarySubtype, ElementType},
};

use super::{
    condition::Found,
    simplify::{NOTHING, all, any, not, one_of},
    types::{any_end, blocked, nested_array, no_array, of_types, other_types, wrong_values},
};
use crate::{
    fact::{id_values, text_value},
    question::{Id, IdForm},
    schema::{Comparison, Condition, Element, Format, Path, Test, id_types},
};

/// What stands for every subject of a type.
const EVERYBODY: &str = "*";

/// How many values are repeated for every array that a path may lead through.
const REPEATED_MAX: usize = 64;

/// How a field writes ids of one form.
#[derive(Clone, Copy)]
pub(super) struct Writing<'a> {
    /// The field.
    pub(super) field: &'a Path,
    /// The form of the ids.
    pub(super) form: IdForm,
    /// The form of the text, if the field writes ids as text.
    pub(super) format: Option<&'a Format>,
}

impl Writing<'_> {
    /// The values that mean one of the ids.
    pub(super) fn values<'i>(&self, ids: impl IntoIterator<Item = &'i Id>) -> Vec<Bson> {
        ids.into_iter().flat_map(|id| id_values(self.format, id)).collect()
    }

    /// The value that means this text, which is an id of the form `"string"`.
    pub(super) fn text(&self, text: &str) -> Bson {
        text_value(self.format, text)
    }

    /// The value that means every subject.
    pub(super) fn everybody(&self) -> Bson {
        self.text(EVERYBODY)
    }

    /// Documents in which the field has one of the values.
    pub(super) fn having(&self, values: &[Bson]) -> Found {
        let found = one_of(self.field.clone(), values.to_vec());
        if found == NOTHING || !values.iter().any(|value| value.as_str().is_some()) {
            return (found, true);
        }
        let is_nested = self.field.as_str().contains('.');
        if is_nested && values.len() > REPEATED_MAX {
            return (found, false);
        }
        // A symbol equals a text, but is no id.
        let symbols = |path: &Path| of_types(path, vec![ElementType::Symbol]);
        let in_array = Test::Element(Element::Value(vec![
            Test::In(values.to_vec()),
            Test::Not(vec![Test::Type(vec![ElementType::Symbol])]),
        ]));
        let beside = any_end(self.field, &|path| {
            let alone = all([no_array(path), one_of(path.clone(), values.to_vec()), not(symbols(path))]);
            any([Condition::Field(path.clone(), in_array.clone()), if is_nested { alone } else { NOTHING }])
        });
        match beside {
            Some(beside) => (all([found, any([not(symbols(self.field)), beside])]), true),
            None => (found, false),
        }
    }

    /// Documents in which the field has any value that is not the empty text.
    pub(super) fn any_value(&self) -> Condition {
        let [others, nested] = wrong_values(self.field, &[ElementType::String]);
        any([blocked(self.field), others, nested, self.any_text()])
    }

    fn any_text(&self) -> Condition {
        Condition::Field(self.field.clone(), Test::Compare(Comparison::Gt, "".into()))
    }

    /// Documents in which a value may be an id of the form.
    pub(super) fn may_be_id(&self) -> Condition {
        let types = if self.format.is_some() { id_types(IdForm::String) } else { id_types(self.form) };
        of_types(self.field, types.to_vec())
    }

    /// Documents in which the field surely has a value that is no id, and whether these are all.
    ///
    /// `accepts_everybody` is whether `*` may stand there.
    pub(super) fn wrong(&self, accepts_everybody: bool) -> Found {
        let field = |test: Test| Condition::Field(self.field.clone(), test);
        let types = if self.format.is_some() { id_types(IdForm::String) } else { id_types(self.form) };
        let mut wrong = vec![blocked(self.field), nested_array(self.field)];
        wrong.push(other_types(self.field, &[types, &[ElementType::String, ElementType::Array]].concat()));
        if !accepts_everybody {
            wrong.push(field(Test::Eq(self.everybody())));
        }
        let is_exact = match (self.format, self.form) {
            (Some(_), form) => {
                let empty = self.text("");
                if empty != Bson::String(String::new()) {
                    wrong.push(field(Test::Eq(empty)));
                }
                // Of other forms, a text may be no id.
                form == IdForm::String
            }
            (None, IdForm::String) => true,
            (None, IdForm::ObjectId) => {
                let (text, is_exact) = self.other_text(accepts_everybody);
                wrong.push(text);
                is_exact
            }
            (None, IdForm::Uuid) => {
                let uuid = |byte: u8| Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: vec![byte; 16] });
                let (text, is_exact) = self.other_text(accepts_everybody);
                wrong.push(text);
                wrong.push(field(Test::Compare(Comparison::Lt, uuid(0))));
                wrong.push(field(Test::Compare(Comparison::Gt, uuid(u8::MAX))));
                is_exact
            }
            (None, IdForm::Integer) => {
                wrong.push(self.other_text(accepts_everybody).0);
                wrong.push(field(Test::Eq(Bson::Double(f64::NAN))));
                wrong.push(field(Test::Compare(Comparison::Lt, Bson::Int64(i64::MIN))));
                wrong.push(field(Test::Compare(Comparison::Gt, Bson::Int64(i64::MAX))));
                // No query finds the fractions among decimals.
                false
            }
        };
        (any(wrong), is_exact)
    }

    /// A text in place of an id of another form, and whether these are all such texts. The empty text leads to nobody.
    fn other_text(&self, accepts_everybody: bool) -> Found {
        if !accepts_everybody {
            return (self.any_text(), true);
        }
        let compare = |comparison, text: &str| Test::Compare(comparison, text.into());
        let greater = Condition::Field(self.field.clone(), compare(Comparison::Gt, EVERYBODY));
        let between = || [compare(Comparison::Gt, ""), compare(Comparison::Lt, EVERYBODY)];
        let less = any_end(self.field, &|path| {
            let alone = between().map(|test| Condition::Field(path.clone(), test));
            let in_array = Test::Element(Element::Value(between().into()));
            any([all([no_array(path)].into_iter().chain(alone)), Condition::Field(path.clone(), in_array)])
        });
        match less {
            Some(less) => (any([greater, less]), true),
            None => (greater, false),
        }
    }
}
