//! The integration tests: one binary, each subject a module.

mod any_schema;
mod broken_schemas;
mod tuple_models;
