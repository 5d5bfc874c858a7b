//! What a handler knows of a call besides its message.

use std::sync::Arc;

use super::deadline::REQUEST_TIME_MAX;
use crate::source::Deadline;

/// What a handler knows of a call besides its message.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// When the answer must be ready.
    pub(super) deadline: Deadline,
    /// The name of the caller; none if it is not asked for a token.
    pub(super) caller: Option<Arc<str>>,
}

impl CallContext {
    /// The context of a call from within this process.
    #[must_use]
    pub fn in_process() -> Self {
        Self { deadline: Deadline::after(REQUEST_TIME_MAX), caller: None }
    }
}
