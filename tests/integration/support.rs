//! What the integration tests share: servers, sources under control, applications, clients. Contains no test.

pub mod both;
pub mod certificates;
pub mod command;
pub mod controlled;
pub mod fleet;
pub mod http2;
pub mod links;
pub mod live;
pub mod memory_source;
pub mod monitored;
pub mod property;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod replica_set;
pub mod servers;
pub mod service;
pub mod wrapper;
