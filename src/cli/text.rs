//! How the command line writes: text for people, with colours, and JSON for programs.
//!
//! The code that makes a text does not ask where it goes: the streams here remove colours for a pipe, `NO_COLOR` and
//! `TERM=dumb`, and keep them for a terminal and `CLICOLOR_FORCE`.

use std::{
    fmt,
    io::{IsTerminal as _, Write},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use clap::builder::styling::{AnsiColor, Style};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use prost_types::Timestamp;

use super::Failure;
use crate::{diagnosis::Diagnosis, telemetry, transport::proto::DESCRIPTORS};

/// Writes a line to standard output. A closed stream, as behind `| head`, is no error: nobody is left to read. Returns whether
/// somebody may be.
pub(super) fn print_line(text: fmt::Arguments<'_>) -> bool {
    writeln!(anstream::stdout(), "{text}").is_ok()
}

/// How long a service waits for the reader of its standard output or standard error.
const READER_TIME: Duration = Duration::from_secs(1);

/// Prints something from a service, which must not wait for ever for a reader that stalls.
pub(super) fn print_in_time(print: impl FnOnce() + Send + 'static) {
    let (done, printed) = channel();
    // If it is not done in time, the thread ends with the process.
    thread::spawn(move || {
        print();
        let _nobody_waits = done.send(());
    });
    let _done_or_given_up = printed.recv_timeout(READER_TIME);
}

/// Writes text that has its own line ends. See [`print_line`].
pub(super) fn print(text: &str) {
    let _closed = write!(anstream::stdout(), "{text}");
}

/// Writes a line to standard error. See [`print_line`].
pub(super) fn print_error_line(text: &str) {
    let _closed = writeln!(anstream::stderr(), "{text}");
}

/// The step that a long command is at: the last line of standard error, if that is a terminal. It goes when this is dropped.
pub(super) struct Progress {
    is_shown: bool,
}

impl Progress {
    pub(super) fn start(what: &str) -> Self {
        let progress = Self { is_shown: std::io::stderr().is_terminal() };
        progress.show(what);
        progress
    }

    /// Replaces the line.
    pub(super) fn show(&self, what: &str) {
        if self.is_shown {
            let _closed = write!(anstream::stderr(), "\r{what:PROGRESS_WIDTH$}");
        }
    }

    /// Removes the line, so that others can be printed.
    pub(super) fn clear(&self) {
        if self.is_shown {
            let _closed = write!(anstream::stderr(), "\r{:PROGRESS_WIDTH$}\r", "");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The width of the line of [`Progress`].
const PROGRESS_WIDTH: usize = 60;

/// Logs the warnings of the services that run in this process, above all those about documents.
pub(super) fn start_warnings() -> Result<(), Failure> {
    telemetry::start_warnings().map_err(Failure::no_answer)
}

/// Prints a warning: a problem that does not stop the command.
pub(super) fn warn(message: &str) {
    print_error_line(&format!("warning: {message}"));
}

/// Prints a note about the configuration: a warning with its remedy, or what only needs to be known.
pub(super) fn note(Diagnosis { message, remedy, .. }: &Diagnosis) {
    match remedy {
        Some(remedy) => warn(&format!("{message}: {remedy}")),
        None => print_error_line(&format!("note: {message}")),
    }
}

/// A text as one word of a shell's command line. A shell that does not know `$'…'`, as dash, takes it for another word, and runs none of it.
pub(super) fn shell_quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:@%+=,".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else if text.chars().any(is_invisible) {
        let octal =
            |letter: char| letter.to_string().bytes().fold(String::new(), |all, byte| format!("{all}\\{byte:03o}"));
        format!("$'{}'", written(text, |letter| is_invisible(letter) || "'\\".contains(letter), octal))
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// A text of a document, safe to be printed: no part of it ends the line, or tells a terminal what to do.
pub(super) fn visible(text: &str) -> String {
    written(text, is_invisible, |letter| letter.escape_unicode().to_string())
}

/// JSON or JavaScript that is safe to be printed, with the same meaning. Its own line ends stay.
pub(super) fn visible_json(json: &str) -> String {
    let utf16 = |letter: char| {
        letter.encode_utf16(&mut [0; 2]).iter().fold(String::new(), |all, unit| format!("{all}\\u{unit:04x}"))
    };
    written(json, |letter| !letter.is_ascii_whitespace() && is_invisible(letter), utf16)
}

/// The text, with some of its characters written in another way.
fn written(text: &str, is_special: impl Fn(char) -> bool, write: impl Fn(char) -> String) -> String {
    text.chars().map(|letter| if is_special(letter) { write(letter) } else { String::from(letter) }).collect()
}

/// Whether a character controls a terminal, ends a line, changes the direction of the text, or cannot be seen.
fn is_invisible(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text in green.
pub(super) fn green(text: &str) -> String {
    styled(text, AnsiColor::Green.on_default())
}

/// The text in red.
pub(super) fn red(text: &str) -> String {
    styled(text, AnsiColor::Red.on_default())
}

/// The text in yellow.
pub(super) fn yellow(text: &str) -> String {
    styled(text, AnsiColor::Yellow.on_default())
}

/// The text, faint.
pub(super) fn faint(text: &str) -> String {
    styled(text, Style::new().dimmed())
}

fn styled(text: &str, style: Style) -> String {
    format!("{style}{text}{style:#}")
}

/// A message in the canonical JSON of protocol buffers, as any gRPC tool prints it, with fields that have their default.
pub(super) fn json(name: &str, message: &impl Message) -> Result<String, Failure> {
    let pool = DescriptorPool::decode(DESCRIPTORS).map_err(Failure::no_answer_because)?;
    let descriptor = pool.get_message_by_name(&format!("permcached.v1.{name}"));
    let descriptor = descriptor.ok_or_else(|| Failure::no_answer(format!("no message `{name}`")))?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice());
    let message = message.map_err(Failure::no_answer_because)?;
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::pretty(&mut text);
    let options = SerializeOptions::new().skip_default_fields(false);
    message.serialize_with_options(&mut serializer, &options).map_err(Failure::no_answer_because)?;
    let text = String::from_utf8(text).map_err(Failure::no_answer_because)?;
    Ok(visible_json(&text))
}

/// A time in RFC 3339, such as `2026-01-31T12:00:00Z`.
pub(super) fn time(timestamp: &Timestamp) -> String {
    timestamp.to_string()
}
