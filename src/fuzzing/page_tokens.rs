//! Page tokens: any text is refused, or is exactly a token that the service itself would write.

use super::SCHEMA;
use crate::transport::fuzzing;

/// Reads a text as the token of each kind of page. The first byte chooses whether it is made a token of the right schema and request.
pub fn page_tokens(data: &[u8]) {
    let Some((first, content)) = data.split_first() else { return };
    fuzzing::page_token(&SCHEMA, first % 2 == 1, content);
}
