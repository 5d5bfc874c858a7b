//! What is wrong with a schema, where, and what was probably meant. All mistakes of a file are gathered, then shown at once.
//!
//! Knows nothing of what a schema means.

use std::{cmp::Reverse, fmt, ops::Range};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// A place in the text of the schema, in bytes.
pub(crate) type Span = Range<usize>;

/// How many mistakes are shown at most: nobody mends more than that at once.
pub(crate) const SHOWN_MAX: usize = 100;

/// How many right names are listed at most.
const NAMES_MAX: usize = 12;

/// The longest name, in characters, that is compared with others.
const NAME_CHARS_MAX: usize = 100;

/// How long the lines are at most that are shown, in bytes: in longer ones nobody finds anything.
const LINES_BYTES_MAX: usize = 4_000;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// Where, in bytes from the start of the text; nowhere, if something is missing altogether.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl SchemaError {
    pub(crate) fn new(span: &Span, message: impl Into<String>) -> Self {
        Self { span: Some(span.clone()), message: message.into(), help: None }
    }

    /// Something is not there, so there is no place to show.
    pub(crate) fn of_the_whole(message: impl Into<String>) -> Self {
        Self { span: None, message: message.into(), help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the nearest of the right names as help, or all of them where none is near.
    pub(crate) fn meant<'a>(self, wrong: &str, right: impl IntoIterator<Item = &'a str>) -> Self {
        match suggestion(wrong, right) {
            Some(help) => self.help(help),
            None => self,
        }
    }
}

/// The right name that the wrong one was probably meant to be: of equally near ones, that which starts the same.
pub(crate) fn nearest<'a>(wrong: &str, right: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = wrong.chars().count();
    if length > NAME_CHARS_MAX {
        return None;
    }
    let (wrong, far) = (wrong.to_lowercase(), (length / 3).max(2) + 1);
    let near = right.into_iter().filter(|name| name.chars().count().abs_diff(length) < far);
    let near = near.map(|name| {
        let right = name.to_lowercase();
        let same = wrong.chars().zip(right.chars()).take_while(|(wrong, right)| wrong == right).count();
        (strsim::damerau_levenshtein(&wrong, &right), Reverse(same), name)
    });
    near.filter(|(distance, ..)| *distance < far.min(length)).min().map(|(.., name)| name)
}

/// "did you mean `x`?" for the nearest right name; else the list of them; nothing if there are none.
#[must_use]
pub fn suggestion<'a>(wrong: &str, right: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut names: Vec<&str> = right.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    if let Some(near) = nearest(wrong, names.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    match names.as_slice() {
        [] => None,
        [only] => Some(format!("the only one is `{only}`")),
        names => Some(format!("there are {}", listed(names))),
    }
}

/// "`a`, `b` and `c`", or the first of them.
pub(crate) fn listed(names: &[&str]) -> String {
    let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match (names.split_at_checked(NAMES_MAX), names.split_last()) {
        (Some((shown, hidden)), _) if !hidden.is_empty() => format!("{} and {} more", quoted(shown), hidden.len()),
        (_, Some((last, others))) if !others.is_empty() => format!("{} and `{last}`", quoted(others)),
        _ => quoted(names),
    }
}

/// Every mistake of one schema, in the order of the text. Shown with line, column, and carets under each place.
#[derive(Clone, Debug)]
pub struct SchemaErrors {
    name: String,
    text: String,
    all: Vec<SchemaError>,
}

impl SchemaErrors {
    pub(crate) fn new(name: &str, text: &str, mut all: Vec<SchemaError>) -> Self {
        all.sort_by_key(|error| error.span.as_ref().map(|span| (span.start, span.end)));
        all.dedup();
        Self { name: name.to_owned(), text: text.to_owned(), all }
    }

    /// Each mistake, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &SchemaError> {
        self.all.iter()
    }

    /// Line and column of a mistake, both from 1 and counted in characters; none where the whole schema is meant.
    #[must_use]
    pub fn place(&self, error: &SchemaError) -> Option<(usize, usize)> {
        let before = self.text.get(..error.span.as_ref()?.start)?;
        let line = before.rsplit('\n').next().unwrap_or_default();
        Some((before.matches('\n').count() + 1, line.chars().count() + 1))
    }

    /// The text as a person reads it, with the places shown; `colored` for a terminal.
    #[must_use]
    pub fn render(&self, colored: bool) -> String {
        let renderer = if colored { Renderer::styled() } else { Renderer::plain() };
        let shown = self.all.iter().take(SHOWN_MAX);
        let text: String = shown.map(|error| self.render_one(error, &renderer) + "\n\n").collect();
        let count = self.all.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        let first = if count > SHOWN_MAX { format!("; these are the first {SHOWN_MAX}") } else { String::new() };
        text + &format!("{}: {count} {noun}{first}", self.name)
    }

    fn render_one(&self, error: &SchemaError, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(error.message.as_str());
        let mut group: Group<'_> = match &error.span {
            None => title.element(Origin::path(self.name.as_str())),
            Some(span) if self.lines(span).0.len() > LINES_BYTES_MAX => {
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

    /// The whole lines that a place is in, and the number of the first.
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
