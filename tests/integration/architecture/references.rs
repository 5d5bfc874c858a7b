//! References: every link, file, section, point and test that comments and manuals cite exists.
//!
//! Does not follow links to other sites.

use std::collections::BTreeSet;

use super::{
    File, has_extension,
    text::{Piece, prose},
};

/// Directories of the repository. A path in prose that begins with one of them is a reference.
const DIRECTORIES: [&str; 12] =
    [".ci", ".github", "src", "tests", "benches", "docs", "proto", "schemas", "examples", "deploy", "scripts", "load"];

/// Files of the root whose names are references too. A `.toml` file that is not listed may be anybody's schema.
const ROOT: [&str; 10] = [
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "clippy.toml",
    "compose.yaml",
    "deny.toml",
    "render.yaml",
    "rustfmt.toml",
];

/// The page whose points are numbered, and which "point 4" means where no other page is named.
const POINTS: &str = "docs/freshness.md";

/// Where this repository's own pages are on the web.
pub(super) const OWN_PAGES: &str = "https://github.com/permcached/permcached/blob/main/";

/// The page that names tests and what the model consists of, and where that is.
const PROOF: &str = "docs/proof.md";
const MODEL_RUNS: &str = "tests/integration/model/runs.rs";
const MODEL_SAFEGUARDS: &str = "tests/integration/model/safeguards.rs";
const TESTS: &str = "tests/integration/";

/// The page that names a test for each safeguard.
const SECURITY: &str = "docs/security.md";

/// References to what is not in the repository: the start of the citing file's path, the reference and the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("docs/schema.md", "roadmap.md", "the name of an example's document"),
    ("examples/fylora/README.md", "roadmap.md", "the name of an example's document"),
    ("examples/fylora/README.md", "minutes.md", "the name of an example's document"),
    ("tests/integration/architecture.rs", "mod.rs", "the name that no file may have"),
];

/// What is cited, and where.
struct Citation<'a> {
    file: &'a File,
    line: usize,
    cited: String,
}

impl Citation<'_> {
    /// The message, unless the reference is an exception.
    fn wrong(&self, what: &str, remedy: &str) -> Option<String> {
        let is_excepted =
            |(path, cited, _): &(&str, &str, &str)| self.file.path.starts_with(path) && self.cited == *cited;
        let what = format!("`{}` {what}", self.cited);
        (!EXCEPTIONS.iter().any(is_excepted)).then(|| self.file.wrong(self.line, &what, remedy))
    }
}

/// The files that can be cited.
struct Repository<'a>(&'a [File]);

impl<'a> Repository<'a> {
    fn file(&self, path: &str) -> Option<&'a File> {
        self.0.iter().find(|file| file.path == path)
    }

    /// Whether there is a file or a directory of this path. A `*` stands for any part of a name.
    fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let (start, end) = path.split_once('*').unwrap_or((path, ""));
        self.0.iter().any(|file| match file.path.strip_prefix(start) {
            Some(rest) if path.contains('*') => rest.ends_with(end),
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        })
    }

    /// The file that a citing file means by a path: from its own directory, from the root or from `src`.
    fn meant(&self, citing: &File, path: &str) -> Option<String> {
        let directory = citing.path.rsplit_once('/').map_or("", |(directory, _)| directory);
        [directory, "", "src"].into_iter().filter_map(|base| joined(base, path)).find(|path| self.has(path))
    }

    /// Whether a file's name, with or without some of its directories, is that of a file.
    fn has_name(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|file| file.path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('/')))
    }
}

/// A path from a directory, without `.` and `..`. None if it leaves the repository.
fn joined(base: &str, path: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for name in base.split('/').chain(path.split('/')) {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

/// The headings of a page, as they are written.
fn headings(page: &File) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    page.text.lines().filter_map(move |line| {
        is_code ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        (!is_code && heading.len() < line.len()).then(|| heading.strip_prefix(' ')).flatten()
    })
}

/// The anchors of a page, as GitHub makes them of its headings.
fn anchors(page: &File) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for heading in headings(page) {
        let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let repeated = (1..).map(|number| format!("{anchor}-{number}"));
        let new = [anchor.clone()].into_iter().chain(repeated).find(|anchor| !anchors.contains(anchor));
        anchors.extend(new);
    }
    anchors
}

