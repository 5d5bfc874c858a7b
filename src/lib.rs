//! permcached: permission checks in microseconds, from the permissions that already live in your MongoDB.
//!
//! This page is the map: the modules in reading order. Each uses only those above it, which a test enforces. ARCHITECTURE.md says
//! what each is for. The binary adds only `main`.

pub mod question;
pub mod moment;
pub mod telemetry;
pub mod diagnosis;
pub mod schema;
pub mod fact;
pub mod evaluate;
pub mod freshness;
pub mod source;
pub mod sample;
pub mod link;
pub mod facts;
pub mod check;
pub mod list;
pub mod bus;
pub mod feed;
pub mod invalidate;
pub mod transport;
pub mod config;
pub mod app;
pub mod cli;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
