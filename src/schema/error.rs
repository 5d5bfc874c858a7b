//! Schema errors: what is wrong, where, and how to fix it. All errors of a file are collected and shown together.
//!
//! Does not know what a schema means.

use std::{cmp::Reverse, fmt, ops::Range};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// A place in the text of the schema, in bytes.
pub(crate) type Span = Range<usize>;

/// The maximal number of errors that are shown. Nobody fixes more than that at once.
pub(crate) const SHOWN_MAX: usize = 100;

/// The maximal number of valid names that a help lists.
const NAMES_MAX: usize = 12;

/// The maximal length, in characters, of a name for which a similar one is searched.
const NAME_CHARS_MAX: usize = 100;

/// The maximal length, in bytes, of source lines that are shown. In longer ones nobody would find the place.
const SOURCE_BYTES_MAX: usize = 4_000;

/// One error in a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// The place in the text, in bytes; none if something is missing.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
}

impl SchemaError {
    pub(crate) fn new(span: &Span, message: impl Into<String>) -> Self {
        Self { span: Some(span.clone()), message: message.into(), help: None }
    }

    /// An error of the whole schema: something is missing, so there is no place to show.
    pub(crate) fn without_place(message: impl Into<String>) -> Self {
        Self { span: None, message: message.into(), help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the nearest valid name as help, or the list of valid names if none is near.
    pub(crate) fn suggesting<'a>(self, wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Self {
        match suggestion(wrong, valid) {
            Some(help) => self.help(help),
            None => self,
        }
    }
}

/// The valid name that the wrong one was probably meant to be. Of equally near names, the one with the longest common
/// prefix.
pub(crate) fn nearest<'a>(wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    near(wrong, valid).into_iter().map(|(_, name)| name).next()
}

/// The valid names that are nearest to the wrong one, all at the same distance. The one with the longest common prefix comes
/// first.
fn near<'a>(wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Vec<(Reverse<usize>, &'a str)> {
    let length = wrong.chars().count();
    if length > NAME_CHARS_MAX {
        return Vec::new();
    }
    let (wrong, far) = (wrong.to_lowercase(), (length / 3).max(2) + 1);
    let near = valid.into_iter().filter(|name| name.chars().count().abs_diff(length) < far);
    let near = near.filter_map(|name| {
        let valid = name.to_lowercase();
        let same = wrong.chars().zip(valid.chars()).take_while(|(wrong, valid)| wrong == valid).count();
        let distance = strsim::damerau_levenshtein(&wrong, &valid);
        (distance < far.min(length) && !are_opposites(&wrong, &valid, distance))
            .then_some((distance, (Reverse(same), name)))
    });
    let near: Vec<_> = near.collect();
    let least = near.iter().map(|(distance, _)| *distance).min();
    let mut near: Vec<_> =
        near.into_iter().filter(|(distance, _)| Some(*distance) == least).map(|(_, name)| name).collect();
    near.sort_unstable();
    near
}

/// Whether one of two names says the opposite of the other: without a prefix such as `un` or `not_`, it is nearer to it.
/// Nobody who writes `inactive` means `active`.
fn are_opposites(one: &str, other: &str, distance: usize) -> bool {
    const PREFIXES: [&str; 9] = ["un", "in", "im", "not", "non", "no", "dis", "de", "anti"];
    let is_opposite = |long: &str, short: &str| {
        PREFIXES.into_iter().any(|prefix| {
            let rest = long.strip_prefix(prefix).map(|rest| rest.trim_start_matches('_'));
            rest.is_some_and(|rest| strsim::damerau_levenshtein(rest, short) < distance)
        })
    };
    is_opposite(one, other) || is_opposite(other, one)
}

/// "did you mean `x`?" for the nearest valid name, with two that are equally near "`x` or `y`?", else the list of valid
/// names. None if there are no valid names.
#[must_use]
pub fn suggestion<'a>(wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut names: Vec<&str> = valid.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    match near(wrong, names.iter().copied()).as_slice() {
        [(_, near)] => return Some(format!("did you mean `{near}`?")),
        [(_, one), (_, other)] => return Some(format!("did you mean `{one}` or `{other}`?")),
        _ => {}
    }
    match names.as_slice() {
        [] => None,
        [only] => Some(format!("the only one is `{only}`")),
        names => Some(format!("the choices are {}", listed(names))),
    }
}

