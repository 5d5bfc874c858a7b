//! The protocol files are their own manual: every element has a comment.
//!
//! Does not test whether the comments are true: the tests of the transport do.

use permcached::transport::proto::DESCRIPTORS;
use prost_reflect::{DescriptorPool, EnumDescriptor, FileDescriptor, MessageDescriptor};

/// The names of a file's elements that have no comment before them.
fn bare(file: &FileDescriptor) -> Vec<String> {
    let described = file.file_descriptor_proto();
    let locations = described.source_code_info.as_ref().map(|info| info.location.as_slice()).unwrap_or_default();
    let has_comment = |path: &[i32]| {
        let location = locations.iter().find(|location| location.path == path);
        location.is_some_and(|location| !location.leading_comments().trim().is_empty())
    };
    let mut bare = Vec::new();
    let mut want = |name: &str, path: &[i32]| {
        if !has_comment(path) {
            bare.push(name.to_owned());
        }
    };
    let wants_enum = |kind: &EnumDescriptor, want: &mut dyn FnMut(&str, &[i32])| {
        want(kind.full_name(), kind.path());
        kind.values().for_each(|value| want(value.full_name(), value.path()));
    };
    let mut todo: Vec<MessageDescriptor> = file.messages().collect();
    while let Some(message) = todo.pop() {
        want(message.full_name(), message.path());
        message.fields().for_each(|field| want(field.full_name(), field.path()));
        message.oneofs().for_each(|oneof| want(oneof.full_name(), oneof.path()));
        message.child_enums().for_each(|kind| wants_enum(&kind, &mut want));
        todo.extend(message.child_messages());
    }
    file.enums().for_each(|kind| wants_enum(&kind, &mut want));
    for service in file.services() {
        want(service.full_name(), service.path());
        service.methods().for_each(|method| want(method.full_name(), method.path()));
    }
    bare
}

#[test]
fn every_element_of_the_protocol_is_documented() {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let ours: Vec<FileDescriptor> = pool.files().filter(|file| file.package_name() == "permcached.v1").collect();
    assert!(ours.len() >= 2, "the files of the protocol are not there");
    for file in &ours {
        assert_eq!(bare(file), Vec::<String>::new(), "without a comment, in {}", file.name());
    }
}
