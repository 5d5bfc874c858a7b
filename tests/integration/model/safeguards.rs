//! The safeguards of the protocol, each of which a run can take out.

macro_rules! safeguards {
    ($($(#[$line:meta])* $name:ident,)*) => {
        /// What the protocol does so that its promises hold, in the order of its points.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Safeguard {
            $($(#[$line])* $name,)*
        }

        impl Safeguard {
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

safeguards! {
    /// 1. A fact's stamp is the moment of its snapshot, not the newest that is known when the reply arrives.
    SnapshotStamp,
    /// 1. The source answers from X or later, or not at all.
    AfterClusterTime,
    /// 1. X is raised by what is heard, not by probes alone.
    XCoversMarks,
    /// 1. X covers the marks of all documents, not just those known of the key before it is read.
    XCoversDocumentMarks,
    /// 1. X covers the request's own token.
    XCoversToken,
    /// 1. Who asked uses what came back, whatever was marked meanwhile.
    AskerUsesOwnRead,
    /// 2. `to` is strictly earlier than the stream's resume token.
    StrictTo,
    /// 2. What is said early is said again, until a `to` covers it.
    EarlyChangesAgain,
    /// 2. A statement is heard only from those who watch the same things.
    SamePipeline,
    /// 2. A statement is heard only from those who watch the same database.
    SameCluster,
    /// 3. W takes a statement that begins later than W only with the floor raised.
    FloorAtGap,
    /// 3. At a gap the floor is raised; emptying L1 is not enough.
    FloorNotJustEmptyL1,
    /// 3. Marks are set before W moves.
    MarksBeforeW,
    /// 3. The floor is raised before W moves.
    FloorBeforeW,
    /// 3. A probe that returns a moment before W begins a new history: nothing known is of this one.
    BeginAgain,
    /// 3. What was asked for before a new history began is not kept.
    OldReadsDropped,
    /// 4. A reader loads W before it tests.
    WBeforeTest,
    /// 4. The test looks at the floor.
    FloorTested,
    /// 4. The test looks at the key's mark.
    KeyTested,
    /// 4. The test looks at the marks of the fact's documents.
    DocumentsTested,
    /// 5. A probe is linearizable: no node answers that is behind.
    LinearizableProbe,
    /// 5. What is remembered serves no longer than its probes say.
    BoundTested,
    /// 5. Where even the newest moment known is too old for the request, a probe goes first.
    ProbeFirst,
    /// 9. Who starts by a probe has its floor there.
    FloorAtStart,
    /// 9. Who starts from the log has its floor where the log begins.
    FloorFromLog,
    /// 9. Who starts from the log has heard what is in the log, and not what its probe returns.
    WFromLog,
    /// 10. What L2 gave the one who asked is tested again for each who waits for it.
    JoinerTests,
    /// 10. A fact from L2 with a stamp later than a probe is a miss.
    FutureFactIsMiss,
    /// 11. A hint later than a probe is dropped.
    FutureHintDropped,
    /// 12. What is remembered serves a token only if it is true as of that or later.
    TokenTested,
    /// 12. A flight is joined only if its X satisfies who joins.
    JoinIfSatisfied,
    /// 12. A token later than a probe is refused.
    FutureTokenRefused,
}