/// "`a`, `b` and `c`", or the first [`NAMES_MAX`] names and the number of the others.
pub(crate) fn listed(names: &[&str]) -> String {
    let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match (names.split_at_checked(NAMES_MAX), names.split_last()) {
        (Some((shown, hidden)), _) if !hidden.is_empty() => format!("{} and {} more", quoted(shown), hidden.len()),
        (_, Some((last, others))) if !others.is_empty() => format!("{} and `{last}`", quoted(others)),
        _ => quoted(names),
    }
}

/// All errors of one schema, or all warnings about it, in the order of the text. They are shown with line, column, and carets
/// under each place.
#[derive(Clone, Debug)]
pub struct SchemaErrors {
    name: String,
    text: String,
    all: Vec<SchemaError>,
    are_warnings: bool,
}

impl SchemaErrors {
    pub(crate) fn new(name: &str, text: &str, mut all: Vec<SchemaError>) -> Self {
        all.sort_by_key(|error| error.span.as_ref().map(|span| (span.start, span.end)));
        all.dedup();
        Self { name: name.to_owned(), text: text.to_owned(), all, are_warnings: false }
    }

    pub(crate) fn warnings(name: &str, text: &str, all: Vec<SchemaError>) -> Self {
        Self { are_warnings: true, ..Self::new(name, text, all) }
    }

    /// The errors, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &SchemaError> {
        self.all.iter()
    }

    /// The line and column of an error. Both start at 1, and columns count characters. None if the error has no place.
    #[must_use]
    pub fn place(&self, error: &SchemaError) -> Option<(usize, usize)> {
        let before = self.text.get(..error.span.as_ref()?.start)?;
        let line = before.rsplit('\n').next().unwrap_or_default();
        Some((before.matches('\n').count() + 1, line.chars().count() + 1))
    }

    /// All errors as text for a person, each with its source lines. `colored` adds colors for a terminal.
    #[must_use]
    pub fn render(&self, colored: bool) -> String {
        let renderer = if colored { Renderer::styled() } else { Renderer::plain() };
        let shown = self.all.iter().take(SHOWN_MAX);
        let text: String = shown.map(|error| self.render_one(error, &renderer) + "\n\n").collect();
        let count = self.all.len();
        let noun = match (self.are_warnings, count) {
            (false, 1) => "error",
            (false, _) => "errors",
            (true, 1) => "warning",
            (true, _) => "warnings",
        };
        let first = if count > SHOWN_MAX { format!("; these are the first {SHOWN_MAX}") } else { String::new() };
        text + &format!("{}: {count} {noun}{first}", self.name)
    }

    fn render_one(&self, error: &SchemaError, renderer: &Renderer) -> String {
        let level = if self.are_warnings { Level::WARNING } else { Level::ERROR };
        let title = level.primary_title(error.message.as_str());
        let mut group: Group<'_> = match &error.span {
            None => title.element(Origin::path(self.name.as_str())),
            Some(span) if self.lines(span).0.len() > SOURCE_BYTES_MAX => {
                let (lines, first) = self.lines(span);
                let before = self.text.get(lines.start..span.start).unwrap_or_default();
                title.element(Origin::path(self.name.as_str()).line(first).char_column(before.chars().count() + 1))
            }
            Some(span) => {
                let (lines, first) = self.lines(span);
                let (from, to) = (span.start.saturating_sub(lines.start), span.end.saturating_sub(lines.start));
                let lines = self.text.get(lines).unwrap_or_default();
                let to = to.min(lines.len());
                let place = AnnotationKind::Primary.span(from.min(to)..to);
                title.element(Snippet::source(lines).line_start(first).path(self.name.as_str()).annotation(place))
            }
        };
        if let Some(help) = &error.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }

    /// The whole lines that contain a place, and the number of the first line.
    fn lines(&self, span: &Span) -> (Span, usize) {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        let after = self.text.get(span.end..).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let end = after.find('\n').map_or(self.text.len(), |at| span.end + at);
        (start..end, before.matches('\n').count() + 1)
    }
}

impl fmt::Display for SchemaErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for SchemaErrors {}
