//! Freshness: which moment a fact is true as of (design section 5).
//!
//! Pure. For now there are moments and the tokens that carry them; every answer is fully consistent, as nothing is
//! remembered yet.

mod moment;

pub use moment::{Clock, Moment, Token, TokenError};
