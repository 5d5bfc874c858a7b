//! Reading any text as a schema ends soon, with a schema or with errors that can be shown.
//!
//! The messages of the errors are tested in `broken_schemas`.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use permcached::schema::Schema;
use proptest::{prelude::*, sample::Index};

/// Far more than any schema takes, even where tests are slow.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Words and signs that have a meaning in some place of a schema.
const PIECES: [&str; 32] = [
    "\"",
    "'",
    "'''",
    "\"\"\"",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "=",
    ".",
    ",",
    "|",
    "&",
    "!",
    "#",
    "\n",
    "\r\n",
    "\0",
    "é",
    "\u{feff}",
    "$or",
    "{ \"$expr\" = 1 }",
    "\"$in\" = [",
    "resource",
    "[subject.user]",
    "relations",
    "[resource.x]",
    "read",
    "1e9",
    "nan",
];

/// Every schema of the repository, valid or not.
fn schemas() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for directory in
        ["schemas", "schemas/recipes", "tests/integration/tuple_models", "tests/integration/broken_schemas"]
    {
        let Ok(entries) = fs::read_dir(root.join(directory)) else {
            continue;
        };
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let paths = paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
        texts.extend(paths.map(|path| fs::read_to_string(path).unwrap()));
    }
    assert!(texts.len() > 20, "the schemas are gone from {}", root.display());
    texts
}

/// One change to a text.
#[derive(Clone, Debug)]
enum Edit {
    SetByte(Index, u8),
    Insert(Index, &'static str),
    Cut(Index, usize),
    DeleteLine(Index),
    RepeatLine(Index, Index),
    SwapLines(Index, Index),
    SwapWords(Index, Index),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::SetByte(at, byte)),
        (any::<Index>(), prop::sample::select(&PIECES[..])).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Edit::Cut(at, length)),
        any::<Index>().prop_map(Edit::DeleteLine),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Edit::RepeatLine(from, to)),
        (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Edit::SwapLines(one, other)),
        (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Edit::SwapWords(one, other)),
    ];
    prop::collection::vec(edit, 1..6)
}

