//! Which paths a Rust file names, and where: in `use`, inline, and inside of macros, which no syntax tree shows.
//!
//! Reads tokens and knows no rules. What is in comments, documentation and strings is not a path.

use std::{collections::HashSet, iter::Peekable, vec::IntoIter};

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// What the tokens of a file name.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Every path of two names or more, and every path of a `use`.
    pub(super) paths: Vec<Found>,
    /// Every macro that is called, by the last name of its path.
    pub(super) macros: Vec<Found>,
    /// The modules that are declared, in order.
    pub(super) modules: Vec<Found>,
}

/// A path, and its line.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) line: usize,
    /// From the crate's root if it is of this crate (`crate`, then names), else as written.
    pub(super) path: Vec<String>,
}

impl Named {
    /// Reads a file; `module` is its place in the crate.
    pub(super) fn of(text: &str, module: &[&str]) -> Self {
        let tokens: TokenStream = text.parse().expect("Rust that compiles");
        let mut reader = Reader { named: Self::default(), locals: HashSet::new() };
        let module: Vec<String> = module.iter().map(|name| (*name).to_owned()).collect();
        reader.read(tokens, &module);
        let Reader { mut named, locals } = reader;
        // A name that the file itself declares or imports is no crate's.
        named.paths.retain(|found| found.path.first().is_none_or(|first| !locals.contains(first)));
        named
    }
}

type Tokens = Peekable<IntoIter<TokenTree>>;

/// What stands before a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The start of its path: `value.`, or `<T as Trait>::`.
    Start,
    /// A `>`.
    Close,
    Other,
}

struct Reader {
    named: Named,
    locals: HashSet<String>,
}

impl Reader {
    fn read(&mut self, tokens: TokenStream, module: &[String]) {
        let mut tokens = tokens.into_iter().collect::<Vec<_>>().into_iter().peekable();
        let mut before = Before::Other;
        while let Some(token) = tokens.next() {
            before = match token {
                TokenTree::Group(group) => {
                    self.read(group.stream(), module);
                    Before::Other
                }
                TokenTree::Literal(_) => Before::Other,
                TokenTree::Punct(punct) => match punct.as_char() {
                    ':' if punct.spacing() == Spacing::Joint && take(&mut tokens, ':') => match before {
                        Before::Close => Before::Start,
                        _ => Before::Other,
                    },
                    // `..` and `..=` start what follows; `->` and `=>` close nothing.
                    '.' if punct.spacing() == Spacing::Joint => {
                        take(&mut tokens, '.');
                        Before::Other
                    }
                    '-' | '=' if punct.spacing() == Spacing::Joint => {
                        take(&mut tokens, '>');
                        Before::Other
                    }
                    '.' => Before::Start,
                    '>' => Before::Close,
                    _ => Before::Other,
                },
                TokenTree::Ident(ident) => {
                    let (line, name) = (ident.span().start().line, ident.to_string());
                    match (name.as_str(), tokens.peek()) {
                        ("mod", Some(TokenTree::Ident(_))) => self.module(&mut tokens, module),
                        ("use", Some(next)) if !is_punct(next, '<') => self.uses(&mut tokens, &[], module),
                        _ => self.path(name, line, &mut tokens, module, before == Before::Start),
                    }
                    Before::Other
                }
            };
        }
    }

    /// `mod name;` or `mod name { … }`, behind the `mod`.
    fn module(&mut self, tokens: &mut Tokens, module: &[String]) {
        let Some(TokenTree::Ident(name)) = tokens.next() else {
            return;
        };
        let (line, name) = (name.span().start().line, name.to_string());
        self.locals.insert(name.clone());
        let inner = [module, &[name]].concat();
        self.named.modules.push(Found { line, path: inner.clone() });
        if let Some(TokenTree::Group(group)) = tokens.peek()
            && group.delimiter() == Delimiter::Brace
        {
            self.read(group.stream(), &inner);
            tokens.next();
        }
    }

    /// One tree of a `use`, or several with commas between.
    fn uses(&mut self, tokens: &mut Tokens, prefix: &[String], module: &[String]) {
        // The line is none where a tree has not begun: before it, behind a group, and behind the last comma.
        let (mut path, mut line) = (prefix.to_vec(), None);
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(ident) if ident == "as" => {
                    if let Some(TokenTree::Ident(alias)) = tokens.next() {
                        self.locals.insert(alias.to_string());
                    }
                }
                TokenTree::Ident(ident) => {
                    line = Some(ident.span().start().line);
                    let name = ident.to_string();
                    if name != "self" || path.is_empty() {
                        path.push(name);
                    }
                    let goes_on = tokens.peek().is_some_and(|next| is_punct(next, ':'));
                    if !goes_on && path.len() > 1 {
                        self.locals.extend(path.last().cloned());
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {}
                TokenTree::Punct(punct) if punct.as_char() == '*' => line = Some(punct.span().start().line),
                TokenTree::Group(group) => {
                    let mut inner = group.stream().into_iter().collect::<Vec<_>>().into_iter().peekable();
                    self.uses(&mut inner, &path, module);
                    line = None;
                }
                _ => {
                    self.used(&path, line, module);
                    (path, line) = (prefix.to_vec(), None);
                    if is_punct(&token, ';') {
                        return;
                    }
                }
            }
        }
        self.used(&path, line, module);
    }

    fn used(&mut self, path: &[String], line: Option<usize>, module: &[String]) {
        if let Some(line) = line {
            self.found(path, line, module);
        }
    }

    /// A path inside of code, behind its first name.
    fn path(&mut self, first: String, line: usize, tokens: &mut Tokens, module: &[String], is_continued: bool) {
        let mut path = vec![first];
        while path_goes_on(tokens) {
            take(tokens, ':');
            take(tokens, ':');
            match tokens.peek() {
                Some(TokenTree::Ident(next)) => path.push(next.to_string()),
                _ => break,
            }
            tokens.next();
        }
        if tokens.peek().is_some_and(|next| is_punct(next, '!')) {
            self.named.macros.push(Found { line, path: path.last().cloned().into_iter().collect() });
        }
        if path.len() > 1 && !is_continued {
            self.found(&path, line, module);
        }
    }

    fn found(&mut self, path: &[String], line: usize, module: &[String]) {
        let Some(first) = path.first() else { return };
        let root = || vec!["crate".to_owned()];
        let ups = path.iter().take_while(|name| *name == "super").count();
        let rest = path.get(ups.max(1)..).unwrap_or_default();
        let path = match first.as_str() {
            "super" => [root(), module[..module.len().saturating_sub(ups)].to_vec(), rest.to_vec()].concat(),
            "self" => [root(), module.to_vec(), rest.to_vec()].concat(),
            _ => path.to_vec(),
        };
        self.named.paths.push(Found { line, path });
    }
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn take(tokens: &mut Tokens, wanted: char) -> bool {
    tokens.next_if(|token| is_punct(token, wanted)).is_some()
}

/// Whether `::` comes next, and not a single `:`.
fn path_goes_on(tokens: &mut Tokens) -> bool {
    matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == ':' && punct.spacing() == Spacing::Joint)
}
