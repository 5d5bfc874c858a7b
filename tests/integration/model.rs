//! The freshness protocol (docs/freshness.md) as a model: a model checker tries every order of events in small worlds.
//!
//! Does not test the code; docs/proof.md states what the model shows and what it leaves out. In reading order: `world`,
//! `histories`, `safeguards`, `run`, `instance`, `protocol`, `change_batches`, `neighbour`, `choices`, `steps`, `promises`,
//! `check`, and the tests, which are `runs` and `lacks`.

mod change_batches;
mod check;
mod choices;
mod histories;
mod instance;
mod lacks;
mod neighbour;
mod promises;
mod protocol;
mod run;
mod runs;
mod safeguards;
mod steps;
mod world;
