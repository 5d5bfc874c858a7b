//! The neighbour: another client of the same Redis, which can write everything there except a valid authentication code.
//!
//! What it can do with authentic messages and values needs no code here. In the runs with `Bus::AnythingTrue` and
//! `Tier::AnythingTrue`, each of them can be deleted, delayed, repeated and reordered at any time. This file has what the
//! neighbour makes itself, and which safeguard refuses it.

use permcached::freshness::Moment;

use super::{
    choices::until,
    protocol::Protocol,
    safeguards::Safeguard,
    world::{ChangeBatch, Fact, Found, Marks, Target, World, count, moment},
};

/// What a message or value of the neighbour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    ChangeBatch(ChangeBatch),
    Hint(Option<Target>, Moment),
    /// A fact under key A.
    Fact(Fact),
    /// A log, whose last chain amounts to this.
    Log(ChangeBatch),
}

/// How its authentication code came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The code is invalid, or there is none.
    Invalid,
    /// The code is valid for the same value under another key.
    OfOtherKey,
    /// The code is valid for the same bytes as a message or value of another purpose.
    OfOtherPurpose,
    /// The code is valid for instances over another database that use the same Redis and the same secret.
    OfOtherNamespace,
    /// A log of authentic entries, between which an entry was replaced by one with an invalid code.
    HoleInLog,
}

/// Something that the neighbour has written to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged {
    pub code: Code,
    pub content: Content,
}

impl Forged {
    /// The safeguard because of which an instance does not believe it.
    pub fn refused_by(self) -> Safeguard {
        match (self.code, self.content) {
            (Code::Invalid, Content::ChangeBatch(_) | Content::Log(_)) => Safeguard::BatchesAuthenticated,
            (Code::Invalid, Content::Hint(..)) => Safeguard::HintsAuthenticated,
            (Code::Invalid, Content::Fact(_)) => Safeguard::FactsAuthenticated,
            (Code::OfOtherKey, _) => Safeguard::FactCodeCoversKey,
            (Code::OfOtherPurpose, _) => Safeguard::CodeCoversPurpose,
            (Code::OfOtherNamespace, _) => Safeguard::CodeCoversNamespace,
            (Code::HoleInLog, _) => Safeguard::HoleInLogIsGap,
        }
    }
}

impl Protocol {
    /// Everything that the neighbour can make in this world.
    pub fn forgeries(&self, world: &World) -> Vec<Forged> {
        let mut all = Vec::new();
        self.add_invalid(&mut all);
        self.add_of_other_key_or_purpose(world, &mut all);
        self.add_of_other_namespace(world, &mut all);
        self.add_logs_with_holes(world, &mut all);
        all
    }

    /// Without a valid code: about any moments, also those that have not come.
    fn add_invalid(&self, all: &mut Vec<Forged>) {
        let mut add = |content| all.push(Forged { code: Code::Invalid, content });
        for to in until(self.future()) {
            for from in until(to) {
                for marks in [Marks::default(), [to; 4]] {
                    let batch = ChangeBatch { from, to, marks };
                    add(Content::ChangeBatch(batch));
                    add(Content::Log(batch));
                }
            }
            for target in [Some(Target::KeyA), Some(Target::Document(0)), None] {
                add(Content::Hint(target, to));
            }
            // Each document in one of its first two versions, or not found.
            for versions in 0..9 {
                add(Content::Fact(Fact { stamp: to, found: [versions % 3, versions / 3] }));
            }
        }
    }

    fn add_of_other_key_or_purpose(&self, world: &World, all: &mut Vec<Forged>) {
        let mut add = |code, content| all.push(Forged { code, content });
        for at in until(world.database) {
            add(Code::OfOtherKey, Content::Fact(Fact { stamp: at, found: self.run.history.found_by_key_b(count(at)) }));
            // A fact, read as a change batch or as a hint: its stamp is all that they have in common.
            add(Code::OfOtherPurpose, nothing_changed(moment(0), at));
            add(Code::OfOtherPurpose, Content::Hint(None, at));
            // A hint, read as a change batch: what it names is all that changed.
            for target in [Target::KeyA, Target::Document(0)] {
                let mut marks = Marks::default();
                self.mark(&mut marks, target, at);
                let batch = ChangeBatch { from: moment(0), to: at, marks };
                add(Code::OfOtherPurpose, Content::ChangeBatch(batch));
            }
        }
        // A change batch, read as a fact in which nothing is found.
        let stamps = self.change_batches(world.database).iter().map(|batch| batch.to);
        let empty = stamps.map(|stamp| Content::Fact(Fact { stamp, found: Found::default() }));
        empty.for_each(|fact| add(Code::OfOtherPurpose, fact));
    }

    /// In the other database nothing ever happens to these documents.
    fn add_of_other_namespace(&self, world: &World, all: &mut Vec<Forged>) {
        let mut add = |content| all.push(Forged { code: Code::OfOtherNamespace, content });
        for at in until(world.database) {
            add(nothing_changed(at, world.database));
            add(Content::Fact(Fact { stamp: at, found: self.found(moment(0)) }));
        }
    }

    /// Two parts of a log that are joined as if nothing had been between them.
    fn add_logs_with_holes(&self, world: &World, all: &mut Vec<Forged>) {
        let batches = self.change_batches(world.database);
        for before in batches {
            for after in batches.iter().filter(|after| after.from > before.to) {
                let marks = std::array::from_fn(|stripe| before.marks[stripe].max(after.marks[stripe]));
                let content = Content::Log(ChangeBatch { from: before.from, to: after.to, marks });
                all.push(Forged { code: Code::HoleInLog, content });
            }
        }
    }

    /// Point 8: whether an instance follows MongoDB by itself. The neighbour has the lease, so only a lack of received change
    /// batches is a reason to.
    pub fn follows_by_itself(&self, received: Moment, database: Moment) -> bool {
        self.keeps(Safeguard::FollowsByItself) && count(received) + 1 < count(database)
    }

    /// Whether a mark is later than the last change of what shares its stripe.
    pub fn has_mark_without_change(&self, world: &World, marks: &Marks) -> bool {
        let mut changed = Marks::default();
        for (at, event) in self.run.history.events(0, count(world.database)) {
            self.mark_event(&mut changed, at, event, None);
        }
        (0..changed.len()).any(|stripe| marks[stripe] > changed[stripe])
    }
}

fn nothing_changed(from: Moment, to: Moment) -> Content {
    Content::ChangeBatch(ChangeBatch { from, to, marks: Marks::default() })
}
