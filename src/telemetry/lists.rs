//! Counts lists: filters by what they find, resources that were examined and listed, and lists that could not be made.
//!
//! Logs nothing.

use std::sync::Arc;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::histogram::Histogram;

/// The upper bounds of the buckets of a number of ids.
const IDS: [f64; 9] = [0.0, 1.0, 10.0, 50.0, 200.0, 500.0, 1_000.0, 5_000.0, 10_000.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlanLabels {
    resource_type: Arc<str>,
    permission: Arc<str>,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    error: &'static str,
}

/// Counts lists. Clones share their values.
#[derive(Clone, Debug)]
pub struct Lists {
    plans: Family<PlanLabels, Counter>,
    ids: Histogram,
    examined: Counter,
    listed: Counter,
    subjects_examined: Counter,
    subjects_listed: Counter,
    errors: Family<ErrorLabels, Counter>,
}

impl Lists {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let plans = Family::default();
        registry.register("permcached_plans", "Filters, by permission and by what they find", plans.clone());
        let ids = Histogram::new(&IDS);
        registry.register("permcached_plan_ids", "Ids that a filter has", ids.clone());
        let examined = Counter::default();
        registry.register("permcached_list_examined", "Resources that were checked for a list", examined.clone());
        let listed = Counter::default();
        registry.register("permcached_list_returned", "Resources that a list returned", listed.clone());
        let subjects_examined = Counter::default();
        let (name, help) = ("permcached_subject_list_examined", "Subjects that were checked for a list");
        registry.register(name, help, subjects_examined.clone());
        let subjects_listed = Counter::default();
        let (name, help) = ("permcached_subject_list_returned", "Subjects that a list returned");
        registry.register(name, help, subjects_listed.clone());
        let errors = Family::<ErrorLabels, Counter>::default();
        for error in ["not_narrowable", "no_index", "too_many_ids", "filter_too_large", "no_collection"] {
            drop(errors.get_or_create(&ErrorLabels { error }));
        }
        registry.register("permcached_list_errors", "Lists that could not be made, by error", errors.clone());
        Self { plans, ids, examined, listed, subjects_examined, subjects_listed, errors }
    }

    /// Counts a filter: the permission that it is for, what it finds, and its ids.
    pub fn planned(&self, (resource_type, permission): (&Arc<str>, &Arc<str>), kind: &'static str, ids: usize) {
        let labels = PlanLabels { resource_type: Arc::clone(resource_type), permission: Arc::clone(permission), kind };
        self.plans.get_or_create(&labels).inc();
        self.ids.observe(f64::from(u32::try_from(ids).unwrap_or(u32::MAX)));
    }

    /// Counts the resources of a page, and those that were checked for it.
    pub fn listed(&self, returned: usize, examined: u64) {
        self.listed.inc_by(u64::try_from(returned).unwrap_or(u64::MAX));
        self.examined.inc_by(examined);
    }

    /// Counts the subjects of a page, and those that were checked for it.
    pub fn listed_subjects(&self, returned: usize, examined: u64) {
        self.subjects_listed.inc_by(u64::try_from(returned).unwrap_or(u64::MAX));
        self.subjects_examined.inc_by(examined);
    }

    /// Counts a list that could not be made because of this error.
    pub fn failed(&self, error: &'static str) {
        self.errors.get_or_create(&ErrorLabels { error }).inc();
    }
}