/// Links between pages lead to a file, and to a heading in it. So do addresses of this repository's pages, in every file.
pub(super) fn links_resolve(files: &[File]) -> Vec<String> {
    let repository = Repository(files);
    let mut wrong = Vec::new();
    for file in files {
        let is_page = has_extension(&file.path, "md");
        let mut is_code = false;
        for (text, line) in file.text.lines().zip(1..) {
            is_code ^= text.trim_start().starts_with("```");
            let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            let own = text.split(OWN_PAGES).skip(1).filter_map(|rest| rest.split([')', '"', ' ', '`', '\\']).next());
            let own = own.filter(|target| !target.is_empty()).map(|target| (format!("/{target}"), target));
            let links = links.filter(|_| is_page && !is_code).filter(|target| !target.contains("://"));
            let links = links.map(|target| (target.to_owned(), target));
            for (target, cited) in links.chain(own) {
                let citation = Citation { file, line, cited: cited.to_owned() };
                wrong.extend(link(&repository, &citation, &target));
            }
        }
    }
    wrong
}

/// What is wrong with one link.
fn link(repository: &Repository<'_>, citation: &Citation<'_>, target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let directory = citation.file.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let path = match path.strip_prefix('/') {
        Some(path) => Some(path.to_owned()),
        None if path.is_empty() => Some(citation.file.path.clone()),
        None => joined(directory, path),
    };
    let Some(path) = path.filter(|path| repository.has(path)) else {
        return citation.wrong("leads to no file", "correct the path, or remove the link");
    };
    let page = repository.file(&path)?;
    let has_anchor = anchor.is_empty() || !has_extension(&path, "md") || anchors(page).contains(anchor);
    (!has_anchor)
        .then(|| citation.wrong(&format!("leads to no heading of {path}"), "link to one of its headings"))
        .flatten()
}

/// The prose of a file as one text, so that a citation may go over the end of a line.
struct Prose {
    text: String,
    /// Where each piece begins in the text, and its line.
    lines: Vec<(usize, usize)>,
}

impl Prose {
    fn of(pieces: &[Piece]) -> Self {
        let mut prose = Self { text: String::new(), lines: Vec::new() };
        for piece in pieces {
            prose.lines.push((prose.text.len(), piece.line));
            prose.text.push_str(piece.text.trim());
            prose.text.push(' ');
        }
        prose
    }

    fn line(&self, place: usize) -> usize {
        let next = self.lines.partition_point(|(start, _)| *start <= place);
        next.checked_sub(1).map_or(1, |index| self.lines[index].1)
    }

    /// The paths in the text, each with its place.
    fn paths(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || "_-./*".contains(letter);
        let mut place = 0;
        self.text.split_inclusive(move |letter| !is_part(letter)).filter_map(move |part| {
            let start = place;
            place += part.len();
            let path = part.trim_end_matches(|letter| !is_part(letter)).trim_end_matches('.');
            // What continues something else, such as a variable or an address, is no path from here.
            let is_continued = self.text[..start].ends_with(['$', '{', '}', '<', '>', '@', ':', '~', '…', '%']);
            (!path.is_empty() && !is_continued).then_some((start, path))
        })
    }
}

/// The files that comments, manuals and messages of the program cite exist, with the sections and points that are cited of
/// them.
pub(super) fn citations_resolve(files: &[File]) -> Vec<String> {
    let repository = Repository(files);
    let mut wrong = Vec::new();
    for file in files {
        let mut all = vec![Prose::of(&prose(file))];
        if file.path.starts_with("src/") {
            all.extend(
                file.rust()
                    .into_iter()
                    .flat_map(|rust| &rust.strings)
                    .map(|text| Prose::of(std::slice::from_ref(text))),
            );
        }
        for prose in all {
            for (place, path) in prose.paths() {
                let citation = |cited: String| Citation { file, line: prose.line(place), cited };
                let rest = &prose.text[place + path.len()..];
                if has_extension(path, "md") && !path.starts_with('/') {
                    wrong.extend(page(&repository, &citation, path, rest));
                } else if !is_cited(&repository, file, path) {
                    wrong.extend(citation(path.to_owned()).wrong("is no file", "cite a file as it is named now"));
                }
            }
            wrong.extend(points(&repository, file, &prose));
        }
    }
    wrong
}

/// Whether a word is no path of the repository, or that of a file or a directory.
fn is_cited(repository: &Repository<'_>, file: &File, path: &str) -> bool {
    let is_inside = path.split_once('/').is_some_and(|(first, rest)| DIRECTORIES.contains(&first) && !rest.is_empty());
    if is_inside {
        return repository.meant(file, path).is_some();
    }
    if ROOT.contains(&path) {
        return repository.meant(file, path).is_some();
    }
    let is_rust = path.strip_suffix(".rs").is_some_and(|name| !name.is_empty());
    !is_rust || path.starts_with(['/', '*']) || repository.meant(file, path).is_some() || repository.has_name(path)
}

