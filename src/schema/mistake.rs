//! What is wrong with a schema, where, and what was probably meant. All mistakes of a file are gathered, then shown at once.
//!
//! Knows nothing of what a schema means.

use std::{fmt, ops::Range};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// A place in the text of the schema, in bytes.
pub(crate) type Span = Range<usize>;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where, in bytes from the start of the text.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Mistake {
    pub(crate) fn new(span: &Span, message: impl Into<String>) -> Self {
        Self { span: span.clone(), message: message.into(), help: None }
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

/// "did you mean `x`?" for the nearest right name; else the list of them; nothing if there are none.
#[must_use]
pub fn suggestion<'a>(wrong: &str, right: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut names: Vec<&str> = right.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    let distance = |name: &&&str| strsim::damerau_levenshtein(&wrong.to_lowercase(), &name.to_lowercase());
    if let Some(near) = names.iter().min_by_key(distance)
        && distance(&near) <= (wrong.chars().count() / 3).max(2)
    {
        return Some(format!("did you mean `{near}`?"));
    }
    let (last, others) = names.split_last()?;
    let quoted = |name: &&str| format!("`{name}`");
    Some(match others {
        [] => format!("the only one is {}", quoted(last)),
        _ => format!("there are {} and {}", others.iter().map(quoted).collect::<Vec<_>>().join(", "), quoted(last)),
    })
}

/// Every mistake of one schema, in the order of the text. Shown with line, column, and a caret under each place.
#[derive(Clone, Debug)]
pub struct Mistakes {
    name: String,
    text: String,
    all: Vec<Mistake>,
}

impl Mistakes {
    pub(crate) fn new(name: &str, text: &str, mut all: Vec<Mistake>) -> Self {
        all.sort_by_key(|mistake| (mistake.span.start, mistake.span.end));
        all.dedup();
        Self { name: name.to_owned(), text: text.to_owned(), all }
    }

    /// Each mistake, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.all.iter()
    }

    /// The text as a person reads it, with the places shown; `colored` for a terminal.
    #[must_use]
    pub fn render(&self, colored: bool) -> String {
        let renderer = if colored { Renderer::styled() } else { Renderer::plain() };
        let mut shown: String = self.all.iter().map(|mistake| self.render_one(mistake, &renderer) + "\n\n").collect();
        let count = self.all.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        shown.push_str(&format!("{}: {count} {noun}", self.name));
        shown
    }

    fn render_one(&self, mistake: &Mistake, renderer: &Renderer) -> String {
        let end = mistake.span.end.min(self.text.len());
        let start = mistake.span.start.min(end);
        let snippet =
            Snippet::source(self.text.as_str()).path(self.name.as_str()).annotation(AnnotationKind::Primary.span(start..end));
        let mut group: Group<'_> = Level::ERROR.primary_title(mistake.message.as_str()).element(snippet);
        if let Some(help) = &mistake.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Mistakes {}
