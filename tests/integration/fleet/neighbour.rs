//! A neighbour: another client of the shared Redis, which publishes, writes to the log and takes the lease as it likes, and
//! repeats what it has received. It knows every format, and not the secret. It costs speed at most.
//!
//! What it can do to facts is tested in `shared_facts::forged`.

use std::{sync::Arc, time::Duration};

use bson::doc;
use permcached::{
    app::Sharing,
    bus::{Hint, Published},
    check::Consistency,
    freshness::{ChangeBatch, Moment},
    link::{FORMAT, Link, Namespace, Secrets, Server},
    source::Identity,
};
use tokio::time::Instant;

use super::{
    FILE, GUEST, NO_GRANT, SCHEMA, SHARE, id,
    log::{Peer, after, changed, key, lossy},
    reads, share, shared_file,
    together::{assert_taken_from_redis, shared_files},
};
use crate::support::{
    both::{counted, shown},
    fleet::Fleet,
    live::until,
    redis::{Redis, SECRET, redis, secrets},
};

/// What instances and a neighbour share: the names. Only the instances have the secret.
struct Names {
    own: Namespace,
    forged: Namespace,
}

impl Names {
    fn new() -> Self {
        let identity =
            Identity { set: None, database: format!("neighbour-{}", fastrand::u64(..)), collections: Vec::new() };
        let forger = Secrets::parse(&"guessed".repeat(5)).expect("it is long enough");
        Self {
            own: Namespace::new(&identity, [0; 32], FORMAT, &secrets()),
            forged: Namespace::new(&identity, [0; 32], FORMAT, &forger),
        }
    }
}

