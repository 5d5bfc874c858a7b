//! What the service records: metrics and those who read them, logs, and traces.
//!
//! Does not test the freshness of answers (`history` does).

mod alerts;
mod calls;
mod counts;
mod logs;
mod traces;

use std::collections::{BTreeMap, BTreeSet};

/// A metric in the text of `/metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shown {
    kind: String,
    /// The names of its samples. A histogram has several.
    samples: BTreeSet<String>,
    /// The labels of its samples, except `le`.
    labels: BTreeSet<String>,
}

/// Every metric in a text, by its name.
fn shown(text: &str) -> BTreeMap<String, Shown> {
    let mut all: BTreeMap<String, Shown> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap();
            name.clone_into(&mut current);
            kind.clone_into(&mut all.entry(current.clone()).or_default().kind);
        } else if !line.starts_with('#') {
            let (name, labels) = line.split_once('{').unwrap_or_else(|| line.split_once(' ').unwrap());
            assert!(name.starts_with(&current), "{line}");
            let shown = all.get_mut(&current).unwrap();
            shown.samples.insert(name.to_owned());
            let labels = labels.rsplit_once('}').map_or("", |(labels, _)| labels);
            let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name);
            shown.labels.extend(names.filter(|name| *name != "le").map(str::to_owned));
        }
    }
    all
}
