//! The language of permissions: names, `!`, `&`, `|`, parentheses and `edge.name`. `!` binds tightest, then `&`, then `|`.
//!
//! Only syntax: what the names are is settled by the compiler.

use super::mistake::{Mistake, Span};

/// How deep one expression nests at most.
const DEPTH_MAX: usize = 32;

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

/// Whether the text can name a type, a relation or a permission: `[a-z][a-z0-9_]*`.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(is_name_part)
}

fn is_name_part(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

/// Reads an expression. `at` is the place of its first byte in the schema, or none where the schema's text differs from it
/// (escapes); then mistakes are shown at `span`.
pub(crate) fn parse(text: &str, at: Option<usize>, span: &Span) -> Result<Syntax, Mistake> {
    let mut parser = Parser { text, position: 0, at, span };
    let syntax = parser.any_of(0)?;
    match parser.peek() {
        None => Ok(syntax),
        Some(')') => Err(parser.wrong_here("this `)` closes nothing")),
        Some(c) if is_name_part(c) || matches!(c, '!' | '(') => {
            Err(parser.wrong_here("an operator is missing here").help("`|` is or, `&` is and"))
        }
        Some(c) => Err(parser.unexpected(c)),
    }
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

    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        let blank = rest.len() - rest.trim_start().len();
        self.position += blank;
        self.rest().chars().next()
    }

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

    fn wrong_here(&self, message: impl Into<String>) -> Mistake {
        let width = self.rest().chars().next().map_or(0, char::len_utf8);
        Mistake::new(&self.place(self.position, self.position + width), message)
    }

    fn unexpected(&self, c: char) -> Mistake {
        self.wrong_here(format!("`{c}` means nothing in a permission"))
            .help("a permission is made of names, `!`, `&`, `|`, parentheses and `edge.name`")
    }

    fn any_of(&mut self, depth: usize) -> Result<Syntax, Mistake> {
        let mut sides = vec![self.all_of(depth)?];
        while self.take('|') {
            sides.push(self.all_of(depth)?);
        }
        Ok(one_or(sides, Syntax::Or))
    }

    fn all_of(&mut self, depth: usize) -> Result<Syntax, Mistake> {
        let mut sides = vec![self.one(depth)?];
        while self.take('&') {
            sides.push(self.one(depth)?);
        }
        Ok(one_or(sides, Syntax::And))
    }

    fn one(&mut self, depth: usize) -> Result<Syntax, Mistake> {
        if depth > DEPTH_MAX {
            return Err(self.wrong_here(format!("the expression nests deeper than {DEPTH_MAX}")));
        }
        if self.take('!') {
            return Ok(Syntax::Not(Box::new(self.one(depth + 1)?)));
        }
        let open = self.position;
        if self.take('(') {
            let inner = self.any_of(depth + 1)?;
            if self.take(')') {
                return Ok(inner);
            }
            return Err(Mistake::new(&self.place(open, open + 1), "this `(` is never closed"));
        }
        let name = self.name()?;
        if !self.take('.') {
            return Ok(Syntax::Name(name));
        }
        let member = self.name()?;
        if self.peek() == Some('.') {
            return Err(self.wrong_here("only one edge can be followed at a time").help(format!(
                "give `{}` a permission for the rest of the way, and name that here",
                name.text
            )));
        }
        Ok(Syntax::Walk { edge: name, member })
    }

    fn name(&mut self) -> Result<Name, Mistake> {
        match self.peek() {
            None => return Err(self.wrong_here("a name is missing at the end")),
            Some(c) if c.is_ascii_lowercase() => {}
            Some(c) if matches!(c, '|' | '&' | ')' | '.') => {
                return Err(self.wrong_here(format!("a name is missing before `{c}`")));
            }
            Some(c) if c.is_alphanumeric() || c == '_' => {
                return Err(self.wrong_here("a name starts with a lower-case letter")
                    .help("names are lower-case letters, digits and `_`"));
            }
            Some(c) => return Err(self.unexpected(c)),
        }
        let text: String = self.rest().chars().take_while(|c| is_name_part(*c)).collect();
        let from = self.position;
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
        let join = |sides: &[Syntax], by: &str| {
            format!("({})", sides.iter().map(shown).collect::<Vec<_>>().join(by))
        };
        match syntax {
            Syntax::Name(name) => name.text.clone(),
            Syntax::Walk { edge, member } => format!("{}.{}", edge.text, member.text),
            Syntax::Not(inner) => format!("!{}", shown(inner)),
            Syntax::And(sides) => join(sides, " & "),
            Syntax::Or(sides) => join(sides, " | "),
        }
    }

    #[test]
    fn binds_as_documented() {
        for (text, meaning) in [
            ("a | b & !c", "(a | (b & !c))"),
            ("!(a | b)&c.d", "(!(a | b) & c.d)"),
            ("((a))", "a"),
            ("!!a", "!!a"),
            ("a & b | c & d", "((a & b) | (c & d))"),
        ] {
            assert_eq!(shown(&parse(text, None, &(0..0)).unwrap()), meaning, "{text}");
        }
    }

    #[test]
    fn a_mistake_has_its_place() {
        for (text, place, message) in [
            ("a | ", 4..4, "a name is missing at the end"),
            ("a || b", 3..4, "a name is missing before `|`"),
            ("(a | b", 0..1, "this `(` is never closed"),
            ("a b", 2..3, "an operator is missing here"),
            ("a)", 1..2, "this `)` closes nothing"),
            ("a + b", 2..3, "`+` means nothing in a permission"),
            ("a.b.c", 3..4, "only one edge can be followed at a time"),
            ("Admin", 0..1, "a name starts with a lower-case letter"),
        ] {
            let mistake = parse(text, Some(100), &(0..0)).unwrap_err();
            assert_eq!((mistake.span, mistake.message.as_str()), (100 + place.start..100 + place.end, message), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(parse(&"(".repeat(100_000), None, &(0..0)).is_err());
        assert!(parse(&"!".repeat(100_000), None, &(0..0)).is_err());
    }
}
