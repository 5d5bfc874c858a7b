//! The freshness protocol (`docs/freshness.md`), gone through step by step: every order of events, in small worlds.
//!
//! `docs/proof.md` says what that shows, and what not. In reading order: `world`, `histories`, `safeguards`, `run`, `instance`,
//! `protocol`, `change_batches`, `choices`, `steps`, `promises`, `check`, and the tests, which are `runs` and `lacks`.

mod check;
mod choices;
mod histories;
mod instance;
mod lacks;
mod promises;
mod protocol;
mod run;
mod runs;
mod safeguards;
mod change_batches;
mod steps;
mod world;
