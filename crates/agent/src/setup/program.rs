//! The agent's program at its place. A new one replaces the old in one step, and the old one is kept
//! until somebody says that the new one works.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use ids::Sha256;
use sha2::Digest as _;

use super::FileError;

/// Where it lies, unless a package brought it.
pub(super) const PROGRAM: &str = "/usr/local/bin/serverflow-agent";

/// The program's place.
pub(super) struct Program {
    path: PathBuf,
}

/// What putting a program in its place changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// There was none.
    New,
    /// This very program lies there.
    Same,
    /// Another one lay there and is kept.
    Replaced,
}

impl Program {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Names beside the program that no shell finds as a command.
    fn beside(&self, ending: &str) -> PathBuf {
        self.path.with_file_name(format!(".serverflow-agent.{ending}"))
    }

    /// The one before, while the present one has not shown that it works.
    fn kept(&self) -> PathBuf {
        self.beside("old")
    }

    /// Whether the one before is kept.
    pub(super) fn is_on_trial(&self) -> bool {
        self.kept().exists()
    }

    /// The journal's schema that the one before left: it can read no newer one.
    fn schema(&self) -> PathBuf {
        self.beside("schema")
    }

    /// Whether the one before could work with a journal of that schema.
    pub(super) fn kept_reads(&self, schema: Option<i64>) -> bool {
        fs::read_to_string(self.schema()).is_ok_and(|noted| noted == note(schema))
    }

    /// Puts a program in its place. There is a whole program at every moment. `schema` is that of the
    /// journal before the new one has seen it.
    pub(super) fn put(&self, source: &Path, schema: Option<i64>) -> Result<Put, FileError> {
        let wanted = hash(source)?;
        let there = if self.path.exists() { Some(hash(&self.path)?) } else { None };
        if there == Some(wanted) {
            return Ok(Put::Same);
        }
        let new = self.beside("new");
        copy(source, &new)?;
        if hash(&new)? != wanted {
            return Err(FileError::of("copy the agent to", &new)(io::ErrorKind::InvalidData.into()));
        }
        // One that is kept already is the last that worked; what replaced it never showed that it does.
        if there.is_some() && !self.is_on_trial() {
            let kept = self.kept();
            fs::write(self.schema(), note(schema)).map_err(FileError::of("write", &self.schema()))?;
            // Not every file system has links.
            fs::hard_link(&self.path, &kept)
                .or_else(|_| fs::copy(&self.path, &kept).map(drop))
                .map_err(FileError::of("keep the old program as", &kept))?;
        }
        fs::rename(&new, &self.path).map_err(FileError::of("replace", &self.path))?;
        self.sync()?;
        Ok(if there.is_some() { Put::Replaced } else { Put::New })
    }

    /// The present one works: the one before goes.
    pub(super) fn settle(&self) -> Result<(), FileError> {
        remove(&self.kept())?;
        remove(&self.schema())
    }

    /// Puts the one before back.
    pub(super) fn put_back(&self) -> Result<(), FileError> {
        let kept = self.kept();
        fs::rename(&kept, &self.path).map_err(FileError::of("put back", &kept))?;
        remove(&self.schema())?;
        self.sync()
    }

    /// Removes everything of it.
    pub(super) fn remove(&self) -> Result<(), FileError> {
        remove(&self.path)?;
        remove(&self.kept())?;
        remove(&self.schema())?;
        remove(&self.beside("new"))
    }

    fn sync(&self) -> Result<(), FileError> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        File::open(directory).and_then(|it| it.sync_all()).map_err(FileError::of("write", directory))
    }
}

/// A schema as it is noted beside the program; also that there was no journal.
fn note(schema: Option<i64>) -> String {
    schema.map_or_else(|| "none".to_owned(), |schema| schema.to_string())
}

/// Removes a file; absent is fine.
pub(super) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::of("remove", path)(error)),
        _ => Ok(()),
    }
}

fn copy(source: &Path, to: &Path) -> Result<(), FileError> {
    remove(to)?;
    let mut from = File::open(source).map_err(FileError::of("read", source))?;
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let mut file = opened.map_err(FileError::of("create", to))?;
    io::copy(&mut from, &mut file).map_err(FileError::of("write", to))?;
    // Only now, and whatever the umask is: everybody may run it.
    file.set_permissions(Permissions::from_mode(0o755)).map_err(FileError::of("write", to))?;
    file.flush().and_then(|()| file.sync_all()).map_err(FileError::of("write", to))
}

fn hash(path: &Path) -> Result<Sha256, FileError> {
    let mut file = File::open(path).map_err(FileError::of("read", path))?;
    let mut hasher = sha2::Sha256::new();
    let mut piece = vec![0; 256 * 1024];
    loop {
        match file.read(&mut piece).map_err(FileError::of("read", path))? {
            0 => return Ok(Sha256(hasher.finalize().into())),
            count => hasher.update(&piece[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        directory: tempfile::TempDir,
        program: Program,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let program = Program::new(directory.path().join("bin"));
            Self { directory, program }
        }

        fn put(&self, text: &str) -> Put {
            let source = self.directory.path().join("source");
            fs::write(&source, text).expect("written");
            self.program.put(&source, Some(1)).expect("put in its place")
        }

        fn there(&self) -> String {
            fs::read_to_string(self.program.path()).expect("a program")
        }
    }

    #[test]
    fn a_new_program_is_on_trial_until_it_is_settled() {
        let world = World::new();
        assert_eq!(world.put("one"), Put::New);
        assert!(!world.program.is_on_trial(), "there is nothing to go back to");
        assert_eq!(fs::metadata(world.program.path()).expect("there").permissions().mode() & 0o777, 0o755);
        assert_eq!(world.put("one"), Put::Same);
        assert_eq!((world.put("two"), world.there().as_str()), (Put::Replaced, "two"));
        assert!(world.program.is_on_trial());
        world.program.settle().expect("settled");
        assert!(!world.program.is_on_trial());
    }

    #[test]
    fn what_is_put_back_is_the_last_that_worked() {
        let world = World::new();
        world.put("works");
        world.put("broken");
        assert_eq!(world.put("broken too"), Put::Replaced, "an upgrade that was cut, and another one");
        world.program.put_back().expect("put back");
        assert_eq!(world.there(), "works");
        assert!(!world.program.is_on_trial());
    }

    #[test]
    fn the_one_before_reads_the_journal_as_it_left_it() {
        let world = World::new();
        world.put("one");
        assert!(!world.program.kept_reads(Some(1)), "none is kept");
        world.put("two");
        assert!(world.program.kept_reads(Some(1)));
        assert!(!world.program.kept_reads(Some(2)) && !world.program.kept_reads(None));
        // A third begins with what the second made of the journal; the first stays the one that is kept.
        let source = world.directory.path().join("source");
        fs::write(&source, "three").expect("written");
        world.program.put(&source, Some(2)).expect("put in its place");
        assert!(world.program.kept_reads(Some(1)) && !world.program.kept_reads(Some(2)));
    }

    #[test]
    fn nothing_is_left_of_it() {
        let world = World::new();
        world.put("one");
        world.put("two");
        fs::write(world.program.beside("new"), "cut").expect("written");
        world.program.remove().expect("removed");
        world.program.remove().expect("absent is fine");
        fs::remove_file(world.directory.path().join("source")).expect("removed");
        assert_eq!(fs::read_dir(world.directory.path()).expect("readable").count(), 0);
    }
}
