//! Whole numbers of 64 bits in BSON's types of numbers.
//!
//! Rounds nothing. Only tests of bits take the nearest whole number, as mongod does (`condition/bits.rs`).

use std::str::FromStr;

use bigdecimal::BigDecimal;
use bson::Bson;

/// The whole number that a value is, whatever its type of number; none if it has a fraction or does not fit in 64 bits.
pub(crate) fn whole_number(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        Bson::Double(double) => whole_double(*double),
        Bson::Decimal128(decimal) => whole_decimal(&decimal.to_string()),
        _ => None,
    }
}

/// The whole number that a decimal is. It may be written in any way: `5`, `5.00`, `0.5E1`.
fn whole_decimal(text: &str) -> Option<i64> {
    let (digits, scale) = BigDecimal::from_str(text).ok()?.normalized().into_bigint_and_exponent();
    let zeros = u32::try_from(scale.checked_neg()?).ok()?;
    i64::try_from(digits).ok()?.checked_mul(10_i64.checked_pow(zeros)?)
}

/// The whole number that a double is.
fn whole_double(double: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if double.fract() != 0.0 || !(-LIMIT..LIMIT).contains(&double) {
        return None;
    }
    format!("{double:.0}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_double_is_a_whole_number_if_it_has_no_fraction_and_fits() {
        for (double, number) in [
            (5.0, Some(5)),
            (-0.0, Some(0)),
            (-9_223_372_036_854_775_808.0, Some(i64::MIN)),
            (9_223_372_036_854_775_808.0, None),
            (5.5, None),
            (1e300, None),
            (f64::NAN, None),
            (f64::NEG_INFINITY, None),
        ] {
            assert_eq!(whole_number(&Bson::Double(double)), number, "{double}");
        }
    }

    #[test]
    fn a_decimal_has_the_same_value_in_every_notation() {
        for (text, number) in [
            ("5", Some(5)),
            ("5.00", Some(5)),
            ("0.5E1", Some(5)),
            ("5E+18", Some(5_000_000_000_000_000_000)),
            ("-0", Some(0)),
            ("0E+6000", Some(0)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808.0", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("1E+19", None),
            ("1E+6000", None),
            ("5.5", None),
            ("NaN", None),
            ("Infinity", None),
        ] {
            assert_eq!(whole_number(&Bson::Decimal128(text.parse().unwrap())), number, "{text}");
        }
    }
}
