//! How long a request may take: the caller's `grpc-timeout`, within our own bound. A margin is subtracted, so that the
//! answer still arrives in time, and with our status rather than the transport's.
//!
//! Enforces nothing: the handlers pass the deadline on, and what they call keeps it.

use std::time::{Duration, Instant};

use axum::http::HeaderMap;

use crate::source::Deadline;

/// How long a request may take, unless its caller allows less.
pub(super) const REQUEST_TIME_MAX: Duration = Duration::from_secs(2);

/// The most time that is reserved for the response to reach the caller.
const MARGIN_MAX: Duration = Duration::from_millis(10);

/// The deadline of a request whose head arrived then.
pub(super) fn deadline(headers: &HeaderMap, arrived: Instant) -> Deadline {
    let requested = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse);
    let time = requested.map_or(REQUEST_TIME_MAX, |time| time.saturating_sub(MARGIN_MAX.min(time / 10)));
    Deadline::since(arrived, time.min(REQUEST_TIME_MAX))
}

/// Parses a timeout in the format of the gRPC protocol: up to eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_parsed_as_the_grpc_protocol_writes_them() {
        for (text, time) in [
            ("100m", Some(Duration::from_millis(100))),
            ("2S", Some(Duration::from_secs(2))),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("", None),
            ("m", None),
            ("1", None),
            ("123456789m", None),
            ("-1m", None),
            ("1é", None),
        ] {
            assert_eq!(parse(text), time, "{text}");
        }
    }
}
