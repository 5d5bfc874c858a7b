//! Parses the language of permissions: names, `!`, `&`, `|`, parentheses and `edge.name`. `!` binds tightest, then `&`, then
//! `|`.
//!
//! Handles only syntax: the compiler resolves the names.

use super::error::{SchemaError, Span};

/// The maximal depth of nested expressions.
const DEPTH_MAX: usize = 32;

/// What a permission writes in place of an edge to name a flag of the asking subject: `subject.admin`.
pub(crate) const OF_SUBJECT: &str = "subject";

/// The maximal length of an expression that a help repeats, in bytes.
const SHOWN_BYTES_MAX: usize = 60;

/// The help where another operator, or none, joins two operands. Other languages evaluate from left to right.
const OPERATORS_HELP: &str = "`|` means or, `&` means and, and `&` binds tighter: use parentheses";

/// A name and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// An expression as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    Name(Name),
    Walk { edge: Name, member: Name },
    Not(Box<Syntax>),
    And(Vec<Syntax>),
    Or(Vec<Syntax>),
}

impl Syntax {
    /// How many edges the expression follows.
    pub(crate) fn walks(&self) -> usize {
        match self {
            Self::Name(_) => 0,
            Self::Walk { .. } => 1,
            Self::Not(inner) => inner.walks(),
            Self::And(sides) | Self::Or(sides) => sides.iter().map(Self::walks).sum(),
        }
    }
}

/// What a name names. Names of permissions may have colons inside, as in `doc:read`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Subject,
    Resource,
    Relation,
    Permission,
}

impl Named {
    /// For messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "a subject",
            Self::Resource => "a resource",
            Self::Relation => "a relation",
            Self::Permission => "a permission",
        }
    }
}

/// Whether the text can be a name: a letter or `_`, then letters, digits and `_`, with single `-` (in permissions also `:`)
/// between these.
pub(crate) fn is_name(text: &str, named: Named) -> bool {
    let is_inside = |c: char| c == '-' || c == ':' && named == Named::Permission;
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.split(is_inside).all(|part| !part.is_empty() && part.chars().all(is_name_part))
}

fn is_name_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// A valid name that resembles an invalid one; none if there is no obvious one.
pub(crate) fn corrected_name(wrong: &str) -> Option<String> {
    let corrected: String = wrong.chars().map(|c| if is_name_part(c) { c } else { '_' }).collect();
    Some(corrected).filter(|corrected| wrong.is_ascii() && is_name(corrected, Named::Relation))
}

/// The help for an invalid name.
pub(crate) fn name_help(wrong: &str, named: Named) -> String {
    let inside = match named {
        Named::Permission => "`-` or `:`",
        Named::Subject | Named::Resource | Named::Relation => "`-`",
    };
    let rule = format!("a name has letters, digits and `_`, single {inside} between these, and no digit first");
    match corrected_name(wrong) {
        Some(corrected) => format!("{rule}: `{corrected}`"),
        None => rule,
    }
}

/// Parses an expression. `at` is the position of its first byte in the schema. It is none if the schema writes the
/// expression with escapes; then errors are shown at `span`.
pub(crate) fn parse(text: &str, at: Option<usize>, span: &Span) -> Result<Syntax, SchemaError> {
    if text.trim().is_empty() {
        return Err(SchemaError::new(span, "the permission is empty").help("for example: owner | reader"));
    }
    let mut parser = Parser { text, position: 0, at, span };
    let syntax = parser.any_of(0)?;
    match parser.peek() {
        None => Ok(syntax),
        Some(')') => Err(parser.wrong_here("this `)` closes nothing")),
        Some(c) if is_word_part(c) || matches!(c, '!' | '(') => Err(parser.no_operator()),
        Some(c) => Err(parser.unexpected(c)),
    }
}

/// Whether a word, valid name or not, may contain the character anywhere.
fn is_word_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the word at the start of a text. It may have `-` and `:` between other characters.
fn word_len(text: &str) -> usize {
    let mut end = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let is_inside = matches!(c, '-' | ':') && at > 0 && chars.peek().is_some_and(|(_, next)| is_word_part(*next));
        if !is_word_part(c) && !is_inside {
            break;
        }
        end = at + c.len_utf8();
    }
    end
}

