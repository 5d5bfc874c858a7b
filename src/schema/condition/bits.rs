//! Tests of bits: `$bitsAllSet` and its relatives.
//!
//! Numbers have the bits of their 64-bit two's complement, whose sign is continued for ever. The first bit of binary data is
//! the lowest one of its first byte.

use std::str::FromStr;

use bigdecimal::{BigDecimal, RoundingMode};
use bson::{Binary, Bson, spec::BinarySubtype};

use crate::schema::number::whole_number;

/// The highest bit of a number. It is the sign, as which all bits beyond count.
const SIGN_BIT: u32 = 63;

/// A test of some bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitTest {
    /// All are 1: `$bitsAllSet`
    AllSet,
    /// At least one is 1: `$bitsAnySet`
    AnySet,
    /// All are 0: `$bitsAllClear`
    AllClear,
    /// At least one is 0: `$bitsAnyClear`
    AnyClear,
}

impl BitTest {
    /// All tests.
    pub(super) const ALL: [Self; 4] = [Self::AllSet, Self::AnySet, Self::AllClear, Self::AnyClear];

    /// The name of the operator in MongoDB.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllSet => "$bitsAllSet",
            Self::AnySet => "$bitsAnySet",
            Self::AllClear => "$bitsAllClear",
            Self::AnyClear => "$bitsAnyClear",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|test| test.as_str() == name)
    }
}

/// The positions of the bits that are tested, from 0 on, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask(Box<[u32]>);

impl Mask {
    /// A mask of these positions. The largest that MongoDB accepts is `i32::MAX`.
    #[must_use]
    pub fn of_positions(mut positions: Vec<u32>) -> Self {
        positions.sort_unstable();
        positions.dedup();
        Self(positions.into())
    }

    /// The bits that are 1 in a number.
    #[must_use]
    pub fn of_number(number: u64) -> Self {
        Self((0..=SIGN_BIT).filter(|bit| number >> bit & 1 == 1).collect())
    }

    /// The bits that are 1 in binary data.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let bits = (0..).zip(bytes).flat_map(|(place, byte)| (0..8).map(move |bit| (place * 8 + bit, byte >> bit & 1)));
        Self(bits.filter(|(_, bit)| *bit == 1).map(|(position, _)| position).collect())
    }

    /// Whether no bit is tested.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the test holds for a value. For one without bits, none holds.
    pub(super) fn holds(&self, test: BitTest, value: &Bson) -> bool {
        match value {
            Bson::Binary(binary) => {
                let stored = stored_bytes(binary);
                self.test(test, |position| {
                    let byte = usize::try_from(position / 8).ok().and_then(|place| stored.get(place));
                    byte.is_some_and(|byte| byte >> (position % 8) & 1 == 1)
                })
            }
            value => tested_number(value)
                .is_some_and(|number| self.test(test, |position| number >> position.min(SIGN_BIT) & 1 == 1)),
        }
    }

    fn test(&self, test: BitTest, is_set: impl Fn(u32) -> bool) -> bool {
        let mut positions = self.0.iter().copied();
        match test {
            BitTest::AllSet => positions.all(is_set),
            BitTest::AnySet => positions.any(is_set),
            BitTest::AllClear => !positions.any(is_set),
            BitTest::AnyClear => !positions.all(is_set),
        }
    }

    /// The mask as an operand: a number if that is possible, else the positions.
    pub(super) fn to_operand(&self) -> Bson {
        if self.0.last().is_some_and(|last| *last < SIGN_BIT) {
            return Bson::Int64(self.0.iter().fold(0, |number, bit| number | 1_i64 << bit));
        }
        self.0.iter().map(|position| Bson::Int64(i64::from(*position))).collect::<Vec<_>>().into()
    }
}

/// Whether the value has bits that mean what they say: it is a whole number of 64 bits, or binary data that is no UUID, hash or
/// encrypted value, and no old-style binary, of which mongod tests the length first.
pub(super) fn has_bits(value: &Bson) -> bool {
    match value {
        Bson::Binary(binary) => {
            matches!(binary.subtype, BinarySubtype::Generic | BinarySubtype::UserDefined(_))
        }
        value => whole_number(value).is_some(),
    }
}

/// The number of 64 bits that mongod tests in place of a value; none if it tests no bits.
fn tested_number(value: &Bson) -> Option<i64> {
    match value {
        // What does not fit is the least number.
        Bson::Decimal128(decimal) => Some(nearest_whole(&decimal.to_string()).unwrap_or(i64::MIN)),
        value => whole_number(value),
    }
}

/// The whole number that is nearest to a decimal, the even one of two. None if it does not fit in 64 bits, or is no number.
fn nearest_whole(text: &str) -> Option<i64> {
    let rounded = BigDecimal::from_str(text).ok()?.with_scale_round(0, RoundingMode::HalfEven);
    i64::try_from(rounded.into_bigint_and_exponent().0).ok()
}

/// The bytes of binary data as mongod tests them: it stores the length of an old-style binary before its bytes.
fn stored_bytes(binary: &Binary) -> Vec<u8> {
    let mut stored = Vec::new();
    if binary.subtype == BinarySubtype::BinaryOld {
        stored.extend(i32::try_from(binary.bytes.len()).unwrap_or(i32::MAX).to_le_bytes());
    }
    stored.extend(&binary.bytes);
    stored
}
