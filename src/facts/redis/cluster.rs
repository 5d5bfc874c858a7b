//! Reads facts from a Redis Cluster, where neither a script nor an `MGET` can read keys of several slots: one `GETRANGE` for each
//! fact. Its reply is bounded, whoever has written the value.
//!
//! Does not look at the values.

use futures::future::join_all;

use super::{ANSWER_TIME, SharedFacts, VALUE_BYTES_MAX};
use crate::link::LinkError;

impl SharedFacts {
    /// The values under these names, of at most `bytes_max` bytes together, and one more byte for each that is cut; none for each that is not there, or
    /// not read. A value that no instance can have written, by its length or its type, is empty or too long.
    ///
    /// First, each may have as many bytes as the others. Nearly all values are shorter. What is left is for those that are
    /// longer, which are read again.
    pub(super) async fn values_of_cluster(&self, names: &[Vec<u8>], bytes_max: usize) -> Vec<Option<Vec<u8>>> {
        let share = (bytes_max / names.len().max(1)).min(VALUE_BYTES_MAX);
        let mut values = join_all(names.iter().map(|name| self.value_up_to(name, share))).await;
        let taken: usize = values.iter().flatten().map(Vec::len).sum();
        let mut whole_max = bytes_max.saturating_sub(taken) / VALUE_BYTES_MAX;
        let cut = |value: &Option<Vec<u8>>| {
            share < VALUE_BYTES_MAX && value.as_ref().is_some_and(|value| value.len() > share)
        };
        let again = names.iter().zip(&mut values).filter(|(_, value)| cut(value)).map(|(name, value)| {
            *value = None;
            let is_read = whole_max > 0;
            whole_max = whole_max.saturating_sub(1);
            async move {
                if is_read {
                    *value = self.value_up_to(name, VALUE_BYTES_MAX).await;
                }
            }
        });
        join_all(again).await;
        values
    }

    /// The first bytes of the value under a name: one more than `bytes_max`, if there are more. None if there is no value.
    async fn value_up_to(&self, name: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        let mut command = redis::cmd("GETRANGE");
        command.arg(name).arg(0).arg(bytes_max);
        match self.link.query::<Vec<u8>>(&command, ANSWER_TIME).await {
            Ok(value) => Some(value).filter(|value| !value.is_empty()),
            // It is no text: no instance has written it.
            Err(LinkError::Refused(error)) if error.code() == Some("WRONGTYPE") => Some(Vec::new()),
            Err(error) => {
                self.report_refusal(&error);
                None
            }
        }
    }
}
