//! Reflection in both of its versions: tools get the whole protocol from the server, with its comments.
//!
//! Does not test whether the comments are true.

use std::collections::BTreeMap;

use prost::Message as _;
use prost_types::{FileDescriptorProto, MethodDescriptorProto, source_code_info::Location};
use tonic::transport::Channel;

use crate::support::service::Service;

/// A request to the reflection service.
#[derive(Clone, Debug)]
enum Ask {
    Services,
    Symbol(&'static str),
    File(String),
}

/// Its reply: names of services, files, or the code of an error.
#[derive(Debug, PartialEq)]
enum Reply {
    Services(Vec<String>),
    Files(Vec<FileDescriptorProto>),
    Error(i32),
}

macro_rules! reflect {
    ($name:ident, $version:ident) => {
        async fn $name(channel: Channel, ask: Ask) -> Reply {
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let message_request = Some(match ask {
                Ask::Services => MessageRequest::ListServices(String::new()),
                Ask::Symbol(name) => MessageRequest::FileContainingSymbol(name.to_owned()),
                Ask::File(name) => MessageRequest::FileByFilename(name),
            });
            let request = ServerReflectionRequest { host: String::new(), message_request };
            let mut client = ServerReflectionClient::new(channel);
            let requests = tokio_stream::iter([request]);
            let mut responses = client.server_reflection_info(requests).await.unwrap().into_inner();
            let response = match responses.message().await {
                Ok(response) => response.unwrap().message_response.unwrap(),
                Err(status) => return Reply::Error(status.code().into()),
            };
            match response {
                MessageResponse::ListServicesResponse(list) => {
                    Reply::Services(list.service.into_iter().map(|service| service.name).collect())
                }
                MessageResponse::FileDescriptorResponse(files) => {
                    let decode = |bytes: Vec<u8>| FileDescriptorProto::decode(bytes.as_slice()).unwrap();
                    Reply::Files(files.file_descriptor_proto.into_iter().map(decode).collect())
                }
                MessageResponse::ErrorResponse(error) => Reply::Error(error.error_code),
                other => panic!("{other:?}"),
            }
        }
    };
}
reflect!(v1, v1);
reflect!(v1alpha, v1alpha);

async fn reflect(version: &str, channel: Channel, ask: Ask) -> Reply {
    if version == "v1" { v1(channel, ask).await } else { v1alpha(channel, ask).await }
}

#[tokio::test]
async fn reflection_describes_the_whole_protocol_with_its_comments() {
    let service = Service::start().await;
    for version in ["v1", "v1alpha"] {
        let ask = |ask| reflect(version, service.channel(), ask);
        let Reply::Services(services) = ask(Ask::Services).await else { panic!("no services") };
        for name in ["permcached.v1.PermissionService", "grpc.health.v1.Health"] {
            assert!(services.iter().any(|service| service == name), "{version}: {services:?}");
        }
        assert!(services.iter().any(|service| service.starts_with("grpc.reflection.")), "{version}: {services:?}");

        // Fetches the service's file and then every import until none is missing, as tools do.
        let mut files: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
        let mut wanted = vec![Ask::Symbol("permcached.v1.PermissionService")];
        while let Some(one) = wanted.pop() {
            let Reply::Files(found) = ask(one.clone()).await else { panic!("{version}: {one:?}") };
            files.extend(found.into_iter().map(|file| (file.name().to_owned(), file)));
            let named = files.values().flat_map(|file| &file.dependency);
            wanted = named.filter(|name| !files.contains_key(*name)).cloned().map(Ask::File).collect();
        }
        let calls = files.get("permcached/v1/permission_service.proto").unwrap_or_else(|| panic!("{:?}", files.keys()));
        let methods: Vec<_> = calls.service[0].method.iter().map(MethodDescriptorProto::name).collect();
        assert_eq!(
            methods,
            ["Check", "BatchCheck", "ListPermissions", "Explain", "PlanFilter", "ListResources", "ListSubjects"]
        );
        for (file, comment) in [
            ("permcached/v1/permission_service.proto", "may this subject do this to that resource?"),
            ("permcached/v1/core.proto", "Never empty, never `*`."),
        ] {
            let locations = files[file].source_code_info.iter().flat_map(|info| &info.location);
            let mut comments = locations.map(Location::leading_comments);
            assert!(comments.any(|text| text.contains(comment)), "{version}: {file} without comments");
        }
        // Every type that a message or a method names is in one of the files.
        let defined: Vec<String> = files.values().flat_map(types).collect();
        for file in files.values() {
            let calls = file.service.iter().flat_map(|service| &service.method);
            let of_calls = calls.flat_map(|call| [call.input_type().to_owned(), call.output_type().to_owned()]);
            let of_fields = file.message_type.iter().flat_map(|message| &message.field);
            for name in of_calls.chain(of_fields.map(|field| field.type_name().to_owned())) {
                assert!(name.is_empty() || defined.contains(&name), "{version}: {name} is in no file");
            }
        }

        assert!(matches!(ask(Ask::Symbol("permcached.v1.Answer")).await, Reply::Files(_)));
        assert_eq!(ask(Ask::Symbol("permcached.v1.Nothing")).await, Reply::Error(tonic::Code::NotFound.into()));
    }
}

/// The full names of a file's types, including those nested in a message.
fn types(file: &FileDescriptorProto) -> Vec<String> {
    let package = file.package();
    let mut names: Vec<String> = file.enum_type.iter().map(|kind| format!(".{package}.{}", kind.name())).collect();
    for message in &file.message_type {
        let outer = format!(".{package}.{}", message.name());
        names.extend(message.nested_type.iter().map(|inner| format!("{outer}.{}", inner.name())));
        names.extend(message.enum_type.iter().map(|inner| format!("{outer}.{}", inner.name())));
        names.push(outer);
    }
    names
}

#[tokio::test]
async fn reflection_can_be_switched_off() {
    let service = Service::start_as(|serving| serving.reflection = false).await;
    let mut client = tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(service.channel());
    let requests = tokio_stream::iter([tonic_reflection::pb::v1::ServerReflectionRequest::default()]);
    let refused = client.server_reflection_info(requests).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
    super::ask(&service.client(), super::check(super::ALICE, "read", super::ROADMAP)).await.unwrap();
}
