//! Reads dates from documents: dates of BSON, numbers since the Unix epoch, and text in ISO 8601.
//!
//! Does not know what a date bounds, or what time it is.

use std::str::FromStr;

use bigdecimal::{BigDecimal, RoundingMode};
use bson::{Bson, Document};
use time::{OffsetDateTime, format_description::well_known::Iso8601};

use crate::{
    question::Millis,
    schema::{DateField, DateUnit, End},
};

/// The first and the last millisecond of the years 0 to 9999, outside of which a number or a text is no date. Milliseconds
/// that are declared as seconds are outside.
pub(crate) const RANGE: (Millis, Millis) = (-62_167_219_200_000, 253_402_300_799_999);

/// The content of the field of a date.
pub(super) enum Date {
    At(Millis),
    Missing,
    Malformed,
}

impl Date {
    /// Reads the only date at the field's path. Several values are malformed.
    pub(super) fn read(field: &DateField, part: &Document) -> Self {
        let mut found = Self::Missing;
        let mut count = 0;
        field.path.ends(part, &mut |end| {
            count += 1;
            found = match end {
                End::Value(value) => millis(value, field.unit).map_or(Self::Malformed, Self::At),
                End::Missing => Self::Missing,
                End::Blocked => Self::Malformed,
            };
        });
        if count > 1 { Self::Malformed } else { found }
    }
}

/// The date that a value means; none if it is not a date of this unit. A date between two milliseconds is the later one of
/// these: at no whole millisecond does that change whether it has come.
fn millis(value: &Bson, unit: DateUnit) -> Option<Millis> {
    let exact = match unit {
        DateUnit::Date => return value.as_datetime().map(|date| date.timestamp_millis()),
        DateUnit::Seconds => number(value)? * BigDecimal::from(1_000),
        DateUnit::Milliseconds => number(value)?,
        DateUnit::Iso8601 => {
            let date = OffsetDateTime::parse(value.as_str()?, &Iso8601::PARSING).ok()?;
            BigDecimal::new(date.unix_timestamp_nanos().into(), 6)
        }
    };
    let is_in_range = (BigDecimal::from(RANGE.0)..=BigDecimal::from(RANGE.1)).contains(&exact);
    let rounded = is_in_range.then(|| exact.with_scale_round(0, RoundingMode::Ceiling))?;
    Millis::try_from(rounded.into_bigint_and_exponent().0).ok()
}

/// The exact value of a finite number of any type.
fn number(value: &Bson) -> Option<BigDecimal> {
    match value {
        Bson::Int32(number) => Some(BigDecimal::from(*number)),
        Bson::Int64(number) => Some(BigDecimal::from(*number)),
        Bson::Double(double) => BigDecimal::try_from(*double).ok(),
        Bson::Decimal128(decimal) => BigDecimal::from_str(&decimal.to_string()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Bson {
        Bson::Decimal128(text.parse().unwrap())
    }

    #[test]
    fn numbers_of_every_type_are_dates() {
        for (seconds, expected) in [
            (Bson::Int32(2), Some(2_000)),
            (Bson::Int64(-2), Some(-2_000)),
            (Bson::Double(1.5), Some(1_500)),
            (Bson::Double(0.0005), Some(1)),
            (Bson::Double(-0.0005), Some(0)),
            (Bson::Double(-0.0), Some(0)),
            (decimal("1.79E+9"), Some(1_790_000_000_000)),
            (decimal("1E-6000"), Some(1)),
            (Bson::Int64(253_402_300_799), Some(253_402_300_799_000)),
            (Bson::Int64(253_402_300_800), None),
            (Bson::Int64(-62_167_219_200), Some(RANGE.0)),
            (Bson::Int64(-62_167_219_201), None),
            // Milliseconds in place of seconds.
            (Bson::Int64(1_790_000_000_000), None),
            (Bson::Int64(i64::MAX), None),
            (Bson::Int64(i64::MIN), None),
            (Bson::Double(1e300), None),
            (Bson::Double(f64::NAN), None),
            (Bson::Double(f64::INFINITY), None),
            (Bson::Double(f64::NEG_INFINITY), None),
            (decimal("NaN"), None),
            (decimal("-Infinity"), None),
            (decimal("1E+6000"), None),
            ("2".into(), None),
            (true.into(), None),
            (Bson::DateTime(bson::DateTime::from_millis(2_000)), None),
        ] {
            assert_eq!(millis(&seconds, DateUnit::Seconds), expected, "{seconds:?}");
        }
        for (value, expected) in [
            (Bson::Int64(1_790_000_000_123), Some(1_790_000_000_123)),
            (Bson::Double(1_790_000_000_123.25), Some(1_790_000_000_124)),
            (decimal("1790000000123"), Some(1_790_000_000_123)),
            (Bson::Int64(RANGE.1), Some(RANGE.1)),
            (Bson::Int64(RANGE.1 + 1), None),
            (Bson::Double(f64::NAN), None),
        ] {
            assert_eq!(millis(&value, DateUnit::Milliseconds), expected, "{value:?}");
        }
    }

    #[test]
    fn texts_in_iso_8601_are_dates_if_they_have_a_time_of_day_and_a_time_zone() {
        for (text, expected) in [
            ("1970-01-01T00:00:02Z", Some(2_000)),
            ("1970-01-01T00:00:02.5Z", Some(2_500)),
            ("1970-01-01T00:00:02.000000001Z", Some(2_001)),
            ("1970-01-01T02:00:02+02:00", Some(2_000)),
            ("1969-12-31T22:00:02-02", Some(2_000)),
            ("1970-01-01T00:01Z", Some(60_000)),
            ("19700101T000002Z", Some(2_000)),
            ("2026-11-23T12:00:00.000Z", Some(1_795_435_200_000)),
            ("9999-12-31T23:59:59.999Z", Some(RANGE.1)),
            ("+010000-01-01T00:00:00Z", None),
            ("2026-11-23T12:00:00", None),
            ("2026-11-23", None),
            ("2026-11-23 12:00:00Z", None),
            ("2026-02-30T12:00:00Z", None),
            ("2026-13-01T12:00:00Z", None),
            ("2026-11-23T25:00:00Z", None),
            (" 2026-11-23T12:00:00Z", None),
            ("2026-11-23T12:00:00Z ", None),
            ("1795435200", None),
            ("never", None),
            ("", None),
        ] {
            assert_eq!(millis(&text.into(), DateUnit::Iso8601), expected, "{text}");
        }
        assert_eq!(millis(&Bson::Int64(2), DateUnit::Iso8601), None);
    }
}
