//! The tally of a run: judged answers, errors, faults, the worst staleness, and wrong answers.
//!
//! Only counts and prints.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use permcached::{check::CheckError, question::Tier};

use super::{
    faults::{FaultReport, Recovery},
    register::Shown,
};

/// How many violations are printed.
const SHOWN_MAX: usize = 5;

/// The consistency of a request, and where its token came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    MinimizeLatency,
    /// At least as fresh as an acknowledged write.
    OperationTime,
    /// At least as fresh as an earlier answer.
    AsOf,
    FullyConsistent,
    MaxAge,
    /// At least as fresh as an invalidation, or sent to the instance that received one.
    Invalidated,
}

impl Mode {
    pub const ALL: [Self; 6] = [
        Self::MinimizeLatency,
        Self::OperationTime,
        Self::AsOf,
        Self::FullyConsistent,
        Self::MaxAge,
        Self::Invalidated,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::MinimizeLatency => "minimize_latency",
            Self::OperationTime => "at_least_as_fresh (operationTime)",
            Self::AsOf => "at_least_as_fresh (as_of)",
            Self::FullyConsistent => "fully_consistent",
            Self::MaxAge => "max_age",
            Self::Invalidated => "after an Invalidate",
        }
    }
}

/// The right answers to one mode.
#[derive(Debug, Default)]
pub struct Judged {
    pub answers: u64,
    pub allowed: u64,
    pub from_memory: u64,
    /// For how long the state that an answer shows had been replaced when the question was asked, at worst.
    pub staleness_max: Duration,
}

/// The answers during faults of one kind, until all instances had recovered.
#[derive(Debug, Default)]
struct DuringFault {
    answers: u64,
    errors: u64,
    staleness_max: Duration,
}

/// The tally of a run.
#[derive(Debug, Default)]
pub struct Tally {
    pub lasted: Duration,
    pub writes: u64,
    repeats: u64,
    judged: BTreeMap<Mode, Judged>,
    /// How many resources lists had, and how many they did not have.
    lists: BTreeMap<Mode, [u64; 2]>,
    /// At worst, the staleness of lists.
    lists_staleness_max: Duration,
    errors: BTreeMap<&'static str, u64>,
    /// The numbers of invalidations that were published, that were not published, and that failed.
    invalidations: [u64; 3],
    faults: Vec<FaultReport>,
    /// The kind of the current fault.
    fault: Option<&'static str>,
    during_fault: BTreeMap<&'static str, DuringFault>,
    violations: u64,
    shown: Vec<String>,
}

impl Tally {
    /// Counts a write that was acknowledged after this number of repeats.
    pub fn wrote(&mut self, repeats: u64) {
        self.writes += 1;
        self.repeats += repeats;
    }

    pub fn judged(&mut self, mode: Mode, tier: Tier, shown: Shown, staleness: Duration) {
        let judged = self.judged.entry(mode).or_default();
        judged.answers += 1;
        judged.allowed += u64::from(matches!(shown, Shown::Allowed(_)));
        judged.from_memory += u64::from(tier == Tier::Memory);
        judged.staleness_max = judged.staleness_max.max(staleness);
        if let Some(during) = self.during_fault() {
            during.answers += 1;
            during.staleness_max = during.staleness_max.max(staleness);
        }
    }

    /// Counts what a list rightly shows about one resource.
    pub fn listed(&mut self, mode: Mode, shown: Shown, staleness: Duration) {
        let [listed, absent] = self.lists.entry(mode).or_default();
        match shown {
            Shown::Allowed(_) | Shown::Included => *listed += 1,
            Shown::Denied => *absent += 1,
        }
        self.lists_staleness_max = self.lists_staleness_max.max(staleness);
        if let Some(during) = self.during_fault() {
            during.answers += 1;
            during.staleness_max = during.staleness_max.max(staleness);
        }
    }

    /// How many resources lists of a mode had, and how many they did not have.
    pub fn lists(&self, mode: Mode) -> [u64; 2] {
        self.lists.get(&mode).copied().unwrap_or_default()
    }

    fn during_fault(&mut self) -> Option<&mut DuringFault> {
        self.fault.map(|kind| self.during_fault.entry(kind).or_default())
    }

