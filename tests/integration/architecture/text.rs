//! The words of a file: of its identifiers, of its string literals, and of its prose, which is the text outside of its
//! code.
//!
//! Knows no rules.

use std::{ops::Range, path::Path};

use proc_macro2::{TokenStream, TokenTree};

use super::File;

/// A piece of text, and the line on which it begins.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) line: usize,
    pub(super) text: String,
}

impl Piece {
    fn new(line: usize, text: impl Into<String>) -> Self {
        Self { line, text: text.into() }
    }

    /// Its words, which are runs of letters and digits.
    pub(super) fn words(&self) -> impl Iterator<Item = Self> {
        let words = self.text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map(|word| Self::new(self.line, word))
    }
}

/// What a Rust file consists of.
#[derive(Debug, Default)]
pub(super) struct Rust {
    pub(super) identifiers: Vec<Piece>,
    /// The string literals, with their quotes.
    pub(super) strings: Vec<Piece>,
    /// The comments and the documentation, one piece for each line, without `//`.
    pub(super) comments: Vec<Piece>,
}

impl Rust {
    pub(super) fn of(text: &str) -> Self {
        let tokens: TokenStream = text.parse().expect("Rust that compiles");
        let mut reader = Reader { rust: Self::default(), text, rest: text.as_bytes().to_vec(), lines: Vec::new() };
        reader.lines.extend(text.match_indices('\n').map(|(place, _)| place));
        reader.read(tokens);
        let Reader { mut rust, rest, .. } = reader;
        let rest = String::from_utf8(rest).expect("whole tokens were removed");
        rust.comments = rest.lines().zip(1..).map(|(text, line)| Piece::new(line, uncommented(text))).collect();
        rust.comments.retain(|piece| !piece.text.is_empty());
        rust
    }
}

struct Reader<'a> {
    rust: Rust,
    text: &'a str,
    /// The text without its tokens: in the end, the comments.
    rest: Vec<u8>,
    /// Where each line ends.
    lines: Vec<usize>,
}

impl Reader<'_> {
    /// Collects tokens, and blanks them in the rest. A documentation comment is read as an attribute whose tokens all have
    /// the place of the comment, which stays in the rest.
    fn read(&mut self, tokens: TokenStream) {
        for token in tokens {
            // The place of a token is slow to find, and found only once.
            let range = token.span().byte_range();
            if self.text[range.start..].starts_with("//") {
                continue;
            }
            let line = self.lines.partition_point(|end| *end < range.start) + 1;
            match token {
                TokenTree::Group(group) => {
                    self.blank(range.start..range.start + 1);
                    self.blank(range.end - 1..range.end);
                    self.read(group.stream());
                }
                TokenTree::Ident(ident) => {
                    self.rust.identifiers.push(Piece::new(line, ident.to_string()));
                    self.blank(range);
                }
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    if text.ends_with(['"', '#']) {
                        self.rust.strings.push(Piece::new(line, text));
                    }
                    self.blank(range);
                }
                TokenTree::Punct(_) => self.blank(range),
            }
        }
    }

    fn blank(&mut self, range: Range<usize>) {
        self.rest[range].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    }
}

/// The identifiers of a program, a template or a protobuf file. None for other files.
pub(super) fn identifiers(file: &File) -> Vec<Piece> {
    match Path::new(&file.path).extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "rs" => file.rust().map(|rust| rust.identifiers.clone()).unwrap_or_default(),
        "proto" | "go" | "mjs" | "js" | "ts" => identifiers_of(&file.text, "//"),
        "py" => identifiers_of(&file.text, "#"),
        // The code of a template is between `{{` and `}}`.
        "html" => {
            let actions = file.text.match_indices("{{").filter_map(|(start, _)| {
                let line = file.text[..start].matches('\n').count();
                let code = file.text[start..].split("}}").next()?;
                Some((line, identifiers_of(code, "//")))
            });
            actions
                .flat_map(|(above, found)| found.into_iter().map(move |piece| (above, piece)))
                .map(|(above, piece)| Piece { line: above + piece.line, ..piece })
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The identifiers of code, outside of its strings and of its comments, which begin with a mark and end with their line.
fn identifiers_of(code: &str, comment: &str) -> Vec<Piece> {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let (mut found, mut line, mut rest) = (Vec::new(), 1, code);
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with(comment) {
            rest.find('\n').unwrap_or(rest.len())
        } else if matches!(first, '"' | '\'' | '`') {
            // A quote after a backslash does not end a string.
            let mut is_escaped = false;
            let end = rest.char_indices().skip(1).find(|(_, letter)| {
                let ends = *letter == first && !is_escaped;
                is_escaped = *letter == '\\' && !is_escaped;
                ends
            });
            end.map_or(rest.len(), |(place, quote)| place + quote.len_utf8())
        } else if is_part(first) {
            let length = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
            found.push(Piece::new(line, &rest[..length]));
            length
        } else {
            first.len_utf8()
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// The words of an identifier in `snake_case` or `CamelCase`, in lower case.
pub(super) fn words_of(identifier: &str) -> Vec<String> {
    let letters: Vec<char> = identifier.chars().collect();
    let mut words = vec![String::new()];
    for (place, letter) in letters.iter().enumerate() {
        let before = place.checked_sub(1).map(|place| letters[place]);
        let begins = letter.is_uppercase()
            && (before.is_some_and(char::is_lowercase)
                || letters.get(place + 1).is_some_and(|next| next.is_lowercase()));
        if begins || !letter.is_alphabetic() {
            words.push(String::new());
        }
        if letter.is_alphabetic() {
            words.last_mut().expect("there is one").extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The text of a file outside of its code, line by line: all of a manual, the comments of code. None for other files.
pub(super) fn prose(file: &File) -> Vec<Piece> {
    let lines = || file.text.lines().zip(1..);
    let after = |mark: &'static str| {
        lines().filter_map(move |(text, line)| Some(Piece::new(line, uncommented(&text[comment(text, mark)?..]))))
    };
    let path = Path::new(&file.path);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match path.extension().and_then(|extension| extension.to_str()).unwrap_or(name) {
        "md" => lines().map(|(text, line)| Piece::new(line, text)).collect(),
        "rs" => file.rust().map(|rust| rust.comments.clone()).unwrap_or_default(),
        "proto" | "go" | "mjs" => after("//").collect(),
        "toml" | "yml" | "yaml" | "sh" | "py" | "Makefile" | "Dockerfile" | "dockerignore" => after("#").collect(),
        _ if file.text.starts_with("#!") => after("#").collect(),
        _ => Vec::new(),
    }
}

/// Where the comment of a line begins: at a mark at its start or after a space.
fn comment(text: &str, mark: &str) -> Option<usize> {
    let begins = |place: &usize| text[..*place].chars().next_back().is_none_or(char::is_whitespace);
    text.match_indices(mark).map(|(place, _)| place).find(begins)
}

/// A line of a comment without its marks.
fn uncommented(text: &str) -> &str {
    text.trim().trim_start_matches(['/', '#']).trim_start_matches('!').trim()
}
