//! The vocabulary (docs/glossary.md): the terms that it has replaced do not return, in identifiers, in names of files,
//! metrics and messages, and in prose.
//!
//! The terms are data, and each exception states its reason. Does not judge whether a sentence is readable.

use std::collections::HashSet;

use super::{
    File, has_extension,
    text::{Piece, prose, words_of},
};

/// Retired terms, and what to use instead. Terms of several words are written with spaces.
type Terms = [(&'static [&'static str], &'static str)];

/// Terms that occur in no name.
const NAMES: &Terms = &[
    (&["said", "says", "say", "saying"], "output, message, text, reports; for the bus: published, publish"),
    (&["heard", "hear", "hears", "hearer", "hearing"], "received, applied; receive, apply"),
    (&["told", "tell", "tells", "teller", "telling"], "notified, published; notify, publish"),
    (&["speak", "speaks", "speaker", "spoke"], "leader, leads, publishes"),
    (&["ear"], "subscriber, subscription"),
    (&["wire"], "Redis channel, codec, or the protocol's name"),
    (&["news"], "update, change batch"),
    (&["watched"], "tracked facts, or the name of the collections that are followed"),
    (&["statement", "statements"], "change batch"),
    (&["horizon"], "watermark, progress"),
    (&["demand", "demands", "demanded", "demanding"], "consistency; required"),
    (&["need", "needs", "needed"], "freshness requirement; required, wanted, missing"),
    (&["flight", "flights"], "in-flight load, load"),
    (&["boarding", "boarded", "fare", "seat", "seats", "landed", "landing"], "join, loader, waiter, load result"),
    (&["held", "at hand"], "cached fact, request facts, available facts"),
    (&["remembered", "remember", "remembers"], "cached, cache"),
    (&["seldom", "vitals", "filling"], "rate-limited log, health monitor, Redis writer"),
    (&["room", "rooms"], "write budget, capacity, free space"),
    (&["reading", "readings"], "sampled metric; a verb for what is read"),
    (&["sound", "soundness", "arrange"], "valid, validate; plan"),
    (&["mistake", "mistakes"], "schema error, configuration error"),
    (&["greet", "greeting"], "handshake, protocol preface"),
    (&["stranger", "strangers"], "unauthenticated or unidentified client, other client"),
    (&["farewell"], "graceful shutdown, drain"),
];

/// Phrases in which a term of [`NAMES`] or [`PROSE`] has its ordinary meaning, each with the reason.
const PHRASES: &[(&str, &str)] = &[
    ("in flight", "the usual term for a load or a call that has not returned"),
    ("one statement per sentence", "a statement of prose, not one about changes"),
];

/// Terms that prose does not use. Ordinary words such as "need" and "say" are no terms there.
const PROSE: &Terms = &[
    (&["speaker", "speakers", "speaks for all", "term of office"], "leader, lease, term"),
    (&["horizon"], "watermark"),
    (&["statement", "statements"], "change batch"),
    (&["flight", "flights", "boarding", "fare", "fares", "seat", "seats"], "in-flight load, loader, waiter"),
    (&["at hand", "remembered fact", "remembered facts", "held fact", "held facts"], "cached fact, request facts"),
    (&["vitals"], "health monitor"),
    (&["speaks for", "is told", "was told"], "leads, is notified: name who notifies whom"),
    (&["soundness"], "validation"),
    (&["mistake", "mistakes"], "schema error, configuration error"),
    (&["stranger", "strangers"], "unauthenticated or unidentified client, other client"),
    (&["farewell", "greeting"], "graceful shutdown, handshake"),
    (&["design section", "first design", "design sections"], "a reference to ARCHITECTURE.md or to a file of docs"),
];

/// Letters that stood for moments, and what to write instead.
const LETTERS: [(&str, &str); 2] = [("W", "the watermark"), ("X", "the newest moment")];

/// Where a term or a letter may occur all the same: the start of the path, the term and the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("CHANGELOG.md", "speaker", "the old name of a metric, for those who have it on a dashboard"),
    ("CHANGELOG.md", "flight", "the same"),
    ("CHANGELOG.md", "flights", "the same"),
];

/// Files whose metrics and labels are names.
const METRICS: [&str; 3] = ["docs/metrics.md", "deploy/alerts.yml", "deploy/grafana/dashboards/permcached.json"];

