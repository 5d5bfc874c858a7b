//! The kinds of registers: which document a register is, how its states are written, and which question depends on it
//! alone.
//!
//! Does not decide what is written or asked.

use std::collections::BTreeMap;

use bson::{Bson, DateTime, Document, doc};

use super::register::State;

/// At how many places a register may grant.
pub const PLACES: u8 = 4;

/// How many shares of other users the first file has: so many that a few more exceed the limit of a fact. So it grows past it and
/// shrinks below it while registers move.
const OTHER_SHARES: usize = 998;

/// How many other documents belong to a register, to be changed in one transaction with its own, and so at one moment. The
/// first register of each kind has so many that a stream delivers them in two batches, with the register's own document in
/// the second.
fn crowd(number: usize) -> usize {
    if number == 0 { 1_200 } else { 200 }
}

pub const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "string"

# Found by another field than `_id`, so one key finds several.
[resource.file]
id = "string"

[resource.file.relations]
guest = { collection = "shares", by = "file_id", field = "user_id", where = { active = true }, until = "until" }

[resource.file.permissions]
read = "guest"

[resource.note]
id = "string"
collection = "notes"

[resource.note.relations]
owner = { field = "owner_id", where = { active = true }, until = "until" }

[resource.note.permissions]
read = "owner"

[resource.team]
id = "string"
collection = "teams"

[resource.team.relations]
member = { each = "members", field = "user_id", where = { active = true }, until = "until" }

[resource.team.permissions]
read = "member"

[resource.folder]
id = "string"
collection = "folders"

[resource.folder.relations]
owner = { field = "owner_id" }
parent = { field = "parent_id", resource = "folder", where = { active = true }, until = "until" }

[resource.folder.permissions]
read = "owner | parent.read"
"#;

/// What kind of document a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A user's only share. Its place is a file; the first one has about as many shares of other users as a fact may contain.
    Share,
    /// A note. Its place is its owner.
    Note,
    /// A team of two, one of whom never changes. Its place is the other member.
    Team,
    /// A folder. Its place is its parent, and each possible parent has a different owner.
    Folder,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Share, Self::Note, Self::Team, Self::Folder];

    /// The collection of its documents.
    pub fn collection(self) -> &'static str {
        match self {
            Self::Share => "shares",
            Self::Note => "notes",
            Self::Team => "teams",
            Self::Folder => "folders",
        }
    }

    /// The question whether a register grants at a place, as its subject and its resource.
    pub fn question(self, number: usize, place: u8) -> [String; 2] {
        match self {
            Self::Share => [format!("user:sharer{number}"), format!("file:{place}")],
            Self::Note => [format!("user:{place}"), format!("note:{number}")],
            Self::Team => [format!("user:{place}"), format!("team:{number}")],
            Self::Folder => [format!("user:{place}"), format!("folder:{number}")],
        }
    }

    /// The command that sets a register's document to a state, whatever its state is now. It can be repeated.
    pub fn command(self, number: usize, state: State, as_replacement: bool) -> Document {
        let id = doc! { "_id": number.to_string() };
        let Some(place) = state.place else {
            return doc! { "delete": self.collection(), "deletes": [{ "q": id, "limit": 1 }] };
        };
        let fields = self.fields(number, place, state);
        let update = if as_replacement {
            fields
        } else {
            doc! { "$set": fields }
        };
        doc! { "update": self.collection(), "updates": [{ "q": id, "u": update, "upsert": true }] }
    }

    /// The command that changes all documents of a register's crowd.
    pub fn crowd_command(self, number: usize) -> Document {
        let all = doc! { "q": { "crowd": number.to_string() }, "u": { "$inc": { "active": 1 } }, "multi": true };
        doc! { "update": self.collection(), "updates": [all] }
    }

    fn fields(self, number: usize, place: u8, state: State) -> Document {
        let until = DateTime::from_millis(state.until);
        let user = Bson::String(place.to_string());
        match self {
            Self::Share => doc! {
                "file_id": user, "user_id": format!("sharer{number}"), "active": state.is_active, "until": until,
            },
            Self::Note => doc! { "owner_id": user, "active": state.is_active, "until": until },
            Self::Team => doc! { "members": [
                { "user_id": "always", "active": true },
                { "user_id": user, "active": state.is_active, "until": until },
            ] },
            Self::Folder => doc! {
                "parent_id": format!("root{place}"), "active": state.is_active, "until": until,
            },
        }
    }
}

/// The documents that exist from the start: the parents of folders, which never change, and the crowd of each register.
/// There are `registers` of each kind.
pub fn first_documents(registers: usize) -> BTreeMap<String, Vec<Document>> {
    let of_crowds = |kind: Kind| {
        let numbers = (0..registers).flat_map(|crowd| (0..self::crowd(crowd)).map(move |number| (crowd, number)));
        let document = |(crowd, number): (usize, usize)| doc! { "_id": format!("crowd{crowd}-{number}"), "crowd": crowd.to_string() };
        (kind.collection().to_owned(), numbers.map(document).collect::<Vec<_>>())
    };
    let mut documents: BTreeMap<_, _> = Kind::ALL.map(of_crowds).into();
    let others = 0..OTHER_SHARES;
    let other = |number: usize| {
        let (id, user) = (format!("other{number}"), format!("other{number}"));
        doc! { "_id": id, "file_id": "0", "user_id": user, "active": true }
    };
    documents.entry(Kind::Share.collection().to_owned()).or_default().extend(others.map(other));
    let roots = (0..PLACES).map(|place| doc! { "_id": format!("root{place}"), "owner_id": place.to_string() });
    documents.entry(Kind::Folder.collection().to_owned()).or_default().extend(roots);
    documents
}
