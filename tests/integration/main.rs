//! The integration tests, as one binary.

mod support;
mod transport;
