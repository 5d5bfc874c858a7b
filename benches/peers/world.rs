//! The data that all services have: users, files in folders within folders, and shares; and the questions.

use fastrand::Rng;

pub(crate) const USERS: usize = 1_000;
const FOLDERS: usize = 2_000;
const FILES: usize = 10_000;
const FILE_SHARES: usize = 5_000;
const FOLDER_SHARES: usize = 1_000;
const QUESTIONS: usize = 2_000;

/// How deep folders are within each other at most.
const DEPTH_MAX: usize = 8;

/// A file. The numbers are places of users and folders.
pub(crate) struct File {
    pub(crate) owner: usize,
    pub(crate) folder: usize,
    pub(crate) is_deleted: bool,
}

/// All data.
pub(crate) struct World {
    /// The parent of each folder, if it has one.
    pub(crate) folders: Vec<Option<usize>>,
    pub(crate) files: Vec<File>,
    /// Files and users.
    pub(crate) file_shares: Vec<(usize, usize)>,
    /// Folders and users.
    pub(crate) folder_shares: Vec<(usize, usize)>,
}

/// May this user read this file?
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) user: usize,
    pub(crate) file: usize,
}

/// A relation of the peers' data: `file:1#owner@user:2`.
pub(crate) struct Tuple {
    /// The type and the id.
    pub(crate) object: (&'static str, String),
    pub(crate) relation: &'static str,
    pub(crate) subject: (&'static str, String),
}

/// Different pairs.
fn pairs(random: &mut Rng, count: usize, objects: usize) -> Vec<(usize, usize)> {
    let mut pairs: Vec<_> = (0..count).map(|_| (random.usize(..objects), random.usize(..USERS))).collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

impl World {
    /// The same data each time.
    pub(crate) fn new() -> Self {
        let mut random = Rng::with_seed(1);
        let (mut folders, mut depths) = (Vec::<Option<usize>>::new(), Vec::<usize>::new());
        for number in 0..FOLDERS {
            // Every tenth folder has no parent.
            let parent =
                (number % 10 != 0).then(|| random.usize(..number)).filter(|parent| depths[*parent] < DEPTH_MAX);
            depths.push(parent.map_or(1, |parent| depths[parent] + 1));
            folders.push(parent);
        }
        let file = |_| File {
            owner: random.usize(..USERS),
            folder: random.usize(..FOLDERS),
            is_deleted: random.usize(..20) == 0,
        };
        let files = (0..FILES).map(file).collect();
        let file_shares = pairs(&mut random, FILE_SHARES, FILES);
        let folder_shares = pairs(&mut random, FOLDER_SHARES, FOLDERS);
        Self { folders, files, file_shares, folder_shares }
    }

    /// The questions: a quarter each by owners, by guests of files, by guests of folders, and by anybody.
    pub(crate) fn questions(&self) -> Vec<Question> {
        let mut random = Rng::with_seed(2);
        let question = |number| {
            let file = random.usize(..FILES);
            match number % 4 {
                0 => Question { user: self.files[file].owner, file },
                1 => {
                    let (file, user) = self.file_shares[random.usize(..self.file_shares.len())];
                    Question { user, file }
                }
                2 => {
                    let above = self.above(self.files[file].folder);
                    let guest = self.folder_shares.iter().find(|(folder, _)| above.contains(folder));
                    Question { user: guest.map_or_else(|| random.usize(..USERS), |(_, user)| *user), file }
                }
                _ => Question { user: random.usize(..USERS), file },
            }
        };
        (0..QUESTIONS).map(question).collect()
    }

    /// A folder and those that it is in.
    fn above(&self, folder: usize) -> Vec<usize> {
        std::iter::successors(Some(folder), |folder| self.folders[*folder]).collect()
    }

    /// The data as relations, for the peers.
    pub(crate) fn tuples(&self) -> Vec<Tuple> {
        let tuple = |object: (&'static str, usize), relation, subject: (&'static str, usize)| Tuple {
            object: (object.0, object.1.to_string()),
            relation,
            subject: (subject.0, subject.1.to_string()),
        };
        let mut tuples = Vec::new();
        for (number, parent) in self.folders.iter().enumerate() {
            tuples.extend(parent.map(|parent| tuple(("folder", number), "parent", ("folder", parent))));
        }
        for (number, file) in self.files.iter().enumerate() {
            tuples.push(tuple(("file", number), "owner", ("user", file.owner)));
            tuples.push(tuple(("file", number), "folder", ("folder", file.folder)));
            if file.is_deleted {
                // For everybody.
                let subject = ("user", "*".to_owned());
                tuples.push(Tuple { object: ("file", number.to_string()), relation: "deleted", subject });
            }
        }
        tuples.extend(self.file_shares.iter().map(|(file, user)| tuple(("file", *file), "guest", ("user", *user))));
        tuples.extend(
            self.folder_shares.iter().map(|(folder, user)| tuple(("folder", *folder), "guest", ("user", *user))),
        );
        tuples
    }
}