/// No identifier of Rust or protobuf code contains a retired term.
pub(super) fn identifiers_use_the_vocabulary(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut right = HashSet::new();
    for file in files {
        let of_proto = if has_extension(&file.path, "proto") { code_of_proto(&file.text) } else { Vec::new() };
        for Piece { line, text } in file.rust().map_or(&of_proto, |rust| &rust.identifiers) {
            if right.contains(text) {
                continue;
            }
            let found = retired(file, *line, text, "identifier");
            if found.is_empty() {
                right.insert(text.clone());
            }
            wrong.extend(found);
        }
    }
    wrong
}

/// The parts of a protobuf file outside of comments, word by word.
fn code_of_proto(text: &str) -> Vec<Piece> {
    let code = text.lines().zip(1..).map(|(text, line)| (text.split("//").next().unwrap_or_default(), line));
    let is_letter = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.flat_map(|(text, line)| {
        text.split(move |letter| !is_letter(letter)).map(move |text| Piece { line, text: text.to_owned() })
    })
    .collect()
}

/// No file, directory, metric, label, or word that the program outputs as a name contains a retired term.
pub(super) fn names_use_the_vocabulary(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files {
        wrong.extend(file.path.split('/').flat_map(|name| retired(file, 1, name, "file name")));
        if let Some(rust) = file.rust() {
            for Piece { line, text } in &rust.strings {
                let name = text.trim_matches(|letter: char| !letter.is_ascii_alphabetic());
                let is_name = name.chars().all(|letter| letter.is_ascii_lowercase() || matches!(letter, '_' | '-'));
                if is_name && (file.path.starts_with("src/") || name.starts_with("permcached_")) {
                    wrong.extend(retired(file, *line, name, "name"));
                }
            }
        } else if METRICS.contains(&file.path.as_str()) {
            for (text, line) in file.text.lines().zip(1..) {
                wrong.extend(metric_names(text).into_iter().flat_map(|name| retired(file, line, name, "name")));
            }
        }
    }
    wrong
}

/// The names in a line with metrics: what has an underscore, and the names and values of labels.
fn metric_names(text: &str) -> Vec<&str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let names = text.split(|letter| !is_part(letter)).filter(|name| name.contains('_'));
    // In JSON the quotes of a value are escaped.
    let marks = ["=\"", "=~\"", "=\\\"", "=~\\\""];
    let values = marks.into_iter().flat_map(|mark| text.match_indices(mark)).flat_map(|(place, mark)| {
        let label = text[..place].rsplit(|letter| !is_part(letter)).next();
        let value = text[place + mark.len()..].split(['"', '\\']).next();
        [label, value]
    });
    names.chain(values.flatten()).collect()
}

/// No comment, no manual and no message of the program contains a retired term.
pub(super) fn prose_uses_the_vocabulary(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| !file.path.ends_with(".fr.md")) {
        let prose: Vec<Piece> = prose(file).iter().flat_map(Piece::words).collect();
        for Piece { line, text } in &prose {
            if let Some((letter, instead)) = LETTERS.into_iter().find(|(letter, _)| text == letter) {
                wrong.extend(object(file, *line, &format!("`{letter}` as a symbol"), letter, instead));
            }
        }
        let is_program = file.path.starts_with("src/");
        let messages = file.rust().into_iter().filter(|_| is_program).flat_map(|rust| &rust.strings);
        let words: Vec<Piece> = prose.into_iter().chain(messages.flat_map(Piece::words)).collect();
        let lower: Vec<String> = words.iter().map(|word| word.text.to_lowercase()).collect();
        for (term, place, instead) in occurrences(&lower, PROSE) {
            wrong.extend(object(file, words[place].line, &format!("the term \"{term}\""), term, instead));
        }
    }
    wrong
}

/// What is wrong with a name.
fn retired(file: &File, line: usize, name: &str, kind: &str) -> Vec<String> {
    let found = occurrences(&words_of(name), NAMES);
    let what = |term| format!("the {kind} `{name}` contains the retired term \"{term}\"");
    found.into_iter().filter_map(|(term, _, instead)| object(file, line, &what(term), term, instead)).collect()
}

/// The terms among these words, each with its place and what to use instead.
fn occurrences<'a>(words: &[String], terms: &'a Terms) -> Vec<(&'static str, usize, &'a str)> {
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

/// The message, unless the file is an exception.
fn object(file: &File, line: usize, what: &str, term: &str, instead: &str) -> Option<String> {
    let is_excepted = EXCEPTIONS.iter().any(|(path, other, _)| file.path.starts_with(path) && *other == term);
    (!is_excepted).then(|| file.wrong(line, what, &format!("write: {instead} (docs/glossary.md)")))
}
