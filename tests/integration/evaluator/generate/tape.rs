//! A list of random bytes, read choice by choice.

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

    /// A number below `count`: the smaller, the smaller the byte. Zero if there is none below it.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.next()) * count / 256
    }

    /// The number of an id: those that stand first are met most.
    pub fn id(&mut self) -> usize {
        const MET: [usize; 8] = [0, 0, 0, 0, 1, 1, 1, 2];
        MET[self.below(MET.len())]
    }

    /// Whether something happens that does so in `percent` of all cases; not where the byte is zero.
    pub fn rarely(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }
}
