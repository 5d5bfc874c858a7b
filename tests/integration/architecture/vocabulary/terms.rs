//! The retired terms, and where they may occur all the same.
//!
//! Data only.

/// Retired terms, and what to use instead. Terms of several words are written with spaces.
pub(super) type Terms = [(&'static [&'static str], &'static str)];

/// Terms that occur in no name. `line` is none of them, although the bus once used it for a Redis channel: most lines of
/// this project are lines of text. [`TYPES`] has the name that the channel's type had.
pub(super) const NAMES: &Terms = &[
    (&["said", "says", "say", "saying"], "output, message, text, reports; for the bus: published, publish"),
    (&["heard", "hear", "hears", "hearer", "hearers", "hearing", "deaf"], "received, applied; receive, apply"),
    (&["told", "tell", "tells", "teller", "tellers", "telling"], "notified, published; notify, publish"),
    (&["speak", "speaks", "speaker", "speakers", "speaking", "spoke", "spoken"], "leader, leads, publishes"),
    (&["ear", "ears"], "subscriber, subscription"),
    (&["wire", "wires"], "Redis channel, codec, or the protocol's name"),
    (&["news"], "update, change batch"),
    (&["watched"], "tracked facts, or the name of the collections that are followed"),
    (&["statement", "statements"], "change batch"),
    (&["horizon", "horizons"], "watermark, progress"),
    (&["demand", "demands", "demanded", "demanding"], "consistency; required"),
    (&["need", "needs", "needed", "needing"], "freshness requirement; required, wanted, missing"),
    (&["flight", "flights"], "in-flight load, load"),
    (&["boarding", "boarded", "fare", "fares", "seat", "seats"], "join, loader, waiter"),
    (&["landed", "landing"], "load result"),
    (&["held", "at hand"], "cached fact, request facts, available facts"),
    (&["remembered", "remember", "remembers"], "cached, cache"),
    (&["seldom", "vitals", "filling"], "rate-limited log, health monitor, Redis writer"),
    (&["room", "rooms"], "write budget, capacity, free space"),
    (&["reading", "readings"], "sampled metric; a verb for what is read"),
    (&["sound", "sounds", "soundness"], "valid, validate"),
    (&["arrange", "arranges", "arranged"], "plan"),
    (&["mistake", "mistakes"], "schema error, configuration error"),
    (&["greet", "greets", "greeting", "greetings"], "handshake, protocol preface"),
    (&["stranger", "strangers"], "unauthenticated or unidentified client, other client"),
    (&["farewell", "farewells"], "graceful shutdown, drain"),
];

/// Identifiers of Rust code that are retired as a whole, whatever their words.
pub(super) const TYPES: [(&str, &str); 1] = [("Line", "RedisChannel")];

/// Terms that prose does not use. Where a word also has a plain meaning, such as "need", "say" and "reading", only the
/// phrases are listed in which it can be nothing but the term.
pub(super) const PROSE: &Terms = &[
    (
        &["speaker", "speakers", "speaks for", "speak for", "speaking for", "term of office"],
        "leader, lease, term, leads",
    ),
    (&["is told", "was told", "are told", "were told"], "is notified: name who notifies whom"),
    (&["hears", "hearer", "hearers", "is heard", "are heard", "was heard", "heard of", "deaf"], "receives, knows of"),
    (&["ear", "ears"], "subscriber, subscription"),
    (&["the wire", "a wire", "wires"], "Redis channel"),
    (&["news"], "update, change batch"),
    (&["horizon", "horizons"], "watermark"),
    (&["statement", "statements"], "change batch"),
    (
        &["a demand", "the demand", "its demand", "this demand", "each demand", "no demand", "empty demand"],
        "consistency",
    ),
    (&["whose demand", "the demands", "demand of", "demands of"], "consistency"),
    (&["flight", "flights", "boarding", "boarded", "fare", "fares"], "in-flight load, to join a load"),
    (&["seat", "seats", "landed", "landing"], "loader, waiter, load result"),
    (&["at hand", "remembered fact", "remembered facts", "held fact", "held facts"], "cached fact, request facts"),
    (&["is held", "are held"], "is cached, request facts"),
    (&["watched fact", "watched facts"], "tracked facts"),
    (&["seldom"], "rate-limited log; rarely"),
    (&["vitals"], "health monitor"),
    (&["filling", "write room"], "Redis writer, write budget"),
    (&["a reading", "readings"], "sampled metric"),
    (&["soundness", "sound schema", "sound schemas"], "validation, valid"),
    (&["arrange", "arranges", "arranged"], "plan"),
    (&["mistake", "mistakes"], "schema error, configuration error"),
    (&["stranger", "strangers"], "unauthenticated or unidentified client, other client"),
    (&["farewell", "farewells", "greeting", "greetings"], "graceful shutdown, handshake"),
    (&["design section", "first design", "design sections"], "a reference to ARCHITECTURE.md or to a file of docs"),
];

/// Letters that stood for moments, and what to write instead. Comments and manuals do not use them.
pub(super) const LETTERS: [(&str, &str); 2] = [("W", "the watermark"), ("X", "the newest moment")];

/// Phrases in which a term of [`NAMES`] or [`PROSE`] has its ordinary meaning, each with the reason.
pub(super) const PHRASES: &[(&str, &str)] = &[
    ("in flight", "the usual term for a load or a call that has not returned"),
    ("one statement per sentence", "a statement of prose, not one about changes"),
    ("reading code", "a relation of schemas/fylora-sharing.toml: the code of a share, which lets its bearer read"),
];

/// Where a term or a letter may occur all the same: the start of the path, the term and the reason.
pub(super) const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("CHANGELOG.md", "speaker", "the old name of a metric, for those who have it on a dashboard"),
    ("CHANGELOG.md", "flight", "the same"),
    ("CHANGELOG.md", "flights", "the same"),
    ("src/source/documents", "Line", "an error in a line of a file"),
];

/// Files whose string literals are data, with retired terms that are not the project's own words: the start of the path
/// and the reason.
pub(super) const DATA: &[(&str, &str)] =
    &[("tests/integration/architecture/", "the terms, and texts that break the rules")];

/// Files whose metrics and labels are names.
pub(super) const METRICS: [&str; 3] =
    ["docs/metrics.md", "deploy/alerts.yml", "deploy/grafana/dashboards/permcached.json"];
