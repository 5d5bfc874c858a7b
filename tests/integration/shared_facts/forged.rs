//! A neighbour: another client of the shared Redis, which writes whatever it likes over the facts there. It knows every format
//! and every key, and not the secret.
//!
//! What it can do to the log and to the messages is tested in `fleet::neighbour`.

use bson::doc;
use permcached::{
    check::Consistency,
    fact::{Fact, FactKey},
    facts::codec,
    freshness::Moment,
    link::{FORMAT, Namespace, Secrets},
    question::{Id, Question},
};

use super::{FILE, GUEST, Instance, NO_GRANT, USER, World, id, raw};
use crate::support::{
    both::{counted, question},
    live::until,
    redis::Redis,
};

/// A user to whom nobody has granted anything.
const NOBODY: u8 = 102;

/// How many values without a valid code an instance has found under keys of facts.
fn unauthentic(instance: &Instance) -> u64 {
    counted(&instance.live.app.metrics, "permcached_redis_unauthentic_total{what=\"fact\"}")
}

/// The question whether a user may read a file.
fn asks(world: &World, user: u8, file: u8) -> Question {
    question(&world.schema, &format!("user:{}", id(user)), "read", &format!("file:{}", id(file)))
}

/// The codes of instances over the same database with another secret.
async fn of_another_secret(instance: &Instance, world: &World) -> Namespace {
    let source = permcached::source::mongodb::MongoDb::open(world.schema.clone(), instance.live.database.clone());
    let identity = source.await.expect("mongod answers").identity().await.expect("mongod answers");
    let secrets = Secrets::parse(&"guessed".repeat(5)).expect("it is long enough");
    Namespace::new(&identity, world.schema.fingerprint(), FORMAT, &secrets)
}

/// The bytes with every occurrence of `from` replaced.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> = (0..=bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

#[tokio::test]
async fn a_forged_fact_is_a_miss_and_is_counted() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    // The last file is the guest's own.
    let own = doc! { "$set": { "owner_id": id(USER) } };
    let files = world.database.collection::<bson::Document>("files");
    files.update_one(doc! { "_id": id(50) }, own).await.expect("mongod answers");
    let (first, second) = (world.join().await, world.join().await);
    let mut read = Moment::default();
    for file in [FILE, 2, 50] {
        read = read.max(first.fills(&world.reads(file)).await);
    }
    second.live.until_applied(read).await;
    let name = |collection, file| first.name(&world, collection, file);
    let value = |name: &[u8]| raw::<Vec<u8>>(&world.url, &[b"GET", name]);
    let [share, own] = [value(&name("shares", FILE)), value(&name("files", 50))];
    let another = of_another_secret(&first, &world).await;
    let granted = doc! { "_id": id(9), "file_id": id(3), "user_id": id(USER) };
    let granted = Fact::read(&world.schema, world.key("shares", 3), read, &[&granted]);
    let granted = codec::encode(&world.schema, &granted).expect("it is small");
    let unasked = name("shares", 3);
    let cases = [
        ("twelve bytes replaced", name("shares", FILE), replaced(&share, &[USER; 12], &[NOBODY; 12]), NOBODY, FILE),
        ("a share's fact copied to another file", name("shares", 2), share.clone(), USER, 2),
        ("the fact of the user's own file copied over another's", name("files", 2), own.clone(), USER, 2),
        ("a fact that nobody asked for", unasked.clone(), granted.clone(), USER, 3),
        (
            "the same, with another secret's code",
            unasked.clone(),
            another.codes.facts.sign(&unasked, &granted),
            USER,
            3,
        ),
        ("the same, with the code of another key", unasked, [&share[..16], &granted].concat(), USER, 3),
    ];
    for (what, name, forged, user, file) in cases {
        let attempt = async || {
            raw::<()>(&world.url, &[b"SET", &name, &forged, b"EX", b"1000"]);
            let before = unauthentic(&second);
            let (answer, _) = second.answer_and_catch_up(&asks(&world, user, file)).await;
            (answer, unauthentic(&second) - before)
        };
        assert_eq!(second.in_time(attempt).await, (NO_GRANT.to_owned(), 1), "{what}");
        // What was read instead replaces it, so that the next case finds nothing of this one.
        until(|| raw::<Vec<u8>>(&world.url, &[b"GET", &name]) != forged).await;
    }
}

