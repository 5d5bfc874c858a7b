//! The integration tests: they use the crate as its users do, against real servers where the servers' behaviour matters.
//!
//! One binary, so that the tests share their servers (`support`). Each module tests one subject. Contains no tests of private
//! items; those are in `src`.

#![allow(
    unreachable_pub,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::format_collect,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::struct_field_names,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test reports a failure by panicking"
)]

mod any_schema;
mod architecture;
mod bounds;
mod broken_schemas;
mod cli;
mod cold;
mod conditions;
mod contract;
mod deploy;
mod doctor;
mod errors;
mod evaluator;
mod filters;
mod fleet;
mod freshness;
mod history;
mod kept_answers;
mod large_relations;
mod lifecycle;
mod list_subjects;
mod lists;
mod memory;
mod model;
mod mongodb;
mod recipes;
mod redis_servers;
mod repository;
mod rules;
mod secrets;
mod shared_facts;
mod standalone;
mod subjects;
mod support;
mod telemetry;
mod transport;
mod tuple_models;
mod values;
mod wrong_types;
