//! `permcached doctor` on a MongoDB that is set up wrong, in every way that it knows.

use mongodb::{
    Database,
    bson::{Document, doc},
};

use super::{Found, SECRET, doctor};
use crate::{
    mongodb::inspection::{full, make_index},
    support::{
        both::shipped_schema,
        command::Serving,
        redis::redis,
        servers::{Mongo, mongo, secured_mongo, standalone_mongo},
        service::SCHEMA,
    },
};

/// A database with a document in each collection that the schema reads, and every index.
async fn complete_database(server: &Mongo) -> Database {
    let database = server.database().await;
    full(&database, &shipped_schema("fylora-sharing.toml")).await;
    database
}

/// The findings about this database of a server.
fn examined(server: &Mongo, database: &str) -> Found {
    doctor(&[("MONGODB_URI", &server.uri()), ("MONGODB_DATABASE", database)])
}

#[tokio::test]
async fn a_correct_set_up_has_no_problem() {
    let database = complete_database(mongo()).await;
    let (uri, url) = (mongo().uri(), redis().url());
    let tokens = ("AUTH_TOKENS", "backend:s3cret-0123456789");
    let shared = [("REDIS_URL", url.as_str()), ("REDIS_SECRET", crate::support::redis::SECRET)];
    let mongodb = [("MONGODB_URI", uri.as_str()), ("MONGODB_DATABASE", database.name())];
    let found = doctor(&[&mongodb[..], &shared, &[tokens]].concat());
    found.assert_no_problem();
    for words in [
        &format!("127.0.0.1:{} answers in ", mongo().port()),
        ", version ",
        "the server's are less than a second apart",
        "it is the replica set `rs0`",
        &format!("the database is `{}`", database.name()),
        "all 7 collections of the schema are there, and the indexes",
        "the user may read each collection",
        "a change stream can be opened",
        &format!("127.0.0.1:{} answers in ", redis().port()),
        "the user may run each command",
    ] {
        found.finding(words);
    }
}

#[tokio::test]
async fn a_database_whose_name_differs_in_case_is_suggested() {
    let database = complete_database(mongo()).await;
    let found = examined(mongo(), &database.name().to_uppercase());
    let remedy = found.assert_only_problem("there is no database `TEST_").to_owned();
    let meant = remedy.strip_prefix("MONGODB_DATABASE=").unwrap();
    assert_eq!(meant, database.name());
    found.finding("collections and indexes, as there is no database");
    examined(mongo(), meant).assert_no_problem();
    // A name unlike every database.
    let far = examined(mongo(), "an_application_that_nobody_has_written_yet");
    assert!(far.assert_only_problem("there is no database `an_app").starts_with("MONGODB_DATABASE=NAME"));
}

#[tokio::test]
async fn a_missing_database_name_is_a_problem() {
    let found = doctor(&[("MONGODB_URI", &mongo().uri())]);
    assert_eq!(found.assert_only_problem("no database is named"), "MONGODB_DATABASE=NAME");
}

#[tokio::test]
async fn a_missing_collection_is_named_with_a_similar_one() {
    let database = complete_database(mongo()).await;
    database.collection::<Document>("teams").drop().await.unwrap();
    let found = examined(mongo(), database.name());
    found.assert_no_problem();
    assert!(found.remedy("warning", "the collection `teams` is missing").contains("MONGODB_DATABASE"));

    database.create_collection("team").await.unwrap();
    let found = examined(mongo(), database.name());
    let remedy = found.assert_only_problem("the collection `teams` is missing");
    assert_eq!(remedy, "collection = \"team\", in the schema in place of \"teams\"");
}

#[tokio::test]
async fn a_database_with_none_of_the_collections_is_a_problem() {
    let database = mongo().database().await;
    database.create_collection("something_quite_different").await.unwrap();
    let found = examined(mongo(), database.name());
    assert_eq!(found.code, 1, "{found:#?}");
    assert!(found.remedy("wrong", "the collection `files` is missing").contains("check the name of the database"));
}

#[tokio::test]
async fn an_empty_collection_is_named() {
    let database = complete_database(mongo()).await;
    database.collection::<Document>("notes").delete_many(doc! {}).await.unwrap();
    let found = examined(mongo(), database.name());
    found.assert_no_problem();
    assert!(found.remedy("warning", "the collection `notes` is empty").contains("MONGODB_DATABASE"));
}

