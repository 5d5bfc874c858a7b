//! The paths that a Rust file names, with their lines: in `use`, in code, and in the arguments of macros, which a
//! syntax tree would not show.
//!
//! Reads tokens, not comments, documentation and strings. Knows no rules.

use std::{collections::HashSet, iter::Peekable, vec::IntoIter};

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// The names in a file.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Every path of two or more names, and every path of a `use`.
    pub(super) paths: Vec<Found>,
    /// Every macro that is called, by the last name of its path.
    pub(super) macros: Vec<Found>,
    /// The modules that are declared, in order.
    pub(super) modules: Vec<Found>,
    /// What each `use` brings into the file.
    pub(super) imports: Vec<Import>,
    /// Every path outside of `use`, single names included, however its first name came into the file.
    pub(super) code: Vec<Found>,
}

/// A name that a `use` brings into the file.
#[derive(Debug)]
pub(super) struct Import {
    /// The path that it stands for.
    pub(super) found: Found,
    /// The name in the file, or `*` for every name of the path.
    pub(super) name: String,
    /// Whether other files may take the name from this one.
    pub(super) is_exported: bool,
}

/// A path, and its line.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) line: usize,
    /// From the crate's root (`crate`, then names) if the path begins with `crate`, `super` or `self`; otherwise as
    /// written.
    pub(super) path: Vec<String>,
}

impl Named {
    /// Reads a file. `module` is its path in the crate.
    pub(super) fn of(text: &str, module: &[&str]) -> Self {
        let tokens: TokenStream = text.parse().expect("Rust that compiles");
        let mut reader = Reader { named: Self::default(), locals: HashSet::new() };
        let module: Vec<String> = module.iter().map(|name| (*name).to_owned()).collect();
        reader.read(tokens, &module);
        let Reader { mut named, locals } = reader;
        // A name that the file declares or imports itself is not the name of a crate.
        named.paths.retain(|found| found.path.first().is_none_or(|first| !locals.contains(first)));
        named
    }
}

type Tokens = Peekable<IntoIter<TokenTree>>;

/// What precedes a name.
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
        // Whether a `pub` or a `pub(…)` comes just before.
        let mut is_public = false;
        while let Some(token) = tokens.next() {
            let was_public = is_public;
            is_public = match &token {
                TokenTree::Ident(ident) => ident == "pub",
                TokenTree::Group(group) => is_public && group.delimiter() == Delimiter::Parenthesis,
                _ => false,
            };
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
                    // A path may start after `..` and `..=`; `->` and `=>` close nothing.
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
                        ("use", Some(next)) if !is_punct(next, '<') => {
                            self.uses(&mut tokens, &[], module, was_public);
                        }
                        _ => self.path(name, line, &mut tokens, module, before == Before::Start),
                    }
                    Before::Other
                }
            };
        }
    }

    /// Reads `mod name;` or `mod name { … }`, from after the `mod`.
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

    /// Reads one tree of a `use`, or several with commas between them.
    fn uses(&mut self, tokens: &mut Tokens, prefix: &[String], module: &[String], is_exported: bool) {
        // There is no line while no tree has begun: at the start, after a group and after the last comma.
        let (mut path, mut line, mut name) = (prefix.to_vec(), None, String::new());
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(ident) if ident == "as" => {
                    if let Some(TokenTree::Ident(alias)) = tokens.next() {
                        name = alias.to_string();
                        self.locals.insert(name.clone());
                    }
                }
                TokenTree::Ident(ident) => {
                    line = Some(ident.span().start().line);
                    if ident != "self" || path.is_empty() {
                        path.push(ident.to_string());
                    }
                    name = path.last().cloned().unwrap_or_default();
                    let goes_on = tokens.peek().is_some_and(|next| is_punct(next, ':'));
                    if !goes_on && path.len() > 1 {
                        self.locals.extend(path.last().cloned());
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {}
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    (line, name) = (Some(punct.span().start().line), "*".to_owned());
                }
                TokenTree::Group(group) => {
                    let mut inner = group.stream().into_iter().collect::<Vec<_>>().into_iter().peekable();
                    self.uses(&mut inner, &path, module, is_exported);
                    line = None;
                }
                _ => {
                    self.used(&path, line, module, (&name, is_exported));
                    (path, line) = (prefix.to_vec(), None);
                    if is_punct(&token, ';') {
                        return;
                    }
                }
            }
        }
        self.used(&path, line, module, (&name, is_exported));
    }

    fn used(&mut self, path: &[String], line: Option<usize>, module: &[String], (name, is_exported): (&str, bool)) {
        let Some(found) = line.and_then(|line| found(path, line, module)) else { return };
        self.named.paths.push(found.clone());
        self.named.imports.push(Import { found, name: name.to_owned(), is_exported });
    }

    /// Reads a path in code, from after its first name.
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
        if let Some(found) = found(&path, line, module).filter(|_| !is_continued) {
            self.named.paths.extend(Some(found.clone()).filter(|found| found.path.len() > 1));
            self.named.code.push(found);
        }
    }
}

/// A path as it is kept, with `super` and `self` replaced.
fn found(path: &[String], line: usize, module: &[String]) -> Option<Found> {
    let root = || vec!["crate".to_owned()];
    let ups = path.iter().take_while(|name| *name == "super").count();
    let rest = path.get(ups.max(1)..).unwrap_or_default();
    let path = match path.first()?.as_str() {
        // The receiver `self`, which is no path.
        "self" if path.len() == 1 => return None,
        "super" => [root(), module[..module.len().saturating_sub(ups)].to_vec(), rest.to_vec()].concat(),
        "self" => [root(), module.to_vec(), rest.to_vec()].concat(),
        _ => path.to_vec(),
    };
    Some(Found { line, path })
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
