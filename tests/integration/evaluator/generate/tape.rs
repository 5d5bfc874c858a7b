//! A list of random bytes, which makes one choice per byte.
//!
//! Does not know what the choices are about.

/// The rest of a tape.
#[derive(Clone)]
pub struct Tape<'a>(&'a [u8]);

impl<'a> Tape<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// A number below `count`; zero if `count` is zero. A smaller byte gives a smaller number.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.next()) * count / 256
    }

    /// The number of an id. Small numbers are the most frequent.
    pub fn id(&mut self) -> usize {
        const FREQUENCIES: [usize; 8] = [0, 0, 0, 0, 1, 1, 1, 2];
        FREQUENCIES[self.below(FREQUENCIES.len())]
    }

    /// True in `percent` of all cases; never if the byte is zero.
    pub fn rarely(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }
}
