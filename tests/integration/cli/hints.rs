//! The commands that `make run` prints. Those of permcached are run. The requests of grpcurl and ghz are sent by this test.
//!
//! Runs neither grpcurl nor ghz, which are not installed everywhere.

use std::fs;

use permcached::transport::proto::{CheckRequest, DESCRIPTORS};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};

use crate::support::{
    command::{Serving, run},
    service::{DOCUMENTS, SCHEMA},
};

/// The lines of the hints that start with a program, with the server's address inserted.
fn lines(program: &str, address: &str) -> Vec<String> {
    let hints = fs::read_to_string("examples/fylora/hints.txt").unwrap().replace("{address}", address);
    hints.lines().map(str::trim).filter(|line| line.starts_with(program)).map(str::to_owned).collect()
}

#[test]
fn every_command_that_make_run_prints_works() {
    let serving = Serving::start(&["--documents", DOCUMENTS, "--schema", SCHEMA]);
    let address = serving.url().trim_start_matches("http://").to_owned();
    let ours = lines("target/quick/permcached", &address);
    let codes: Vec<i32> = ours
        .iter()
        .map(|line| run(&line.split_whitespace().skip(1).collect::<Vec<_>>()))
        .map(|ended| ended.code)
        .collect();
    assert_eq!(codes, [0, 1, 0, 0], "one is allowed, the other denied, and the lists are not empty: {ours:#?}");
}

#[tokio::test]
async fn the_requests_of_other_tools_are_well_formed_and_allowed() {
    let service = crate::support::service::Service::start().await;
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let descriptor = pool.get_message_by_name("permcached.v1.CheckRequest").unwrap();
    let others = [lines("grpcurl", "there"), lines("ghz", "there")].concat();
    assert_eq!(others.len(), 2, "{others:#?}");
    for line in others {
        assert!(
            line.contains("permcached.v1.PermissionService") && line.ends_with("there") || line.contains(" there "),
            "{line}"
        );
        let json = line.split('\'').nth(1).unwrap_or_else(|| panic!("no JSON in quotes: {line}"));
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let message = DynamicMessage::deserialize(descriptor.clone(), &mut deserializer).unwrap();
        let request = CheckRequest::decode(message.encode_to_vec().as_slice()).unwrap();
        let answer = service.client().check(request).await.unwrap().into_inner().answer.unwrap();
        assert!(answer.allowed, "{line}");
    }
}
