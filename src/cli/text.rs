//! How the command line writes: to people, with colour on a terminal; to programs, as JSON.

use std::io::{IsTerminal, Write};

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use prost_types::Timestamp;

use super::Failure;
use crate::{telemetry::start_recording, transport::proto::DESCRIPTORS};

/// Whether standard output is read by a person.
pub(super) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// A line on standard output. Where that is closed, as behind `| head`, there is nobody left to tell.
pub(super) fn line(text: std::fmt::Arguments<'_>) {
    let _closed = writeln!(std::io::stdout(), "{text}");
}

/// Text that ends its own lines. See [`line`].
pub(super) fn all(text: &str) {
    let _closed = write!(std::io::stdout(), "{text}");
}

/// Shows the warnings of what runs in this process: what is odd about documents, above all.
pub(super) fn start_warnings() -> Result<(), Failure> {
    start_recording("warn", None).map(drop).map_err(Failure::no_answer)
}

/// Says something that does not stop the command.
pub(super) fn warn(message: &str) {
    eprintln!("warning: {message}");
}

/// The text in green, red or yellow, on a terminal.
pub(super) fn green(text: &str) -> String {
    colored(text, 32)
}

/// See [`green`].
pub(super) fn red(text: &str) -> String {
    colored(text, 31)
}

/// See [`green`].
pub(super) fn yellow(text: &str) -> String {
    colored(text, 33)
}

/// See [`green`].
pub(super) fn faint(text: &str) -> String {
    colored(text, 2)
}

fn colored(text: &str, code: u8) -> String {
    if is_terminal() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// A message in the canonical JSON of protocol buffers, as any gRPC tool prints it; defaults included.
pub(super) fn json(name: &str, message: &impl Message) -> Result<String, Failure> {
    let pool = DescriptorPool::decode(DESCRIPTORS).map_err(Failure::no_answer_because)?;
    let descriptor = pool.get_message_by_name(&format!("permcached.v1.{name}"));
    let descriptor = descriptor.ok_or_else(|| Failure::no_answer(format!("no message `{name}`")))?;
    let message =
        DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).map_err(Failure::no_answer_because)?;
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::pretty(&mut text);
    let options = SerializeOptions::new().skip_default_fields(false);
    message.serialize_with_options(&mut serializer, &options).map_err(Failure::no_answer_because)?;
    String::from_utf8(text).map_err(Failure::no_answer_because)
}

/// A time as people and databases write it.
pub(super) fn time(timestamp: &Timestamp) -> String {
    timestamp.to_string()
}