fn edited(text: &str, edits: &[Edit]) -> String {
    let mut text = text.to_owned();
    for edit in edits {
        text = match edit {
            _ if text.is_empty() => break,
            Edit::SetByte(at, byte) => {
                let mut bytes = text.into_bytes();
                let at = at.index(bytes.len());
                bytes[at] = *byte;
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Edit::Insert(at, piece) => {
                let at = text.floor_char_boundary(at.index(text.len()));
                [&text[..at], piece, &text[at..]].concat()
            }
            Edit::Cut(at, length) => {
                let at = text.floor_char_boundary(at.index(text.len()));
                let end = text.ceil_char_boundary(text.len().min(at + length));
                [&text[..at], &text[end..]].concat()
            }
            Edit::DeleteLine(at) => with_parts(&text, '\n', |lines| {
                lines.remove(at.index(lines.len()));
            }),
            Edit::RepeatLine(from, to) => with_parts(&text, '\n', |lines| {
                let line = lines[from.index(lines.len())];
                lines.insert(to.index(lines.len()), line);
            }),
            Edit::SwapLines(one, other) => with_parts(&text, '\n', |lines| swap(lines, *one, *other)),
            Edit::SwapWords(one, other) => with_parts(&text, ' ', |words| swap(words, *one, *other)),
        };
    }
    text
}

fn swap(parts: &mut [&str], one: Index, other: Index) {
    let (one, other) = (one.index(parts.len()), other.index(parts.len()));
    parts.swap(one, other);
}

fn with_parts(text: &str, by: char, change: impl FnOnce(&mut Vec<&str>)) -> String {
    let mut parts: Vec<&str> = text.split_inclusive(by).collect();
    change(&mut parts);
    parts.concat()
}

/// Reads a schema, renders its errors, and returns how many there are. Fails if that takes too long or an error points outside
/// of the text.
fn errors_in(text: &str) -> usize {
    let started = Instant::now();
    let count = Schema::parse("any.toml", text).map_or_else(
        |errors| {
            for error in errors.iter() {
                let place = error.span.clone().unwrap_or_default();
                assert!(text.get(place).is_some(), "{error:?} points outside of the text");
            }
            assert!(!errors.render(false).is_empty() && !errors.render(true).is_empty());
            errors.iter().count()
        },
        |_| 0,
    );
    let took = started.elapsed();
    let start: String = text.chars().take(200).collect();
    assert!(took < TIME_MAX, "reading took {took:?}:\n{start}");
    count
}

proptest! {
    #[test]
    fn an_edited_schema_is_read_soon(schema in prop::sample::select(schemas()), edits in edits()) {
        errors_in(&edited(&schema, &edits));
    }

    #[test]
    fn any_expression_is_read_soon(expression in "[a-c!&|(). \n\"\\\\é-]{0,40}", is_literal in any::<bool>()) {
        let quote = if is_literal { "'''" } else { "\"" };
        errors_in(&format!("{}a = {quote}{expression}{quote}", beginning()));
    }

    #[test]
    fn any_condition_is_read_soon(condition in json(4)) {
        errors_in(&format!("{}\n[resource.file.relations]\nflag = {{ where = '''{condition}''' }}", beginning()));
    }

    #[test]
    fn any_text_is_read_soon(text in any::<String>()) {
        errors_in(&text);
        errors_in(&format!("{}{text}", beginning()));
    }
}

/// Text like JSON, with operators, types of Extended JSON, and parts that are not valid.
fn json(depth: u32) -> impl Strategy<Value = String> {
    let keys = [
        "a",
        "b.c",
        "a.0",
        "$or",
        "$and",
        "$expr",
        "$in",
        "$not",
        "$lt",
        "$oid",
        "$date",
        "$numberLong",
        "$regex",
        "\\u0061",
        "é",
    ];
    let leaves =
        ["1", "\"a\"", "null", "true", "\"$a\"", "1e400", "\"65f000000000000000000001\"", "tru", "", "\"\\\"", "-0.0"];
    prop::sample::select(leaves.to_vec()).prop_map(str::to_owned).prop_recursive(depth, 24, 4, move |inner| {
        let keyed =
            (prop::sample::select(keys.to_vec()), inner.clone()).prop_map(|(key, value)| format!("\"{key}\": {value}"));
        let joined = |open: &'static str, close: &'static str| {
            move |parts: Vec<String>| format!("{open}{}{close}", parts.join(", "))
        };
        prop_oneof![
            3 => prop::collection::vec(keyed, 0..4).prop_map(joined("{", "}")),
            1 => prop::collection::vec(inner, 0..4).prop_map(joined("[", "]")),
        ]
    })
}

/// A valid schema that ends where more permissions of `file` can follow.
fn beginning() -> String {
    "default_subject = \"user\"\n\n[subject.user]\n\n[resource.file]\ncollection = \"files\"\n\
     relations.b = { field = \"b\" }\nrelations.c = { field = \"c\", resource = \"file\" }\n\n[resource.file.permissions]\n"
        .to_owned()
}

/// `beginning` and permissions, each of which refers to the next.
fn chain(length: usize, link: impl Fn(usize) -> String) -> String {
    let links = (1..length).map(|at| format!("p{at} = \"{}\"\n", link(at + 1)));
    format!("{}{}p{length} = \"b\"\n", beginning(), links.collect::<String>())
}

#[test]
fn permissions_that_name_each_other_many_times_are_read_soon() {
    assert_eq!(errors_in(&chain(16, |next| format!("p{next} | p{next}"))), 0);
    assert_eq!(errors_in(&chain(16, |next| format!("p{next} & p{next} & !p{next}"))), 1);
    assert_eq!(errors_in(&chain(500, |next| format!("p{next} | p{next}"))), 1);
    assert_eq!(errors_in(&chain(500, |next| format!("c.p{next} & !c.p{next}"))), 0);
}

#[test]
fn long_chains_of_permissions_do_not_overflow_the_stack() {
    const LENGTH: usize = 20_000;
    assert_eq!(errors_in(&chain(LENGTH, |next| format!("c.p{next}"))), 0);
    assert_eq!(errors_in(&chain(LENGTH, |next| format!("b & !c.p{next}"))), 0);
    assert_eq!(errors_in(&chain(LENGTH, |next| format!("p{next}"))), 1);
    let circle =
        |first: &str| format!("{}{}", chain(LENGTH, |next| format!("c.p{next}")), format_args!("p0 = \"{first}\"\n"));
    assert_eq!(errors_in(&circle("c.p1").replace("= \"b\"", "= \"c.p0\"")), 1);
    assert_eq!(errors_in(&circle("!c.p1").replace("= \"b\"", "= \"c.p0\"")), 0, "through an exclusion, too");
    assert_eq!(errors_in(&circle("p1").replace("c.p", "p").replace("= \"b\"", "= \"p0\"")), 1);
}

#[test]
fn large_texts_are_read_soon() {
    const LARGE: usize = 100_000;
    for piece in
        ["[", "{", "a = [", "a = {", "a.", "\"", "'''", "# a\n", "[a]\n", "[[a]]\n", "a = 1\n", "\0", "é", "\r", "="]
    {
        errors_in(&piece.repeat(LARGE / piece.len()));
        errors_in(&format!("{}x = {}", beginning(), piece.repeat(LARGE / piece.len())));
    }
    for piece in ["(", "!", "b |", "b & ", "(b | ", "x | ", "c.", "c.x | ", "b|", ") "] {
        errors_in(&format!("{}x = '{} b'", beginning(), piece.repeat(LARGE / piece.len())));
    }
    for piece in ["{\"a\": ", "[", "{\"$and\": [", "{\"a\": 1}, ", "{\"$x\": 1}, ", "\"", "\\"] {
        let condition = piece.repeat(LARGE / piece.len());
        errors_in(&format!("{}\n[resource.file.relations]\nflag = {{ where = '{{\"a\": {condition}' }}", beginning()));
        errors_in(&format!(
            "{}\n[resource.file.relations]\nflag = {{ where = '{{\"$or\": [{condition}{{}}]}}' }}",
            beginning()
        ));
    }
    let many = |line: &dyn Fn(usize) -> String| (0..LARGE / 25).map(line).collect::<String>();
    errors_in(&format!("{}{}", beginning(), many(&|at| format!("p{at} = \"p{} | x{at}\"\n", at + 1))));
    errors_in(&format!(
        "{}\n[resource.file.relations]\n{}",
        beginning(),
        many(&|at| format!("r{at} = {{ field = \"r{at}\" }}\n"))
    ));
    errors_in(&format!("{}{}", beginning(), many(&|at| format!("[resource.r{at}]\nfields = 1\n"))));
    errors_in(&format!("default_subject = \"x\"\n{}", many(&|at| format!("[subject.s{at}]\n"))));
    assert_eq!(errors_in(&" ".repeat(1_024 * 1_024 + 1)), 1);
}
