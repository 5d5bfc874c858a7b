//! The vocabulary (docs/glossary.md): the terms that it has replaced do not return, in identifiers, in names of files,
//! metrics and messages, and in prose.
//!
//! `terms` has the terms, and exceptions with their reasons. Does not judge whether a sentence is readable.

mod terms;

use std::collections::HashSet;

use super::{
    File,
    text::{Piece, identifiers, prose, words_of},
};
use terms::{DATA, EXCEPTIONS, LETTERS, METRICS, NAMES, PHRASES, PROSE, TYPES, Terms};

/// A retired term in a file.
struct Finding<'a> {
    file: &'a File,
    line: usize,
    what: String,
    term: &'static str,
    instead: &'static str,
}

impl Finding<'_> {
    fn is_exception(&self, (path, term, _): &(&str, &str, &str)) -> bool {
        self.file.path.starts_with(path) && self.term == *term
    }
}

/// The messages about findings that are no exceptions.
fn messages(found: Vec<Finding<'_>>) -> Vec<String> {
    let is_wrong = |finding: &Finding<'_>| !EXCEPTIONS.iter().any(|exception| finding.is_exception(exception));
    let message = |Finding { file, line, what, instead, .. }: Finding<'_>| {
        file.wrong(line, &what, &format!("write: {instead} (docs/glossary.md)"))
    };
    found.into_iter().filter(is_wrong).map(message).collect()
}

/// No identifier of a program, a template or a protobuf file contains a retired term.
pub(super) fn identifiers_use_the_vocabulary(files: &[File]) -> Vec<String> {
    messages(in_identifiers(files))
}

fn in_identifiers(files: &[File]) -> Vec<Finding<'_>> {
    let mut found = Vec::new();
    // Most identifiers occur often.
    let mut clean = HashSet::new();
    for file in files {
        for Piece { line, text } in identifiers(file) {
            if clean.contains(&text) {
                continue;
            }
            let mut terms = retired(file, line, &text, "identifier");
            if let Some((term, instead)) = TYPES.into_iter().find(|(name, _)| text == *name && file.is_rust()) {
                let what = format!("the identifier `{text}` is retired");
                terms.push(Finding { file, line, what, term, instead });
            }
            if terms.is_empty() {
                clean.insert(text);
            }
            found.extend(terms);
        }
    }
    found
}

/// No file, directory, metric, label, or word that the program outputs as a name contains a retired term.
pub(super) fn names_use_the_vocabulary(files: &[File]) -> Vec<String> {
    messages(in_names(files))
}

fn in_names(files: &[File]) -> Vec<Finding<'_>> {
    let mut found = Vec::new();
    for file in files {
        found.extend(file.path.split('/').flat_map(|name| retired(file, 1, name, "file name")));
        for Piece { line, text } in strings(file) {
            let name = text.trim_matches(|letter: char| !letter.is_ascii_alphabetic());
            let is_name = name.chars().all(|letter| letter.is_ascii_lowercase() || matches!(letter, '_' | '-'));
            let whole = Some(name).filter(|name| is_name && !name.contains('_') && file.path.starts_with("src/"));
            let names = whole.into_iter().chain(metric_names(&text));
            found.extend(names.flat_map(|name| retired(file, line, name, "name")));
        }
        if METRICS.contains(&file.path.as_str()) {
            for (text, line) in file.text.lines().zip(1..) {
                found.extend(metric_names(text).into_iter().flat_map(|name| retired(file, line, name, "name")));
            }
        }
    }
    found
}

/// The string literals of a Rust file, unless they are data.
fn strings(file: &File) -> impl Iterator<Item = Piece> {
    let is_data = DATA.iter().any(|(path, _)| file.path.starts_with(path));
    Some(file).filter(|_| !is_data).into_iter().flat_map(all_strings)
}

/// The string literals of a Rust file, with a space for each line break.
fn all_strings(file: &File) -> impl Iterator<Item = Piece> {
    let strings = file.rust().into_iter().flat_map(|rust| &rust.strings);
    strings.map(|piece| Piece { line: piece.line, text: piece.text.replace("\\n", " ") })
}

/// The names in a text with metrics: what has an underscore, and the names and values of labels.
fn metric_names(text: &str) -> Vec<&str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let names = text.split(|letter| !is_part(letter)).filter(|name| name.contains('_'));
    // In JSON and in string literals the quotes of a value are escaped.
    let marks = ["=\"", "=~\"", "=\\\"", "=~\\\""];
    let values = marks.into_iter().flat_map(|mark| text.match_indices(mark)).flat_map(|(place, mark)| {
        let label = text[..place].rsplit(|letter| !is_part(letter)).next();
        let value = text[place + mark.len()..].split(['"', '\\']).next();
        [label, value]
    });
    names.chain(values.flatten()).collect()
}