    /// Counts what follows for a fault of this kind too.
    pub fn begin_fault(&mut self, kind: &'static str) {
        self.fault = Some(kind);
    }

    /// All instances have recovered, or had the time to.
    pub fn end_fault(&mut self) {
        self.fault = None;
    }

    pub fn failed(&mut self, error: &CheckError) {
        *self.errors.entry(error.as_str()).or_default() += 1;
        if let Some(during) = self.during_fault() {
            during.errors += 1;
        }
    }

    /// Counts an invalidation. `is_published` is none if it failed.
    pub fn invalidated(&mut self, is_published: Option<bool>) {
        let [published, unpublished, failed] = &mut self.invalidations;
        *is_published.map_or(failed, |is_published| if is_published { published } else { unpublished }) += 1;
    }

    pub fn report(&mut self, fault: FaultReport) {
        self.faults.push(fault);
    }

    /// Counts a violation. Keeps only the first texts, because later ones are mostly the same.
    pub fn violated(&mut self, what: String) {
        self.violations += 1;
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(what);
        }
    }

    /// The right answers of a mode.
    pub fn of(&self, mode: Mode) -> &Judged {
        static NONE: Judged = Judged { answers: 0, allowed: 0, from_memory: 0, staleness_max: Duration::ZERO };
        self.judged.get(&mode).unwrap_or(&NONE)
    }

    pub fn violations(&self) -> u64 {
        self.violations
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasted = self.lasted.as_secs();
        writeln!(f, "{} writes acknowledged in {lasted} s, {} sent again", self.writes, self.repeats)?;
        let answers: u64 = self.judged.values().map(|judged| judged.answers).sum();
        writeln!(f, "{answers} answers judged:")?;
        for (mode, Judged { answers, allowed, from_memory, staleness_max }) in &self.judged {
            let mode = mode.as_str();
            writeln!(
                f,
                "  {answers:>8}  {mode}: {allowed} allowed, {from_memory} from memory, at worst {staleness_max:.3?} stale"
            )?;
        }
        writeln!(f, "resources of lists, at worst {:.3?} stale:", self.lists_staleness_max)?;
        for (mode, [listed, absent]) in &self.lists {
            writeln!(f, "  {:>8}  {}: {listed} listed", listed + absent, mode.as_str())?;
        }
        let [published, unpublished, failed] = self.invalidations;
        writeln!(f, "invalidations: {published} published, {unpublished} not, {failed} failed")?;
        let errors: Vec<String> = self.errors.iter().map(|(error, count)| format!("{count} {error}")).collect();
        writeln!(f, "errors: {}", if errors.is_empty() { "none".to_owned() } else { errors.join(", ") })?;
        writeln!(f, "{} faults:", self.faults.len())?;
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        let kinds: BTreeSet<&str> = self.faults.iter().map(|fault| fault.kind).collect();
        for kind in kinds {
            let of_kind = || self.faults.iter().filter(|fault| fault.kind == kind);
            let slowest = |time: fn(&Recovery) -> Duration| {
                of_kind().flat_map(|fault| &fault.recovered).map(time).max().unwrap_or_default()
            };
            let (answered, recovered) = (slowest(|recovery| recovery.answered), slowest(|recovery| recovery.in_all));
            let settled = of_kind().filter_map(|fault| fault.settled).max();
            let settled = settled.map_or_else(String::new, |settled| format!(", one stream within {settled:.1?}"));
            let count = of_kind().count();
            write!(f, "{count:>4} × {kind}: answers within {answered:.1?}, recovered within {recovered:.1?}{settled}")?;
            match self.during_fault.get(kind) {
                Some(DuringFault { answers, errors, staleness_max }) => {
                    writeln!(f, "; {answers} answers, {errors} errors, at worst {staleness_max:.3?} stale")?;
                }
                None => writeln!(f)?,
            }
        }
        let worst = self.judged.values().map(|judged| judged.staleness_max).max().unwrap_or_default();
        writeln!(f, "worst staleness: {worst:.3?}")?;
        write!(f, "violations: {}", self.violations)?;
        self.shown.iter().try_for_each(|shown| write!(f, "\n\n{shown}"))
    }
}