struct Parser<'a> {
    text: &'a str,
    position: usize,
    at: Option<usize>,
    span: &'a Span,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.position..).unwrap_or_default()
    }

    /// The text before the position, without trailing blanks.
    fn before(&self) -> &str {
        self.text.get(..self.position).unwrap_or_default().trim_end()
    }

    /// The text before the position if it is short, one line, and complete, else `instead`.
    fn before_or<'b>(&'b self, instead: &'b str) -> &'b str {
        let before = self.before().trim_start();
        let count = |wanted: char| before.matches(wanted).count();
        let is_shown = before.len() <= SHOWN_BYTES_MAX && !before.contains('\n') && count('(') == count(')');
        if is_shown { before } else { instead }
    }

    /// The word at the position; empty if there is none.
    fn word(&self) -> &str {
        let rest = self.rest();
        rest.get(..word_len(rest)).unwrap_or_default()
    }

    /// Skips blanks and returns the next character.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        let blank = rest.len() - rest.trim_start().len();
        self.position += blank;
        self.rest().chars().next()
    }

    /// Consumes the character if it comes next, and returns whether it did.
    fn take(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        if is_there {
            self.position += wanted.len_utf8();
        }
        is_there
    }

    fn place(&self, from: usize, to: usize) -> Span {
        self.at.map_or_else(|| self.span.clone(), |at| at + from..at + to)
    }

    /// An error at the word or character at the position or, at the end of the text, after the last one.
    fn wrong_here(&self, message: impl Into<String>) -> SchemaError {
        let place = match self.rest().chars().next() {
            None => self.place(self.before().len(), self.before().len()),
            Some(c) => self.place(self.position, self.position + self.word().len().max(c.len_utf8())),
        };
        SchemaError::new(&place, message)
    }

    fn unexpected(&self, c: char) -> SchemaError {
        let help = match c {
            '+' | ',' => OPERATORS_HELP.to_owned(),
            '-' if self.rest().starts_with("->") => "write a dot to follow an edge: `edge.name`".to_owned(),
            '-' => format!("to exclude something from all before it: `!name & ({})`", self.before_or("…")),
            _ => "a permission consists of names, `!`, `&`, `|`, parentheses and `edge.name`".to_owned(),
        };
        self.wrong_here(format!("`{c}` has no meaning in a permission")).help(help)
    }

    /// The error if an operator is missing between two operands.
    fn no_operator(&self) -> SchemaError {
        let before = self.before();
        let last = before.rfind(|c| !is_word_part(c)).map_or(0, |at| at + 1);
        match (self.word(), before.get(last..)) {
            ("and", _) => self.wrong_here("`and` is written `&`"),
            ("or", _) => self.wrong_here("`or` is written `|`"),
            (_, Some("not")) => SchemaError::new(&self.place(last, before.len()), "`not` is written `!`"),
            _ => self.wrong_here("an operator is missing here").help(OPERATORS_HELP),
        }
    }

    fn any_of(&mut self, depth: usize) -> Result<Syntax, SchemaError> {
        let mut sides = vec![self.all_of(depth)?];
        while self.take('|') {
            sides.push(self.all_of(depth)?);
        }
        Ok(one_or(sides, Syntax::Or))
    }

    fn all_of(&mut self, depth: usize) -> Result<Syntax, SchemaError> {
        let mut sides = vec![self.one(depth)?];
        while self.take('&') {
            sides.push(self.one(depth)?);
        }
        Ok(one_or(sides, Syntax::And))
    }

    fn one(&mut self, depth: usize) -> Result<Syntax, SchemaError> {
        if depth > DEPTH_MAX {
            return Err(self.wrong_here(format!("the expression nests deeper than {DEPTH_MAX}")));
        }
        if self.take('!') {
            return Ok(Syntax::Not(Box::new(self.one(depth + 1)?)));
        }
        let open = self.position;
        if self.take('(') {
            let inner = self.any_of(depth + 1)?;
            return match self.peek() {
                Some(')') => {
                    self.take(')');
                    Ok(inner)
                }
                Some(c) if is_word_part(c) || matches!(c, '!' | '(') => Err(self.no_operator()),
                Some(c) => Err(self.unexpected(c)),
                None => Err(SchemaError::new(&self.place(open, open + 1), "this `(` is never closed")),
            };
        }
        let edge = self.name()?;
        if !self.take('.') {
            return Ok(Syntax::Name(edge));
        }
        if let Some('!' | '(') = self.peek() {
            let error = self.wrong_here("a dot must be followed by a single name");
            let help =
                format!("give the type that `{}` leads to a permission for the rest, and name it here", edge.text);
            return Err(error.help(help));
        }
        let member = self.name()?;
        if self.peek() == Some('.') {
            let help = if edge.text == OF_SUBJECT {
                format!("`{OF_SUBJECT}.NAME` is a flag: for ids in the subject's document, name a relation with `of`")
            } else {
                format!("give the type that `{}` leads to a permission for the rest, and name it here", edge.text)
            };
            return Err(self.wrong_here("only one edge can be followed at a time").help(help));
        }
        Ok(Syntax::Walk { edge, member })
    }

    fn name(&mut self) -> Result<Name, SchemaError> {
        match self.peek() {
            None => return Err(self.wrong_here("a name is missing at the end")),
            Some(c) if is_word_part(c) => {}
            Some(c @ ('|' | '&')) if self.before().ends_with(c) => {
                return Err(self.wrong_here("a name is missing here").help(format!("write `{c}` once")));
            }
            Some(c @ ('|' | '&' | ')' | '.')) => {
                return Err(self.wrong_here(format!("a name is missing before `{c}`")));
            }
            Some(c) => return Err(self.unexpected(c)),
        }
        let word = self.word();
        if !is_name(word, Named::Permission) {
            return Err(self.wrong_here(format!("`{word}` is not a name")).help(name_help(word, Named::Permission)));
        }
        let (text, from) = (word.to_owned(), self.position);
        self.position += text.len();
        Ok(Name { span: self.place(from, self.position), text })
    }
}