#[tokio::test]
async fn the_remedy_creates_the_missing_index() {
    let database = complete_database(mongo()).await;
    database.collection::<Document>("temporaryaccesses").drop_indexes().await.unwrap();
    let found = examined(mongo(), database.name());
    found.assert_no_problem();
    let remedy = found.remedy("warning", "`temporaryaccesses` is looked up by `resource_id` and has no index");
    assert_eq!(remedy, "db.getCollection(\"temporaryaccesses\").createIndex({ \"resource_id\": 1 })");
    make_index(&database, remedy, "remedy").await;
    examined(mongo(), database.name()).finding("and the indexes of their lookups");
}

#[tokio::test]
async fn a_view_is_a_problem() {
    let database = complete_database(mongo()).await;
    database.collection::<Document>("notes").drop().await.unwrap();
    database.run_command(doc! { "create": "notes", "viewOn": "files", "pipeline": [] }).await.unwrap();
    let found = examined(mongo(), database.name());
    let remedy = found.assert_only_problem("`notes` is a view, in which changes cannot be followed");
    assert!(remedy.contains("name the collection"), "{remedy}");
}

#[tokio::test]
async fn the_remedy_grants_the_missing_rights() {
    let server = secured_mongo();
    let database = complete_database(server).await;
    let name = database.name();
    let command = doc! { "createUser": "reader", "pwd": SECRET, "roles": [], "mechanisms": ["SCRAM-SHA-256"] };
    database.run_command(command).await.unwrap();
    let uri = server.uri_of("reader", SECRET, name);
    let examined = || doctor(&[("MONGODB_URI", &uri), ("MONGODB_DATABASE", name)]);
    let found = examined();
    let remedy = found.assert_only_problem("the user may not read `files`, read `folders`, ");
    assert!(found.finding("may not read").message.ends_with("open a change stream"), "{found:#?}");
    let role = format!("[{{ role: \"read\", db: \"{name}\" }}]");
    assert_eq!(remedy, format!("db.getSiblingDB(\"{name}\").grantRolesToUser(\"reader\", {role})"));
    database
        .run_command(doc! { "grantRolesToUser": "reader", "roles": [{ "role": "read", "db": name }] })
        .await
        .unwrap();
    let found = examined();
    found.assert_no_problem();
    found.finding("the user may read each collection");
}

#[tokio::test]
async fn the_right_to_read_some_collections_is_not_enough() {
    let server = secured_mongo();
    let database = complete_database(server).await;
    let name = database.name();
    let privilege = doc! { "resource": { "db": name, "collection": "files" }, "actions": ["find"] };
    let role = doc! { "createRole": "files", "privileges": [privilege], "roles": [] };
    database.run_command(role).await.unwrap();
    let user = doc! { "createUser": "some", "pwd": SECRET, "roles": ["files"], "mechanisms": ["SCRAM-SHA-256"] };
    database.run_command(user).await.unwrap();
    let found = doctor(&[("MONGODB_URI", &server.uri_of("some", SECRET, name)), ("MONGODB_DATABASE", name)]);
    found.assert_only_problem("the user may not read `folders`, ");
}

#[tokio::test]
async fn without_a_user_name_the_remedy_creates_a_user() {
    let server = secured_mongo();
    let database = complete_database(server).await;
    let uri = format!("mongodb://127.0.0.1:{}/?replicaSet=rs0", server.port());
    let found = doctor(&[("MONGODB_URI", &uri), ("MONGODB_DATABASE", database.name())]);
    let remedy = found.assert_only_problem("the user may not read `files`, ");
    assert!(
        remedy.contains(".createUser({ user: \"permcached\", pwd: passwordPrompt(), roles: [\"read\"] })"),
        "{remedy}"
    );
}

#[tokio::test]
async fn a_wrong_password_and_an_unreachable_server_have_different_remedies() {
    let server = secured_mongo();
    let database = complete_database(server).await;
    let uri = server.uri_of("root", SECRET, "admin");
    let found = doctor(&[("MONGODB_URI", &uri), ("MONGODB_DATABASE", database.name())]);
    let remedy =
        found.assert_only_problem("refuses the login of `root`: there is no such user in `admin`, or the password");
    assert!(remedy.contains("db.getSiblingDB(\"admin\").changeUserPassword(\"root\", passwordPrompt())"), "{remedy}");

    let found = doctor(&[("MONGODB_URI", "mongodb://root:s3cret@127.0.0.1:1/app")]);
    let remedy = found.assert_only_problem("it does not answer: ");
    assert!(found.finding("it does not answer").message.contains("127.0.0.1:1"), "{found:#?}");
    assert!(remedy.contains("nc -vz 127.0.0.1 1`"), "{remedy}");
}

