//! The integration tests: the library and the binary against real servers, and over documents.

mod rules;
mod support;