/// No comment, no manual, and no message of the program, its tests and its benchmarks contains a retired term.
pub(super) fn prose_uses_the_vocabulary(files: &[File]) -> Vec<String> {
    messages(in_prose(files))
}

fn in_prose(files: &[File]) -> Vec<Finding<'_>> {
    let mut found = Vec::new();
    for file in files {
        let prose: Vec<Piece> = prose(file).iter().flat_map(Piece::words).collect();
        for Piece { line, text } in &prose {
            if let Some((letter, instead)) = LETTERS.into_iter().find(|(letter, _)| text == letter) {
                let what = format!("`{letter}` as a symbol");
                found.push(Finding { file, line: *line, what, term: letter, instead });
            }
        }
        let strings = strings(file).flat_map(|text| text.words().collect::<Vec<_>>());
        let words: Vec<Piece> = prose.into_iter().chain(strings).collect();
        let lower: Vec<String> = words.iter().map(|word| word.text.to_lowercase()).collect();
        for (term, place, instead) in occurrences(&lower, PROSE) {
            let what = format!("the term \"{term}\"");
            found.push(Finding { file, line: words[place].line, what, term, instead });
        }
    }
    found
}

/// Every exception has a place that would break a rule without it, and every phrase occurs.
pub(super) fn vocabulary_exceptions_are_used(files: &[File]) -> Vec<String> {
    let found: Vec<Finding<'_>> = [in_identifiers, in_names, in_prose].iter().flat_map(|rule| rule(files)).collect();
    let mut unused = Vec::new();
    for exception in EXCEPTIONS {
        let (path, term, _) = exception;
        if let Some(file) = files.iter().find(|file| file.path.starts_with(path))
            && !found.iter().any(|finding| finding.is_exception(exception))
        {
            let what = format!("the exception for \"{term}\" is not used");
            unused.push(file.wrong(1, &what, "remove it from EXCEPTIONS in vocabulary/terms.rs"));
        }
    }
    let Some(terms) = files.iter().find(|file| file.path.ends_with("architecture/vocabulary/terms.rs")) else {
        return unused;
    };
    for (phrase, _) in PHRASES {
        let has_phrase = |file: &File| {
            let words = file.text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
            words.collect::<Vec<_>>().join(" ").to_lowercase().contains(phrase)
        };
        let mut others = files.iter().filter(|file| !DATA.iter().any(|(path, _)| file.path.starts_with(path)));
        if !others.any(has_phrase) {
            unused.push(terms.wrong(1, &format!("the phrase \"{phrase}\" does not occur"), "remove it from PHRASES"));
        }
    }
    for (path, _) in DATA {
        let strings = files.iter().filter(|file| file.path.starts_with(path)).flat_map(all_strings);
        let words: Vec<String> = strings.flat_map(|text| words_of(&text.text)).collect();
        if occurrences(&words, PROSE).is_empty() && occurrences(&words, NAMES).is_empty() {
            let what = format!("the string literals of {path} have no retired terms");
            unused.push(terms.wrong(1, &what, "remove it from DATA"));
        }
    }
    unused
}

/// The retired terms in a name.
fn retired<'a>(file: &'a File, line: usize, name: &str, kind: &str) -> Vec<Finding<'a>> {
    let found = occurrences(&words_of(name), NAMES);
    let what = |term| format!("the {kind} `{name}` contains the retired term \"{term}\"");
    found.into_iter().map(|(term, _, instead)| Finding { file, line, what: what(term), term, instead }).collect()
}

/// The terms among these words, each with its place and what to use instead.
fn occurrences(words: &[String], terms: &'static Terms) -> Vec<(&'static str, usize, &'static str)> {
    let has = |place: usize, phrase: &str| {
        phrase.split(' ').enumerate().all(|(index, word)| words.get(place + index).is_some_and(|other| other == word))
    };
    let is_in_phrase = |place: usize, term: &str| {
        PHRASES.iter().any(|(phrase, _)| {
            phrase
                .split(' ')
                .position(|word| word == term)
                .is_some_and(|index| index <= place && has(place - index, phrase))
        })
    };
    let mut found = Vec::new();
    for (alternatives, instead) in terms {
        for term in *alternatives {
            let places = (0..words.len()).filter(|place| has(*place, term) && !is_in_phrase(*place, term));
            found.extend(places.map(|place| (*term, place, *instead)));
        }
    }
    found
}