/// What is wrong with a citation of a page: the page, its anchor, or the sections that are quoted after it.
fn page<'a>(
    repository: &Repository<'_>,
    citation: &impl Fn(String) -> Citation<'a>,
    path: &str,
    rest: &str,
) -> Vec<String> {
    let citing = citation(path.to_owned());
    let page = repository.meant(citing.file, path).and_then(|path| repository.file(&path));
    let Some(page) = page else {
        return citing.wrong("is no file", "cite a page as it is named now").into_iter().collect();
    };
    let mut wrong = Vec::new();
    if let Some(rest) = rest.strip_prefix('#') {
        let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_');
        let anchor: String = rest.chars().take_while(|letter| is_part(*letter)).collect();
        if !anchor.is_empty() && !anchors(page).contains(&anchor) {
            wrong.extend(citation(format!("{path}#{anchor}")).wrong("is no heading", "cite one of its headings"));
        }
    }
    let mut rest = rest.trim_start_matches(['`', ')']).strip_prefix(", \"");
    while let Some((section, after)) = rest.and_then(|rest| rest.split_once('"')) {
        let is_heading = headings(page).any(|heading| heading == section || heading.ends_with(&format!(". {section}")));
        if !is_heading {
            wrong.extend(citation(format!("{path}, \"{section}\"")).wrong("is no heading", "cite one of its headings"));
        }
        rest = after.strip_prefix(" and \"").or_else(|| after.strip_prefix(", \""));
    }
    wrong
}

/// The points that are cited have a heading of their number: in the page that is cited directly before, or in [`POINTS`].
fn points(repository: &Repository<'_>, file: &File, prose: &Prose) -> Vec<String> {
    let mut wrong = Vec::new();
    for (place, _) in prose.text.match_indices("oint") {
        let (before, after) = (&prose.text[..place], &prose.text[place + "oint".len()..]);
        let Some(before) = before.strip_suffix(['p', 'P']).filter(|before| !before.ends_with(char::is_alphabetic))
        else {
            continue;
        };
        let cited = before.trim_end().strip_suffix(',').map(|before| before.trim_end_matches(['`', ')']));
        let cited = cited
            .and_then(|before| before.rsplit([' ', '`', '(', '[']).next())
            .filter(|path| has_extension(path, "md"));
        let page = cited.and_then(|path| repository.meant(file, path)).unwrap_or_else(|| POINTS.to_owned());
        let Some(page) = repository.file(&page) else { continue };
        for number in numbers(after.strip_prefix('s').unwrap_or(after)) {
            if !headings(page).any(|heading| heading.starts_with(&format!("{number}. "))) {
                let citation = Citation { file, line: prose.line(place), cited: format!("point {number}") };
                wrong.extend(
                    citation.wrong(&format!("is no point of {}", page.path), "cite one of its numbered headings"),
                );
            }
        }
    }
    wrong
}

/// The numbers at the start of a text such as " 3, 8 to 11 and 13".
fn numbers(text: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    let mut rest = text;
    for separators in
        std::iter::once([" "].as_slice()).chain(std::iter::repeat([", and ", ", ", " and ", " to ", " or "].as_slice()))
    {
        let Some(after) = separators.iter().find_map(|separator| rest.strip_prefix(separator)) else { break };
        let digits = after.len() - after.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let Ok(number) = after[..digits].parse() else { break };
        numbers.push(number);
        rest = &after[digits..];
    }
    numbers
}