/// How many unauthentic things of a kind a peer has found.
fn unauthentic(peer: &Peer, what: &str) -> u64 {
    counted(&peer.metrics, &format!("permcached_redis_unauthentic_total{{what=\"{what}\"}}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_change_batch_or_hint_does_nothing() {
    let names = Names::new();
    let receiver = Peer::started(redis(), names.own.clone()).await;
    let forger = Peer::new(redis(), names.forged).await;
    let start = receiver.freshness.watermark();
    let now = receiver.now().await;
    let state = || (receiver.freshness.watermark(), receiver.freshness.floor());
    let before = state();
    forger.publish(start, now, vec![]).await;
    until(|| unauthentic(&receiver, "change_batch") >= 1).await;
    forger.bus.publish_hint(&Hint::all(now)).await;
    until(|| unauthentic(&receiver, "hint") >= 1).await;
    assert_eq!(state(), before);
    // Silence of the leader is noticed, whatever the neighbour publishes.
    let noticed = async {
        while receiver.bus.covers_all_changes() {
            let now = receiver.now().await;
            forger.publish(start, now, vec![]).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(45), noticed).await.expect("it follows the source by itself in the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_log_entry_is_as_if_it_were_absent() {
    let names = Names::new();
    let receiver = Peer::started(redis(), names.own.clone()).await;
    let leader = Peer::new(redis(), names.own.clone()).await;
    let forger = Peer::new(redis(), lossy(&names.forged)).await;
    let start = receiver.freshness.watermark();
    leader.publish(start, after(start, 1), vec![]).await;
    receiver.until_applied(after(start, 1)).await;
    // It fills the hole that a lost change batch leaves.
    forger.publish(after(start, 1), after(start, 3), vec![]).await;
    leader.publish(after(start, 3), after(start, 4), vec![]).await;
    receiver.until_applied(after(start, 4)).await;
    assert!(!receiver.counts(&key(1), after(start, 2)), "what was missed may be of any key");
    assert!(receiver.counts(&key(1), after(start, 3)));
    assert!(unauthentic(&receiver, "log_entry") >= 1);
    receiver.until_present(after(start, 4)).await;
    let newcomer = Peer::started(redis(), names.own).await;
    assert_eq!(newcomer.freshness.floor(), after(start, 3), "it begins after the hole");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_were_copied_repeated_or_have_other_fields_are_ignored_and_the_link_stays_up() {
    let names = Names::new();
    let log = names.own.names.log.clone();
    let receiver = Peer::started(redis(), names.own.clone()).await;
    let leader = Peer::new(redis(), lossy(&names.own)).await;
    let start = receiver.freshness.watermark();
    leader.publish(start, after(start, 2), changed(1, after(start, 1))).await;
    let entries: Vec<(String, (String, Vec<u8>))> = redis().read(&["XRANGE", &log, "-", "+"]);
    let [(_, (_, honest))] = entries.as_slice() else { panic!("there is one: {entries:?}") };
    let copy = |count: u64| {
        let at = after(start, count);
        let id = format!("{}-{}", at.seconds(), at.increment());
        let mut add = redis::cmd("XADD");
        add.arg(&log).arg(id).arg("s").arg(honest);
        let mut connection = redis::Client::open(redis().url()).unwrap().get_connection().unwrap();
        add.query::<String>(&mut connection).expect("Redis takes it");
    };
    copy(3);
    let at = after(start, 4);
    redis().run(&["XADD", &log, &format!("{}-{}", at.seconds(), at.increment()), "a", "b", "c", "d"]);
    copy(5);
    leader.publish(after(start, 2), after(start, 6), changed(2, after(start, 5))).await;
    receiver.bus.catch_up().await;
    receiver.until_applied(after(start, 6)).await;
    assert!(!receiver.counts(&key(1), start) && !receiver.counts(&key(2), after(start, 4)), "both changes are applied");
    assert!(receiver.counts(&key(3), start), "and there is no gap");
    assert!(unauthentic(&receiver, "log_entry") >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_a_neighbour_has_closed_is_removed_and_accepts_change_batches_again() {
    let last = format!("{0}-{0}", u64::MAX);
    let closed: [&[&str]; 4] = [
        &["XADD", "LOG", &last, "s", "x"],
        &["XADD", "LOG", "18446744073709551615-0", "s", "x"],
        &["XSETID", "LOG", "18446744073709551615-7"],
        &["SET", "LOG", "x"],
    ];
    for closing in closed {
        let names = Names::new();
        let log = names.own.names.log.clone();
        let receiver = Peer::started(redis(), names.own.clone()).await;
        let leader = Peer::started(redis(), names.own).await;
        let start = receiver.freshness.watermark().max(leader.freshness.watermark());
        leader.publish(start, after(start, 1), vec![]).await;
        leader.until_applied(after(start, 1)).await;
        let command: Vec<&str> = closing.iter().map(|part| if *part == "LOG" { log.as_str() } else { part }).collect();
        redis().run(&command);
        // As the feed does: the next term begins by taking over. Subscribers receive the change batch in any case.
        let publish = async |count: u64| {
            let batch = ChangeBatch { from: after(start, count - 1), to: after(start, count), changes: vec![] };
            leader.bus.publish(batch).await.expect("Redis takes it")
        };
        publish(2).await;
        leader.bus.take_over().await;
        assert_eq!(publish(3).await, Published::Logged, "{closing:?}");
        receiver.until_applied(after(start, 3)).await;
        assert_eq!(redis().read::<String>(&["TYPE", &log]), "stream");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_bounded_part_of_a_log_of_a_million_forged_entries_is_read() {
    let redis = Redis::start(&[]);
    let names = Names::new();
    let fill = "for i = 1, 20000 do redis.call('XADD', KEYS[1], ARGV[1] .. '-' .. i, 's', 'forged') end";
    for part in 1..=50 {
        redis.run(&["EVAL", fill, "1", &names.own.names.log, &part.to_string()]);
    }
    let large = "redis.call('XADD', KEYS[1], '51-1', 's', string.rep('x', 50000000))";
    redis.run(&["EVAL", large, "1", &names.own.names.log]);
    let newcomer = Peer::started(&redis, names.own.clone()).await;
    let leader = Peer::new(&redis, names.own).await;
    let start = newcomer.freshness.watermark();
    assert_eq!(newcomer.freshness.floor(), start, "it begins at a probe");
    leader.publish(start, after(start, 1), vec![]).await;
    newcomer.until_applied(after(start, 1)).await;
    let found = unauthentic(&newcomer, "log_entry");
    assert!((1..=4_000).contains(&found), "{found} entries were read");
    assert_eq!(redis.read::<u64>(&["XLEN", &newcomer_log(&redis)]), 1_000, "an honest entry trims the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_the_log_that_are_longer_than_any_of_an_instance_are_counted_and_not_sent() {
    const ENTRIES: u64 = 50;
    let redis = Redis::start(&[]);
    let names = Names::new();
    let receiver = Peer::started(&redis, names.own.clone()).await;
    let later = receiver.freshness.watermark().seconds() + 1;
    let fill =
        "for i = 1, ARGV[2] do redis.call('XADD', KEYS[1], ARGV[1] .. '-' .. i, 's', string.rep('x', 1000000)) end";
    redis.run(&["EVAL", fill, "1", &names.own.names.log, &later.to_string(), &ENTRIES.to_string()]);
    let sent = || redis.info("stats", "total_net_output_bytes").parse::<u64>().expect("a number");
    let before = sent();
    while unauthentic(&receiver, "log_entry") < ENTRIES {
        receiver.bus.catch_up().await;
    }
    let bytes = sent() - before;
    assert!(bytes < 1_000_000, "{bytes} bytes were sent");
}

fn newcomer_log(redis: &Redis) -> String {
    let keys: Vec<String> = redis.read(&["KEYS", "pc:log:*"]);
    keys.into_iter().next().expect("there is a log")
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_messages_and_a_flood_of_others_change_nothing() {
    let redis = Redis::start(&[]);
    let names = Names::new();
    let receiver = Peer::started(&redis, names.own.clone()).await;
    let leader = Peer::new(&redis, names.own.clone()).await;
    let start = receiver.freshness.watermark();
    leader.publish(start, after(start, 2), changed(1, after(start, 1))).await;
    leader.publish(after(start, 2), after(start, 4), vec![]).await;
    receiver.until_applied(after(start, 4)).await;
    let floor = receiver.freshness.floor();
    let entries: Vec<(String, (String, Vec<u8>))> = redis.read(&["XRANGE", &names.own.names.log, "-", "+"]);
    let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    for (_, (_, honest)) in entries.iter().rev() {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&names.own.names.change_batches).arg(honest);
        publish.query::<u64>(&mut connection).expect("Redis takes it");
    }
    let flood = "for i = 1, 20000 do redis.call('PUBLISH', KEYS[1], ARGV[1]) end";
    redis.run(&["EVAL", flood, "1", &names.own.names.change_batches, &"garbage".repeat(100)]);
    redis.run(&["EVAL", flood, "1", &names.own.names.hints, "{\"at\":[1,1],\"all\":true}"]);
    leader.publish(after(start, 4), after(start, 5), changed(2, after(start, 5))).await;
    receiver.until_applied(after(start, 5)).await;
    assert_eq!(receiver.freshness.watermark(), after(start, 5));
    assert_eq!(receiver.freshness.floor(), floor, "nothing was dropped");
    assert!(receiver.counts(&key(1), after(start, 1)) && !receiver.counts(&key(1), start));
    assert!(!receiver.counts(&key(2), after(start, 4)));
    assert!(unauthentic(&receiver, "change_batch") >= 1);
}

/// The neighbour takes the lease whenever it is free, and publishes change batches that cover every moment and contain no
/// change: instances that believed it would keep what was revoked for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_with_the_lease_that_publishes_that_nothing_has_changed_costs_only_speed() {
    let redis = Arc::new(Redis::start(&[]));
    let mut fleet = Fleet::new(0, &redis.url(), SCHEMA, &shared_file()).await;
    let mut own = None;
    for _ in 0..2 {
        let server = Server::parse(&redis.url()).expect("a URL of the test's own");
        let namespace = &mut own;
        let start = fleet.start_sharing(fleet.schema.clone(), async |schema, mongodb| {
            let identity = mongodb.identity().await.expect("mongod answers");
            let of = |secrets| Namespace::new(&identity, schema.fingerprint(), FORMAT, secrets);
            let forger = Secrets::parse(&"guessed".repeat(5)).expect("it is long enough");
            *namespace = Some(of(&forger));
            Sharing::new(server, of(&secrets()))
        });
        let instance = start.await;
        fleet.instances.push(instance);
    }
    let forged = own.expect("the instances have started");
    fleet.until_bus_covers_all().await;
    let question = reads(&fleet.instances[0].live, FILE);
    fleet.until_cached(&question, GUEST).await;
    let lease = forged.names.lease.clone();
    let forger = Peer::new(&redis, forged).await;
    let neighbour = {
        let redis = Arc::clone(&redis);
        tokio::spawn(async move {
            let mut from = forger.now().await;
            loop {
                redis.run(&["SET", &lease, "neighbour", "PX", "60000"]);
                let now = forger.now().await;
                forger.publish(from, now, vec![]).await;
                from = now;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    // Each instance notices that no instance publishes any more.
    fleet.until_followed_by(2).await;
    let gone = fleet.instances[0].live.delete("shares", doc! { "_id": id(SHARE) }).await;
    let deleted = Instant::now();
    let bound = Duration::from_secs(2);
    while deleted.elapsed() < bound * 2 {
        for live in fleet.each() {
            let asked = Instant::now();
            let answer = live.ask(&question, Consistency::MinimizeLatency).await.expect("an answer").answer;
            if asked.duration_since(deleted) > bound {
                assert_eq!(shown(&live.schema, answer), NO_GRANT);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    fleet.until_applied(gone, &question, NO_GRANT).await;
    neighbour.abort();
    assert!(neighbour.await.is_err_and(|error| error.is_cancelled()), "the neighbour went on to the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_replaced_without_a_gap() {
    let redis = Redis::start(&[]);
    let next = "of-the-next-0123456789abcdef0123456789abcdef";
    let [old, both, swapped, new] =
        [SECRET.to_owned(), format!("{SECRET},{next}"), format!("{next},{SECRET}"), next.to_owned()];
    // Instances on neighbouring steps of the rotation run at the same time.
    for steps in [[&old, &both], [&both, &swapped], [&swapped, &new]] {
        redis.flush();
        let mut fleet = Fleet::new(0, &redis.url(), SCHEMA, &shared_files()).await;
        for step in steps {
            let server = Server::parse(&redis.url()).expect("a URL of the test's own");
            let secrets = Secrets::parse(step).expect("they are long enough");
            let start = fleet.start_sharing(fleet.schema.clone(), async |schema, mongodb| {
                Sharing::over(server, &secrets, schema, &mongodb.identity().await.expect("mongod answers"))
            });
            let instance = start.await;
            fleet.instances.push(instance);
        }
        fleet.until_bus_covers_all().await;
        fleet.until_followed_by(1).await;
        let [one, other] = [0, 1].map(|place| &fleet.instances[place]);
        assert_taken_from_redis(one, &[other]).await;
        let question = reads(&one.live, FILE);
        let gone = one.live.delete("shares", doc! { "_id": id(SHARE) }).await;
        fleet.until_applied(gone, &question, NO_GRANT).await;
        let back = one.live.insert("shares", vec![share(SHARE, FILE)]).await;
        fleet.until_applied(back, &question, GUEST).await;
        redis.flush();
        fleet.instances.iter().for_each(|instance| instance.live.app.memory.clear());
        assert_taken_from_redis(other, &[one]).await;
        for live in fleet.each() {
            let metrics = live.app.metrics.render();
            let unauthentic = metrics.lines().filter(|line| line.starts_with("permcached_redis_unauthentic_total{"));
            assert!(
                unauthentic.clone().count() == 4 && unauthentic.clone().all(|line| line.ends_with(" 0")),
                "{metrics}"
            );
        }
    }
}

/// It is authentic, so only a bug or a replay from before a restored backup can have made it.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_change_batch_of_a_moment_four_seconds_ahead_checks_go_on() {
    let redis = Redis::start(&[]);
    let mut fleet = Fleet::new(0, &redis.url(), SCHEMA, &shared_file()).await;
    let mut own = None;
    let server = Server::parse(&redis.url()).expect("a URL of the test's own");
    let namespace = &mut own;
    let start = fleet.start_sharing(fleet.schema.clone(), async |schema, mongodb| {
        let identity = mongodb.identity().await.expect("mongod answers");
        let own = Namespace::new(&identity, schema.fingerprint(), FORMAT, &secrets());
        *namespace = Some(own.clone());
        Sharing::new(server, own)
    });
    let instance = start.await;
    fleet.instances.push(instance);
    fleet.until_bus_covers_all().await;
    let live = &fleet.instances[0].live;
    let peer = Peer::new(&redis, own.expect("the instance has started")).await;
    let from = live.app.freshness.watermark();
    let ahead = Moment::new(peer.now().await.seconds() + 4, 1);
    peer.publish(from, ahead, vec![]).await;
    let dropped = || counted(&live.app.metrics, "permcached_bus_drops_total");
    until(|| dropped() >= 1 || live.app.freshness.newest_moment() >= ahead).await;
    let question = reads(live, FILE);
    for _ in 0..20 {
        let checked = live.ask_anew(&question, Consistency::MinimizeLatency).await.expect("an answer");
        assert_eq!(shown(&live.schema, checked.answer), GUEST);
    }
    assert!(dropped() >= 1);
}

/// A subscriber that is busy with a message while a neighbour publishes.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_neighbour_publishes_takes_no_more_memory_than_the_queue_has() {
    const MESSAGE_BYTES_MAX: usize = 64 * 1_024;
    let channel = format!("pc:flood:{}", fastrand::u64(..));
    let link = Link::new(Arc::new(Server::parse(&redis().url()).expect("a URL")), Duration::from_secs(1));
    let mut subscription = link.subscribe(&[&channel], MESSAGE_BYTES_MAX).await.expect("Redis accepts it");
    let publish = |bytes: usize| redis().read::<u64>(&["PUBLISH", &channel, &"x".repeat(bytes)]);
    publish(5 << 20);
    publish(3);
    // Until the subscription is over: a neighbour cannot fill it.
    let endless = (0..2_000).find(|_| publish(60_000) == 0);
    assert!(endless.is_some(), "more than 100 MB wait to be handled");
    let mut lengths = Vec::new();
    while let Some((_, content)) = subscription.next().await {
        lengths.push(content.len());
    }
    assert_eq!(lengths[..2], [MESSAGE_BYTES_MAX + 1, 3], "a longer message is cut, so that it cannot be mistaken");
    let bytes: usize = lengths.iter().sum();
    assert!((3 << 20..=4 << 20).contains(&bytes), "{bytes} bytes waited");
}

/// Whether or not the instance is fast enough: a neighbour publishes more than the queue holds, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn no_change_is_missed_in_a_flood_that_fills_the_queue() {
    let names = Names::new();
    let redis = Redis::start(&[]);
    let receiver = Peer::started(&redis, names.own.clone()).await;
    let leader = Peer::new(&redis, names.own.clone()).await;
    let start = receiver.freshness.watermark();
    let mut at = start;
    let flood = "for i = 1, 100 do redis.call('PUBLISH', KEYS[1], ARGV[1]) end";
    for number in 1..=5 {
        redis.run(&["EVAL", flood, "1", &names.own.names.hints, &"garbage".repeat(9_000)]);
        leader.publish(at, after(at, 2), changed(number, after(at, 1))).await;
        at = after(at, 2);
    }
    receiver.until_applied(at).await;
    assert!((1..=5).all(|number| !receiver.counts(&key(number), start)));
}