/// Both users own a file. Both facts of users say only whether the user is active, and both are authentic.
#[tokio::test]
async fn the_fact_of_an_active_user_copied_over_that_of_an_inactive_one_allows_nothing() {
    const WITH_USERS: &str = r#"
        default_subject = "user"
        [subject.user]
        collection = "users"
        where = { is_active = { "$ne" = false } }
        [resource.file]
        collection = "files"
        [resource.file.relations]
        owner = { field = "owner_id" }
        [resource.file.permissions]
        read = "owner"
    "#;
    let redis = Redis::start(&[]);
    let users = vec![doc! { "_id": id(USER), "is_active": true }, doc! { "_id": id(NOBODY), "is_active": false }];
    let files = vec![doc! { "_id": id(1), "owner_id": id(USER) }, doc! { "_id": id(2), "owner_id": id(NOBODY) }];
    let world = World::of(&redis.url(), WITH_USERS, [("users".to_owned(), users), ("files".to_owned(), files)]).await;
    let (first, second) = (world.join().await, world.join().await);
    let (active, inactive) = (asks(&world, USER, 1), asks(&world, NOBODY, 2));
    let read = first.fills(&active).await.max(first.fills(&inactive).await);
    second.live.until_applied(read).await;
    let names = [USER, NOBODY].map(|user| first.name(&world, "users", user));
    let attempt = async || {
        let honest: Vec<u8> = raw(&world.url, &[b"GET", &names[0]]);
        raw::<()>(&world.url, &[b"SET", &names[1], &honest, b"EX", b"1000"]);
        let before = unauthentic(&second);
        let (allowed, _) = second.answer_anew(&active, Consistency::MinimizeLatency).await;
        let (denied, _) = second.answer_anew(&inactive, Consistency::MinimizeLatency).await;
        (allowed, denied.starts_with("denied"), unauthentic(&second) - before)
    };
    assert_eq!(second.in_time(attempt).await, ("allowed by file#owner".to_owned(), true, 1));
}

/// Each byte of the value, at one place after the other, and each way to shorten it.
#[tokio::test]
async fn a_fact_with_any_changed_byte_is_a_miss() {
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let first = world.join().await;
    let read = first.fills(&world.reads(FILE)).await;
    first.live.until_applied(read).await;
    let name = first.name(&world, "shares", FILE);
    let honest: Vec<u8> = raw(&world.url, &[b"GET", &name]);
    let changed = (0..honest.len()).map(|place| {
        let mut changed = honest.clone();
        changed[place] ^= 1 << (place % 8);
        changed
    });
    for value in changed.chain((0..honest.len()).map(|length| honest[..length].to_vec())) {
        let attempt = async || {
            raw::<()>(&world.url, &[b"SET", &name, &value, b"EX", b"1000"]);
            let before = unauthentic(&first);
            let facts = first.shared.get(&[world.key("shares", FILE)]).await;
            (facts.len(), unauthentic(&first) - before)
        };
        assert_eq!(first.in_time(attempt).await, (0, 1), "{value:?}");
    }
    raw::<()>(&world.url, &[b"SET", &name, &honest]);
    let found = first.in_time(async || first.shared.get(&[world.key("shares", FILE)]).await.len()).await;
    assert_eq!(found, 1, "unchanged, it is found");
    let (answer, _) = first.answer_anew(&world.reads(FILE), Consistency::MinimizeLatency).await;
    assert_eq!(answer, GUEST);
}

/// What a neighbour has stored under 100 keys: values longer than any fact, then values of the greatest length.
#[tokio::test]
async fn the_bytes_that_one_read_takes_are_bounded_whatever_a_neighbour_has_stored() {
    const MIB: u64 = 1 << 20;
    let redis = Redis::start(&[]);
    let world = World::new(&redis.url()).await;
    let instance = world.join().await;
    let keys: Vec<_> = (0..100_u32)
        .map(|number| {
            let [.., high, low] = number.to_be_bytes();
            FactKey { id: Id::ObjectId([high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), ..world.key("shares", 1) }
        })
        .collect();
    let store = |length: usize| {
        let value = vec![b'x'; length];
        for key in &keys {
            raw::<()>(&world.url, &[b"SET", &instance.namespace.names.fact(key), &value]);
        }
    };
    let sent = || redis.info("stats", "total_net_output_bytes").parse::<u64>().expect("a number");
    let read = async || {
        let before = (sent(), unauthentic(&instance));
        let facts = instance.shared.get(&keys).await;
        (facts.len(), unauthentic(&instance) - before.1, sent() - before.0)
    };
    store(codec::BYTES_MAX + 100);
    let (facts, counted, bytes) = instance.in_time(read).await;
    assert_eq!((facts, counted), (0, 100), "each is counted");
    assert!(bytes < MIB, "none is sent: {bytes}");
    store(codec::BYTES_MAX);
    let (facts, counted, bytes) = instance.in_time(read).await;
    assert_eq!((facts, counted), (0, 64), "4 MiB of them are sent, and the others are misses");
    assert!((4 * MIB..5 * MIB).contains(&bytes), "{bytes}");
}