/// docs/proof.md names the runs and the safeguards of the model, all of them, and tests that exist.
pub(super) fn proof_names_what_exists(files: &[File]) -> Vec<String> {
    let repository = Repository(files);
    let Some(proof) = repository.file(PROOF) else { return Vec::new() };
    let tests = Tests::of(files);
    let mut wrong = Vec::new();
    let mut section = "";
    let mut named = [BTreeSet::new(), BTreeSet::new()];
    for (text, line) in proof.text.lines().zip(1..) {
        section = text.strip_prefix("## ").unwrap_or(section);
        let first = text.strip_prefix("| `").and_then(|rest| rest.split_once('`')).map(|(name, _)| name);
        match section {
            "The runs" => named[0].extend(first),
            "The safeguards" => named[1].extend(first),
            _ => {}
        }
        let cell = text
            .trim_end_matches(" |")
            .rsplit("| ")
            .next()
            .filter(|_| section == "In the code" && text.starts_with("| "));
        let in_cell = cell.into_iter().flat_map(quotes);
        let anywhere = quotes(text).filter(|name| name.contains("::") && name.starts_with(char::is_lowercase));
        for name in in_cell.chain(anywhere).collect::<BTreeSet<_>>() {
            if !tests.have(name) {
                let citation = Citation { file: proof, line, cited: name.to_owned() };
                wrong.extend(citation.wrong(&format!("is no test of {TESTS}"), "name the test as it is called now"));
            }
        }
    }
    let model = [(MODEL_RUNS, "The runs"), (MODEL_SAFEGUARDS, "The safeguards")];
    for ((path, section), named) in model.into_iter().zip(named) {
        let there: BTreeSet<&str> = repository.file(path).map(|file| of_model(&file.text)).unwrap_or_default();
        for name in named.symmetric_difference(&there) {
            let (has, lacks) = if there.contains(name) { (path, PROOF) } else { (PROOF, path) };
            let what = format!("`{name}` is in {has} and not in {lacks}");
            wrong.push(proof.wrong(1, &what, &format!("make the table under \"{section}\" and the model agree")));
        }
    }
    wrong
}

/// docs/security.md names, for each safeguard, tests that exist.
pub(super) fn security_names_what_exists(files: &[File]) -> Vec<String> {
    let Some(security) = Repository(files).file(SECURITY) else { return Vec::new() };
    let tests = Tests::of(files);
    let is_of_table = |text: &str| text.starts_with("| ") && !text.starts_with("| safeguard |");
    let table = security.text.lines().zip(1..).skip_while(|(text, _)| !text.starts_with("## Safeguards"));
    let rows = table.skip(1).take_while(|(text, _)| !text.starts_with("## ")).filter(|(text, _)| is_of_table(text));
    rows.flat_map(|(text, line)| {
        let cell = text.trim_end_matches(" |").rsplit("| ").next().unwrap_or_default();
        let names: Vec<&str> = quotes(cell).collect();
        if names.is_empty() {
            return vec![security.wrong(line, "no test is named", "name the test that fails without the safeguard")];
        }
        let unknown = names.into_iter().filter(|name| !tests.have(name)).filter_map(|name| {
            let citation = Citation { file: security, line, cited: name.to_owned() };
            citation.wrong("is no test", "name the test as it is called now")
        });
        unknown.collect()
    })
    .collect()
}

/// What stands between backquotes.
fn quotes(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names of the model's runs (the tests that are not ignored) or of its safeguards (the names with a comma after them).
fn of_model(text: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut before = "";
    for line in text.lines() {
        let run = line.strip_prefix("fn ").filter(|_| before == "#[test]").and_then(|rest| rest.strip_suffix("() {"));
        let safeguard =
            line.strip_prefix("    ").and_then(|rest| rest.strip_suffix(',')).filter(|_| before.starts_with("    ///"));
        names.extend(run.or(safeguard));
        before = line;
    }
    names
}

/// The modules of the tests, and the functions in them, such as `fleet::log::a_lost_message_is_repaired_from_the_log` and
/// `link::codes::tests::no_key_is_shown`.
struct Tests(BTreeSet<String>);

impl Tests {
    fn of(files: &[File]) -> Self {
        let mut names = BTreeSet::new();
        for file in files {
            let Some(path) = file.path.strip_suffix(".rs") else { continue };
            let (path, is_source) = match (path.strip_prefix(TESTS), path.strip_prefix("src/")) {
                (Some(path), _) => (path, false),
                (None, Some(path)) => (path, true),
                (None, None) => continue,
            };
            let module = path.replace('/', "::");
            // A file's own tests are in a module inside it, or in a file of that name.
            let module = if is_source && !module.ends_with("::tests") { format!("{module}::tests") } else { module };
            let functions = file.text.lines().filter_map(|line| line.split_once("fn ")?.1.split(['(', '<']).next());
            names.extend(functions.map(|function| format!("{module}::{function}")));
            names.insert(module);
        }
        Self(names)
    }

    /// Whether a name, with or without some of its modules, is that of a test or a module. It may end with `_…`.
    fn have(&self, name: &str) -> bool {
        let (start, is_whole) = name.strip_suffix("…").map_or((name, true), |start| (start, false));
        let depth = name.split("::").count();
        self.0.iter().any(|full| {
            let names: Vec<&str> = full.split("::").collect();
            let end = names[names.len().saturating_sub(depth)..].join("::");
            if is_whole { end == start } else { end.starts_with(start) }
        })
    }
}
