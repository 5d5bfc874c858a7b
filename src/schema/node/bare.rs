//! The help for a bare word where TOML or JSON expects a value: what the author means by `null`, `True` or `ISODate`.
//!
//! Never advises quotes for a word that is not a text: a condition would then compare with that text, match nothing, and
//! allow under a `!` what it was to deny.

use bson::Bson;
use toml::de::DeTable;

use super::entries;
use crate::schema::{
    error::Span,
    node::{Node, Value},
    path::CLOCK_HELP,
};

/// The help for invalid JSON: the usual cause.
const JSON_HELP: &str =
    "write keys and strings in double quotes, for example: '{\"kind\": \"note\", \"is_deleted\": true}'";

/// The help for a word that stands for null in some languages, and that some documents have as a text.
const NULL_OR_TEXT_HELP: &str =
    "write a text in quotes; TOML has no null: for null, write the whole condition as a string of Extended JSON";

/// The maximal length, in bytes, of a condition that a help repeats.
const CONDITION_BYTES_MAX: usize = 2_000;

/// What somebody means by a bare word.
#[derive(Clone, Copy, PartialEq)]
enum Meaning {
    Null,
    /// Some documents have these words as texts. For them, a test for null would match nothing, and a text in quotes for others.
    NullOrText,
    True,
    False,
    Clock,
    Constructor,
    Text,
    Unknown,
}

impl Meaning {
    fn of(word: &str, after: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "isodate" | "date" | "date.now" | "now" | "new" if is_empty_call(after) => Self::Clock,
            _ if after.starts_with('(') => Self::Constructor,
            "null" | "nil" | "undefined" | "nul" => Self::Null,
            "none" | "nothing" => Self::NullOrText,
            "true" | "yes" | "on" => Self::True,
            "false" | "no" | "off" => Self::False,
            "now" | "today" | "current_date" | "current_timestamp" => Self::Clock,
            "new" => Self::Constructor,
            "nan" | "inf" | "infinity" => Self::Unknown,
            word if word.starts_with(|c: char| c.is_alphabetic() || c == '_') => Self::Text,
            _ => Self::Unknown,
        }
    }
}

/// Whether parentheses without content follow, perhaps after another word: `new Date()` means the present.
fn is_empty_call(after: &str) -> bool {
    let call = after.trim_start().trim_start_matches(is_word_part).trim_start();
    !after.to_ascii_lowercase().trim_start().starts_with("objectid")
        && call.strip_prefix('(').is_some_and(|inside| inside.trim_start().starts_with(')'))
}

fn is_word_part(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// The word around a position.
fn word_at(text: &str, at: usize) -> Option<(&str, &str)> {
    let (before, after) = (text.get(..at)?, text.get(at..)?);
    let start = before.trim_end_matches(is_word_part).len();
    let end = at + after.find(|c| !is_word_part(c)).unwrap_or(after.len());
    Some((text.get(start..end)?, text.get(end..)?))
}

/// The help for the text at `span`, where TOML expects a value. None if no word stands there.
pub(super) fn help(text: &str, span: &Span) -> Option<String> {
    let before = text.get(..span.start)?.trim_end();
    let (word, after) = word_at(text, span.start).filter(|(word, _)| !word.is_empty())?;
    if !before.ends_with(['=', '[', ',']) {
        return None;
    }
    Some(match Meaning::of(word, after) {
        Meaning::Null => match as_json(text, span.start) {
            Some((key, json)) if json.len() <= CONDITION_BYTES_MAX => {
                format!("TOML has no null: write the condition as Extended JSON: {key} = '{json}'")
            }
            Some(_) => "TOML has no null: write the whole condition as a string of Extended JSON".to_owned(),
            None => "TOML has no null: write a whole condition as a string of Extended JSON; outside of conditions, omit the \
                     key"
                .to_owned(),
        },
        Meaning::NullOrText => NULL_OR_TEXT_HELP.to_owned(),
        Meaning::True => "write true in lower case, without quotes: true".to_owned(),
        Meaning::False => "write false in lower case, without quotes: false".to_owned(),
        Meaning::Clock => CLOCK_HELP.to_owned(),
        Meaning::Constructor => {
            "write a date as 2026-01-31T12:00:00Z; for an ObjectId, write the whole condition as Extended JSON"
                .to_owned()
        }
        Meaning::Text => format!("write a text in quotes: \"{word}\""),
        Meaning::Unknown => return None,
    })
}

/// The length of the word, or else of the character, with which a JSON text goes on.
pub(super) fn width(rest: &str) -> usize {
    let word = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
    word.max(rest.chars().next().map_or(0, char::len_utf8))
}

/// The help for the position in a JSON text at which a value cannot be read.
pub(super) fn json_help(text: &str, at: usize) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let found = text.get(..at).zip(text.get(at..)).map(|(before, after)| {
        let start = before.trim_end_matches(is_word).len();
        let end = at + after.find(|c| !is_word(c)).unwrap_or(after.len());
        (text.get(start..end).unwrap_or_default(), text.get(end..).unwrap_or_default())
    });
    let (word, after) = found.unwrap_or_default();
    match Meaning::of(word, after) {
        _ if matches!(word, "" | "null" | "true" | "false") => JSON_HELP,
        Meaning::Null => "JSON writes null in lower case, without quotes: null",
        Meaning::NullOrText => "write a text in double quotes, and null without quotes",
        Meaning::True => "JSON writes true in lower case, without quotes: true",
        Meaning::False => "JSON writes false in lower case, without quotes: false",
        Meaning::Clock => CLOCK_HELP,
        Meaning::Constructor => "in Extended JSON: {\"$oid\": \"…\"} or {\"$date\": \"2026-01-31T12:00:00Z\"}",
        Meaning::Text | Meaning::Unknown => JSON_HELP,
    }
    .to_owned()
}

