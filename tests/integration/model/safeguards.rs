//! The safeguards of the protocol, each of which a run can take out. docs/proof.md describes what happens then.
//!
//! Only names: `protocol`, `steps`, `choices` and `change_batches` apply them.

macro_rules! safeguards {
    ($($(#[$line:meta])* $name:ident,)*) => {
        /// What the protocol does so that its promises hold, in the order of the points of docs/freshness.md.
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
    /// 1. A fact's stamp is the moment of its snapshot, not the newest moment known when the reply arrives.
    SnapshotStamp,
    /// 1. The source answers from the newest moment or later, or not at all.
    AfterClusterTime,
    /// 1. Everything that is received raises the newest moment, not only probes.
    NewestCoversMarks,
    /// 1. The newest moment covers the marks of all documents, not only of those known for the key before it is read.
    NewestCoversDocumentMarks,
    /// 1. The newest moment covers the request's own token.
    NewestCoversToken,
    /// 1. The request that started a load uses its result, whatever was marked meanwhile.
    LoaderUsesOwnRead,
    /// 2. `to` is strictly earlier than the stream's resume token.
    StrictTo,
    /// 2. Changes that were published early are published again, in the batch whose `to` covers them.
    EarlyChangesAgain,
    /// 2. An instance accepts a change batch only from instances that follow the same collections and fields.
    SamePipeline,
    /// 2. An instance accepts a change batch only from instances over the same database.
    SameCluster,
    /// 3. A change batch that begins later than the watermark advances it only if the floor rises too.
    FloorAtGap,
    /// 3. At a gap the floor rises; emptying L1 is not enough.
    FloorNotJustEmptyL1,
    /// 3. Marks are set before the watermark moves.
    MarksBeforeWatermark,
    /// 3. The floor rises before the watermark moves.
    FloorBeforeWatermark,
    /// 3. A probe that returns a moment before the watermark begins a new epoch, to which nothing known so far belongs.
    NewEpoch,
    /// 3. The result of a read that began before a new epoch is not cached.
    OldReadsDropped,
    /// 4. A reader loads the watermark before it tests.
    WatermarkBeforeTest,
    /// 4. The test includes the floor.
    FloorTested,
    /// 4. The test includes the key's mark.
    KeyTested,
    /// 4. The test includes the marks of the fact's documents.
    DocumentsTested,
    /// 5. A probe is linearizable: no node that is behind answers it.
    LinearizableProbe,
    /// 5. A cached fact serves no longer than its probes allow.
    BoundTested,
    /// 5. If even the newest moment known is too old for the request, a probe goes first.
    ProbeFirst,
    /// 8. A change batch and an entry of the log without a valid code are not believed.
    BatchesAuthenticated,
    /// 8. The code covers the purpose: no message or value is believed as one of another purpose.
    CodeCoversPurpose,
    /// 8. The code covers the namespace: nothing of instances over another database or with another schema is believed.
    CodeCoversNamespace,
    /// 8. An instance that does not receive every change follows MongoDB by itself, whoever has the lease.
    FollowsByItself,
    /// 8. Only change batches that are believed count as received.
    SilenceOfAuthenticMessages,
    /// 9. An entry of the log that is not believed leaves a gap.
    HoleInLogIsGap,
    /// 9. An instance that starts from a probe has its floor there.
    FloorAtStart,
    /// 9. An instance that starts from the log has its floor where the log begins.
    FloorFromLog,
    /// 9. An instance that starts from the log has its watermark where the log ends, not at what its probe returns.
    WatermarkFromLog,
    /// 10. A fact from L2 is tested again for each request that waits for the load.
    WaiterTests,
    /// 10. A fact from L2 with a stamp later than a probe is a miss.
    FutureFactIsMiss,
    /// 10. A fact from L2 without a valid code is a miss.
    FactsAuthenticated,
    /// 10. A fact's code covers its key: a fact that was copied from another key is a miss.
    FactCodeCoversKey,
    /// 11. A hint without a valid code is dropped.
    HintsAuthenticated,
    /// 11. A hint later than a probe is dropped.
    FutureHintDropped,
    /// 12. A cached fact serves a token only if it is true as of the token's moment or later.
    TokenTested,
    /// 12. A request joins an in-flight load only if the load's moment satisfies the request.
    JoinIfSatisfied,
    /// 12. A token later than a probe is refused.
    FutureTokenRefused,
}
