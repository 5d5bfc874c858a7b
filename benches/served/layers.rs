//! The layers of a server, by the functions of a profile's stacks.
//!
//! Time in the kernel counts as the kernel's, and time in the allocator as the allocator's. All other time counts for the innermost
//! function that belongs to a layer: copies of memory, for example, for the function that copies.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

/// A function on a stack, and whether it is in the kernel.
pub(super) struct Frame {
    name: String,
    is_kernel: bool,
}

/// A stack from the innermost function to the outermost one.
type Stack = Vec<Frame>;

/// Reads the stacks that `perf script` prints: one frame a line, and an empty line after each stack.
pub(super) fn stacks(script: &str) -> Vec<Stack> {
    let mut stacks = vec![Stack::new()];
    for line in script.lines() {
        let line = line.trim();
        // An address, the function and, in parentheses, the file.
        let frame = line.split_once(' ').and_then(|(_, rest)| rest.rsplit_once(" ("));
        match frame {
            Some((name, file)) => {
                let is_kernel = file.starts_with("[kernel") || file.starts_with("[guest.kernel");
                let frame = Frame { name: name.to_owned(), is_kernel };
                stacks.last_mut().expect("there is one").push(frame);
            }
            None if line.is_empty() => stacks.push(Stack::new()),
            None => {}
        }
    }
    stacks.retain(|stack| !stack.is_empty());
    stacks
}

/// Beginnings of the names of functions, and their layers. The first that matches counts.
const LAYERS: &[(&str, &str)] = &[
    ("permcached::transport::proto", "protobuf"),
    ("permcached::transport::tls", "TLS"),
    ("permcached::transport", "permcached::transport"),
    ("permcached::telemetry", "metrics and traces"),
    ("permcached::", "the check itself"),
    ("dashmap::", "the check itself"),
    ("served::", "the empty service"),
    ("prost::", "protobuf"),
    ("prost_types::", "protobuf"),
    ("tonic_types::", "protobuf"),
    ("h2::", "h2"),
    ("hyper", "hyper"),
    ("tonic", "tonic, axum and tower"),
    ("axum", "tonic, axum and tower"),
    ("tower", "tonic, axum and tower"),
    ("rustls::", "TLS"),
    ("tokio_rustls::", "TLS"),
    ("ring::", "TLS"),
    ("ring_core", "TLS"),
    ("tracing", "metrics and traces"),
    ("prometheus_client::", "metrics and traces"),
    ("opentelemetry", "metrics and traces"),
    ("tokio::", "tokio"),
    ("mio::", "tokio"),
];

const ALLOCATOR: &[&str] = &[
    "malloc",
    "free",
    "cfree",
    "realloc",
    "calloc",
    "_int_",
    "__libc_malloc",
    "__libc_free",
    "unlink_chunk",
    "tcache",
    "mi_",
    "_mi_",
    "_rjem",
    "sysmalloc",
    "systrim",
    "malloc_consolidate",
    "__rust_alloc",
    "__rust_dealloc",
    "__rdl_",
];

/// The work of the kernel, by the name of the system call.
const SYSTEM_CALLS: &[(&[&str], &str)] = &[
    (&["sys_write", "sys_send"], "kernel: writes to sockets"),
    (&["sys_read", "sys_recv"], "kernel: reads from sockets"),
    (&["sys_epoll"], "kernel: waits for sockets"),
    (&["sys_futex"], "kernel: wakes and waits of threads"),
];

const OTHER_KERNEL: &str = "kernel: everything else";
const OTHER: &str = "everything else";

/// The name of a function without what may come before its path: `<`, `&`, `dyn `.
fn path(name: &str) -> &str {
    let mut path = name;
    loop {
        let shorter = path.trim_start_matches(['<', '&', '*', '(', '[', ' ']);
        let shorter =
            ["mut ", "dyn ", "const "].iter().fold(shorter, |name, word| name.strip_prefix(word).unwrap_or(name));
        if shorter == path {
            return path;
        }
        path = shorter;
    }
}

fn layer(stack: &Stack) -> &'static str {
    let innermost = stack.first().expect("a stack has a function");
    if innermost.is_kernel {
        let is_call = |(names, _): &&(&[&str], &str)| {
            stack.iter().filter(|frame| frame.is_kernel).any(|frame| names.iter().any(|name| frame.name.contains(name)))
        };
        return SYSTEM_CALLS.iter().find(is_call).map_or(OTHER_KERNEL, |(_, layer)| layer);
    }
    if ALLOCATOR.iter().any(|start| innermost.name.starts_with(start)) {
        return "allocator";
    }
    let of_layer = |frame: &Frame| LAYERS.iter().find(|(start, _)| path(&frame.name).starts_with(start));
    stack.iter().find_map(of_layer).map_or(OTHER, |(_, layer)| layer)
}

/// The stacks of a profile by layer.
pub(super) struct Layers<'a> {
    by_layer: BTreeMap<&'static str, usize>,
    by_function: HashMap<(&'a str, &'static str), usize>,
    stacks: &'a [Stack],
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn share(count: usize, total: usize) -> f64 {
    count as f64 / total.max(1) as f64
}

impl<'a> Layers<'a> {
    pub(super) fn of(stacks: &'a [Stack]) -> Self {
        let (mut by_layer, mut by_function) = (BTreeMap::new(), HashMap::new());
        for stack in stacks {
            let (layer, innermost) = (layer(stack), stack.first().expect("a stack has a function"));
            *by_layer.entry(layer).or_default() += 1;
            *by_function.entry((&*innermost.name, layer)).or_default() += 1;
        }
        Self { by_layer, by_function, stacks }
    }

    /// The layers, each with its share of the processor time of a call, in microseconds.
    pub(super) fn table(&self, cpu: f64) -> String {
        let mut rows: Vec<_> = self.by_layer.iter().collect();
        rows.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut text = format!("{:<36} {:>8} {:>8}\n", "layer", "µs", "share");
        for (layer, count) in rows {
            let share = share(*count, self.stacks.len());
            let _always_written = writeln!(text, "{layer:<36} {:>8.2} {:>6.1} %", cpu * share, 100.0 * share);
        }
        text
    }

    /// The functions that take most time themselves, each with its layer.
    pub(super) fn functions(&self, most: usize) -> String {
        let mut rows: Vec<_> = self.by_function.iter().collect();
        rows.sort_unstable_by_key(|(function, count)| (std::cmp::Reverse(**count), **function));
        let mut text = String::new();
        for ((name, layer), count) in rows.into_iter().take(most) {
            let share = 100.0 * share(*count, self.stacks.len());
            let _always_written = writeln!(text, "{share:>6.2} %  {layer:<36} {name}");
        }
        text
    }

    /// The stacks from the outermost function to the innermost one, each with how often it was seen: what flame graphs are drawn
    /// from.
    pub(super) fn folded(&self) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for stack in self.stacks {
            let names: Vec<&str> = stack.iter().rev().map(|frame| &*frame.name).collect();
            *counts.entry(names.join(";")).or_default() += 1;
        }
        counts.into_iter().fold(String::new(), |text, (stack, count)| text + &format!("{stack} {count}\n"))
    }
}