fn one_or(mut sides: Vec<Syntax>, join: impl FnOnce(Vec<Syntax>) -> Syntax) -> Syntax {
    match (sides.len(), sides.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            sides.extend(last);
            join(sides)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(syntax: &Syntax) -> String {
        let join = |sides: &[Syntax], by: &str| format!("({})", sides.iter().map(shown).collect::<Vec<_>>().join(by));
        match syntax {
            Syntax::Name(name) => name.text.clone(),
            Syntax::Walk { edge, member } => format!("{}.{}", edge.text, member.text),
            Syntax::Not(inner) => format!("!{}", shown(inner)),
            Syntax::And(sides) => join(sides, " & "),
            Syntax::Or(sides) => join(sides, " | "),
        }
    }

    #[test]
    fn operators_bind_as_documented() {
        for (text, meaning) in [
            ("a | b & !c", "(a | (b & !c))"),
            ("!(a | b)&c.d", "(!(a | b) & c.d)"),
            ("((a))", "a"),
            ("!!a", "!!a"),
            ("a & b | c & d", "((a & b) | (c & d))"),
            ("canEdit|!doc:read&folder.doc:read", "(canEdit | (!doc:read & folder.doc:read))"),
            ("blog-post:read-any | _a | B", "(blog-post:read-any | _a | B)"),
            ("(a:b.c:d)", "a:b.c:d"),
        ] {
            assert_eq!(shown(&parse(text, None, &(0..0)).unwrap()), meaning, "{text}");
        }
    }

    #[test]
    fn an_error_has_its_place() {
        for (text, place, message) in [
            ("a | ", 3..3, "a name is missing at the end"),
            ("a || b", 3..4, "a name is missing here"),
            ("a | & b", 4..5, "a name is missing before `&`"),
            ("(a | b", 0..1, "this `(` is never closed"),
            ("(a b)", 3..4, "an operator is missing here"),
            ("a by b", 2..4, "an operator is missing here"),
            ("a and b", 2..5, "`and` is written `&`"),
            ("a | not b", 4..7, "`not` is written `!`"),
            ("a)", 1..2, "this `)` closes nothing"),
            ("a + b", 2..3, "`+` has no meaning in a permission"),
            ("a.b.c", 3..4, "only one edge can be followed at a time"),
            ("a.!b", 2..3, "a dot must be followed by a single name"),
            ("2nd", 0..3, "`2nd` is not a name"),
            ("a--b", 1..2, "`-` has no meaning in a permission"),
            ("a-", 1..2, "`-` has no meaning in a permission"),
            ("a - b", 2..3, "`-` has no meaning in a permission"),
            ("a->b", 1..2, "`-` has no meaning in a permission"),
            ("a:", 1..2, "`:` has no meaning in a permission"),
            (":a", 0..1, "`:` has no meaning in a permission"),
            ("a : b", 2..3, "`:` has no meaning in a permission"),
            ("é", 0..2, "`é` is not a name"),
        ] {
            let error = parse(text, Some(100), &(0..0)).unwrap_err();
            let place = 100 + place.start..100 + place.end;
            assert_eq!((error.span, error.message.as_str()), (Some(place), message), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(parse(&"(".repeat(100_000), None, &(0..0)).is_err());
        assert!(parse(&"!".repeat(100_000), None, &(0..0)).is_err());
    }
}
