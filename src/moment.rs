//! Moments, which are points in the source's logical time, and tokens, which callers pass on.
//!
//! Knows nothing of the time of machines. Moments of different clocks are never compared: a token names its clock.

use std::{fmt, str::FromStr};

/// A moment of the source's logical time. For MongoDB that is its cluster time: seconds in the upper 32 bits and an increment
/// in the lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment of a cluster time.
    #[must_use]
    pub fn new(seconds: u32, increment: u32) -> Self {
        Self(u64::from(seconds) << 32 | u64::from(increment))
    }

    /// The moment whose [`Moment::as_u64`] is this number.
    #[must_use]
    pub fn from_count(count: u64) -> Self {
        Self(count)
    }

    /// The first moment after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The last moment before this one.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Seconds since the Unix epoch, for a cluster time.
    #[must_use]
    pub fn seconds(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(u32::MAX)
    }

    /// The increment within the second, for a cluster time.
    #[must_use]
    pub fn increment(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(u32::MAX)
    }

    /// How many seconds later this is than `other`, for cluster times; 0 if it is earlier. Increments are ignored.
    #[must_use]
    pub fn seconds_after(self, other: Self) -> u32 {
        self.seconds().saturating_sub(other.seconds())
    }

    /// How far this moment is after `base`, for [`Moment::at_distance`]. Wraps around if it is earlier.
    #[must_use]
    pub fn distance_from(self, base: Self) -> u64 {
        self.0.wrapping_sub(base.0)
    }

    /// The moment whose [`Moment::distance_from`] this one is `distance`.
    #[must_use]
    pub fn at_distance(self, distance: u64) -> Self {
        Self(self.0.wrapping_add(distance))
    }

    /// Both halves as one number.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

/// The clock that moments belong to. Moments of different clocks cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Clock {
    /// A replica set's cluster time: the same on every instance.
    Cluster,
    /// Revisions of a directory of documents.
    Revision,
    /// Ticks of one instance, used if MongoDB is not a replica set. They mean nothing to another instance.
    Local,
}

impl Clock {
    const ALL: [Self; 3] = [Self::Cluster, Self::Revision, Self::Local];

    /// The name in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Revision => "revision",
            Self::Local => "local",
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Cluster => 'c',
            Self::Revision => 'r',
            Self::Local => 'l',
        }
    }
}

/// A moment and its clock. Callers pass it on as opaque text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The clock of the moment.
    pub clock: Clock,
    /// The moment.
    pub moment: Moment,
}

/// The text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a token: pass on the `as_of` of an answer unchanged, or give the operation time of a write as `operation_time`"
)]
pub struct TokenError;

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:016x}", self.clock.letter(), self.moment.as_u64())
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut rest = text.chars();
        let letter = rest.next().ok_or(TokenError)?;
        let clock = Clock::ALL.into_iter().find(|clock| clock.letter() == letter).ok_or(TokenError)?;
        let moment = u64::from_str_radix(rest.as_str(), 16).map(Moment::from_count).map_err(|_| TokenError)?;
        let token = Self { clock, moment };
        // Each token has one spelling only.
        if token.to_string() == text { Ok(token) } else { Err(TokenError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_can_be_read_from_its_text() {
        for clock in Clock::ALL {
            let token = Token { clock, moment: Moment::new(1_763_900_000, 7) };
            assert_eq!(token.to_string().parse(), Ok(token));
            assert_eq!((token.moment.seconds(), token.moment.increment()), (1_763_900_000, 7));
        }
        for text in ["", "c", "c1", "x0000000000000001", "c+000000000000001", "c000000000000000A", "c00000000000000010"]
        {
            assert_eq!(text.parse::<Token>(), Err(TokenError), "{text}");
        }
    }

    #[test]
    fn a_moment_is_found_by_its_distance_from_any_other() {
        let (early, late) = (Moment::new(4, 3), Moment::new(9, 1));
        assert_eq!(Moment::new(4, 5).distance_from(early), 2);
        for (moment, base) in [(late, early), (early, late), (early, early), (Moment::default(), late)] {
            assert_eq!(base.at_distance(moment.distance_from(base)), moment);
        }
    }

    #[test]
    fn seconds_after_an_earlier_moment_are_counted() {
        let at = |seconds| Moment::new(seconds, 3);
        assert_eq!(at(9).seconds_after(at(4)), 5);
        assert_eq!(at(4).seconds_after(at(9)), 0);
        assert_eq!(Moment::new(4, u32::MAX).seconds_after(at(4)), 0);
    }

    #[test]
    fn moments_are_ordered_by_second_then_increment() {
        assert!(Moment::new(1, u32::MAX) < Moment::new(2, 0));
        assert!(Moment::new(1, 1) < Moment::new(1, 2));
    }
}