/// The whole condition around a bare null, as Extended JSON, and its key. None if no condition is there.
fn as_json(text: &str, at: usize) -> Option<(&'static str, String)> {
    /// The text that stands for null while the rest is read. `MARK` with a number stands for another null.
    const MARK: &str = "\u{1}null";
    // Every bare null becomes a text that no condition contains, so that the TOML can be read.
    let (mut patched, mut rest, mut wanted) = (String::new(), 0, String::new());
    let (_, errors) = DeTable::parse_recoverable(text);
    let mut places: Vec<usize> = errors.iter().filter_map(|error| Some(error.span()?.start)).collect();
    places.sort_unstable();
    places.dedup();
    for (count, place) in places.into_iter().enumerate() {
        let Some((word, after)) =
            word_at(text, place).filter(|(word, after)| Meaning::of(word, after) == Meaning::Null)
        else {
            continue;
        };
        let end = text.len() - after.len();
        let mark = format!("{MARK}{count}");
        patched.push_str(text.get(rest..end - word.len())?);
        patched.push_str(&format!("\"\\u0001null{count}\""));
        if (end - word.len()..end).contains(&at) {
            wanted = mark;
        }
        rest = end;
    }
    patched.push_str(text.get(rest..)?);
    let (table, errors) = DeTable::parse_recoverable(&patched);
    let mut unreadable = Vec::new();
    let root = entries(table.get_ref(), &mut unreadable);
    let root = Node { span: 0..0, value: Value::Table(root) };
    let (key, condition) = condition_with(&root, &wanted)?;
    // What else is wrong in the condition is missing in the table. A condition without it would be another one.
    let is_inline = patched.get(condition.span.clone())?.starts_with('{');
    let spans = errors.iter().map(toml::de::Error::span).chain(unreadable.into_iter().map(|error| error.span));
    let is_elsewhere = |span: Option<Span>| {
        is_inline && span.is_some_and(|span| span.end <= condition.span.start || condition.span.end <= span.start)
    };
    if !spans.into_iter().all(is_elsewhere) {
        return None;
    }
    let json = to_bson(condition, MARK).into_relaxed_extjson().to_string();
    // A literal string of TOML cannot contain a quote.
    (!json.contains('\'')).then_some((key, json))
}

/// The innermost `where` or `document_where` that contains the text.
fn condition_with<'a>(node: &'a Node, wanted: &str) -> Option<(&'static str, &'a Node)> {
    match &node.value {
        Value::Table(entries) => entries.iter().find_map(|entry| {
            condition_with(&entry.node, wanted).or_else(|| {
                let key = ["where", "document_where"].into_iter().find(|key| *key == entry.name)?;
                contains(&entry.node, wanted).then_some((key, &entry.node))
            })
        }),
        Value::List(items) => items.iter().find_map(|item| condition_with(item, wanted)),
        Value::Scalar(_) => None,
    }
}

fn contains(node: &Node, wanted: &str) -> bool {
    match &node.value {
        Value::Table(entries) => entries.iter().any(|entry| contains(&entry.node, wanted)),
        Value::List(items) => items.iter().any(|item| contains(item, wanted)),
        Value::Scalar(_) => node.as_text() == Some(wanted),
    }
}

fn to_bson(node: &Node, mark: &str) -> Bson {
    match &node.value {
        Value::Table(entries) => {
            let entries = entries.iter().map(|entry| (entry.name.clone(), to_bson(&entry.node, mark)));
            Bson::Document(entries.collect())
        }
        Value::List(items) => items.iter().map(|item| to_bson(item, mark)).collect::<Vec<_>>().into(),
        Value::Scalar(Bson::String(text)) if text.starts_with(mark) => Bson::Null,
        Value::Scalar(value) => value.clone(),
    }
}