/// As applications have it: with options of other drivers, of writes, and of reads that permcached makes in its own way.
#[tokio::test]
async fn the_connection_string_of_an_application_is_taken_as_it_is() {
    let database = complete_database(mongo()).await;
    let (uri, name) = (mongo().uri(), database.name());
    let others =
        "useNewUrlParser=true&useUnifiedTopology=true&socketTimeoutMS=45000&uuidRepresentation=standard&timeoutMS=5000";
    let own = "retryWrites=true&w=majority&journal=true&wtimeoutMS=5000&readConcernLevel=local&readPreference=secondaryPreferred&\
               maxStalenessSeconds=120&compressors=zstd,snappy,zlib&zlibCompressionLevel=1&tlsAllowInvalidHostnames=true";
    for options in [others, own, "compressors=snappy", "compressors=zlib,lz4", "COMPRESSORS=ZSTD;retryReads=True"] {
        let uri = format!(" \"{uri}&{options}\"\n");
        let found = doctor(&[("MONGODB_URI", &uri), ("MONGODB_DATABASE", name)]);
        found.assert_no_problem();
        found.finding("MONGODB_URI has quotes around its value");
        found.finding("the user may read each collection");
        found.finding("a change stream can be opened");
    }
    let found = doctor(&[("MONGODB_URI", &format!("{uri}&{others}&{own}")), ("MONGODB_DATABASE", name)]);
    for words in ["`useUnifiedTopology`", "`readConcernLevel`", "`tlsAllowInvalidHostnames`"] {
        assert_eq!(found.finding(words).subject, "configuration", "{found:#?}");
    }
    let found = doctor(&[("MONGODB_URI", "mongodb://u:s3cret@h/db?retryWrite=true&tls=on")]);
    assert_eq!(found.code, 2, "{found:#?}");
    found.finding("MONGODB_URI: `retryWrite` is no option of MongoDB's drivers: did you mean `retryWrites`?");
    found.finding("MONGODB_URI: `tls` is `on`: set it to true or false");
}

#[tokio::test]
async fn a_login_in_another_database_than_the_one_in_the_connection_string_requires_an_auth_source() {
    let server = secured_mongo();
    let database = complete_database(server).await;
    let (name, port) = (database.name(), server.port());
    let uri = format!("mongodb://root:root@127.0.0.1:{port}/{name}?replicaSet=rs0");
    let found = doctor(&[("MONGODB_URI", &uri)]);
    let remedy = found.assert_only_problem("refuses the login of `root`: there is no such user in").to_owned();
    assert!(remedy.contains(&format!("authSource=admin to MONGODB_URI (…/{name}?authSource=admin)")), "{remedy}");
    doctor(&[("MONGODB_URI", &format!("{uri}&authSource=admin"))]).assert_no_problem();
    // The start says it, too.
    let serving = Serving::begin(&["--schema", SCHEMA, "--port", "0"], &[("MONGODB_URI", &uri)]);
    let log = serving.lines_to("MongoDB cannot be used yet: it is tried again").concat();
    assert!(log.contains(&format!("names the database `{name}` and has no authSource")), "{log}");
}

#[tokio::test]
async fn the_remedy_for_a_standalone_server_makes_it_a_replica_set() {
    let database = complete_database(standalone_mongo()).await;
    let found = examined(standalone_mongo(), database.name());
    found.assert_no_problem();
    let remedy = found.remedy("warning", "it is a single server");
    assert!(remedy.contains("--replSet rs0") && remedy.contains("rs.initiate()"), "{remedy}");
}

#[tokio::test]
async fn the_remedy_for_an_uninitiated_replica_set_initiates_it() {
    let server = Mongo::uninitiated();
    for uri in [server.uri(), format!("mongodb://127.0.0.1:{}/?directConnection=true", server.port())] {
        let found = doctor(&[("MONGODB_URI", &uri), ("MONGODB_DATABASE", "app")]);
        let remedy = found.assert_only_problem("waits to become a replica set");
        assert!(remedy.contains("rs.initiate()"), "{uri}: {remedy}");
    }
}
