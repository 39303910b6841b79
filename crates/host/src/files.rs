//! Files that travel with an order: written below a directory that only root can enter, and mounted
//! one by one into the container they belong to.
//!
//! They lie on disk in the open, because the engine starts a container again after a reboot before
//! any agent runs, and must find them then. A directory is whole or not there: it is written under
//! another name, made durable, and renamed.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    path::Path,
};

use actions::effect::{ContainerFile, EffectError, EffectErrorKind};
use ids::AppName;

/// A directory that is being written.
const PARTIAL: &str = ".partial";

/// Writes one container's files to `<root>/<app>/<directory>/0`, `1` and so on.
pub(crate) fn write(root: &Path, app: &AppName, directory: &str, files: &[ContainerFile]) -> Result<(), EffectError> {
    checked(directory)?;
    let place = root.join(app.as_str());
    write_all(root, &place, directory, files).map_err(|error| failed("write", &place.join(directory), &error))
}

/// Removes every directory of the app but these, and the app's own when nothing is left in it.
pub(crate) fn sweep(root: &Path, app: &AppName, keep: &BTreeSet<String>) -> Result<(), EffectError> {
    let place = root.join(app.as_str());
    sweep_all(root, &place, keep).map_err(|error| failed("remove", &place, &error))
}

fn checked(directory: &str) -> Result<(), EffectError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !directory.is_empty() && !directory.starts_with('.') && directory.bytes().all(plain) {
        return Ok(());
    }
    let message =
        format!("{directory:?} cannot be the name of a directory of files; this is a defect, please report it");
    Err(EffectError { kind: EffectErrorKind::Refused, message })
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> EffectError {
    EffectError {
        kind: EffectErrorKind::Refused,
        message: format!(
            "Could not {verb} the files in {} ({error}). Check the disk's free space and that the agent runs as root.",
            path.display()
        ),
    }
}

fn write_all(root: &Path, place: &Path, directory: &str, files: &[ContainerFile]) -> io::Result<()> {
    let whole = place.join(directory);
    if whole.try_exists()? {
        // Its name covers its content. Whoever renamed it may not have lived to make that durable.
        File::open(place)?.sync_all()?;
        return File::open(root)?.sync_all();
    }
    for parent in [root, place] {
        match fs::DirBuilder::new().mode(0o700).create(parent) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    let partial = place.join(format!("{directory}{PARTIAL}"));
    remove(&partial)?;
    fs::DirBuilder::new().mode(0o700).create(&partial)?;
    for (index, file) in files.iter().enumerate() {
        let path = partial.join(index.to_string());
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        opened.write_all(&file.content)?;
        // The owner first: changing it clears bits of the mode.
        if (file.uid, file.gid) != rustix_ids() {
            chown(&path, Some(file.uid), Some(file.gid))?;
        }
        opened.set_permissions(fs::Permissions::from_mode(file.mode))?;
        opened.sync_all()?;
    }
    File::open(&partial)?.sync_all()?;
    fs::rename(&partial, &whole)?;
    File::open(place)?.sync_all()?;
    File::open(root)?.sync_all()
}

/// Who this process is, and so who owns what it makes.
fn rustix_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// A directory loses its name before its files go, so that none that stands under its own name lacks any.
fn sweep_all(root: &Path, place: &Path, keep: &BTreeSet<String>) -> io::Result<()> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut left = false;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| keep.contains(name)) {
            left = true;
            continue;
        }
        let mut partial = entry.file_name();
        if !partial.as_encoded_bytes().ends_with(PARTIAL.as_bytes()) {
            partial.push(PARTIAL);
            remove(&place.join(&partial))?;
            fs::rename(entry.path(), place.join(&partial))?;
            File::open(place)?.sync_all()?;
        }
        remove(&place.join(&partial))?;
    }
    if left {
        return File::open(place)?.sync_all();
    }
    fs::remove_dir(place)?;
    File::open(root)?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use zeroize::Zeroizing;

    use super::*;

    fn file(content: &[u8], mode: u32) -> ContainerFile {
        let (uid, gid) = rustix_ids();
        let target = "/etc/x".to_owned();
        ContainerFile { target, content: Zeroizing::new(content.to_vec()), uid, gid, mode }
    }

    fn names(path: &Path) -> Vec<String> {
        let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_is_whole_and_closed_to_others() {
        let base = tempfile::tempdir().expect("a directory");
        let (root, app) = (base.path().join("files"), "shop".parse::<AppName>().expect("a name"));
        let files = [file(b"one", 0o444), file(b"\0\xff", 0o400)];
        // What a crash left of it is no hindrance.
        fs::create_dir_all(root.join("shop/web-1.partial")).expect("a directory");
        for _ in 0..2 {
            write(&root, &app, "web-1", &files).expect("written");
        }
        assert_eq!(names(&root.join("shop")), ["web-1"]);
        let second = root.join("shop/web-1/1");
        assert_eq!(fs::read(&second).expect("read"), b"\0\xff");
        assert_eq!(fs::metadata(&second).expect("there").mode() & 0o7777, 0o400);
        for directory in ["shop", "shop/web-1"] {
            let mode = fs::metadata(root.join(directory)).expect("there").mode();
            assert!(directory == "shop" || mode & 0o077 == 0, "{directory} {mode:o}");
        }
        assert!(write(&root, &app, "../web", &files).is_err());
        assert!(write(&root, &app, ".", &files).is_err());
    }

    #[test]
    fn only_what_is_kept_stays() {
        let base = tempfile::tempdir().expect("a directory");
        let (root, app) = (base.path().join("files"), "shop".parse::<AppName>().expect("a name"));
        for directory in ["web-1", "web-2", "db-1"] {
            write(&root, &app, directory, &[file(b"x", 0o444)]).expect("written");
        }
        fs::create_dir_all(root.join("shop/db-2.partial")).expect("a directory");
        let other: AppName = "blog".parse().expect("a name");
        write(&root, &other, "web-1", &[file(b"y", 0o444)]).expect("written");
        for _ in 0..2 {
            sweep(&root, &app, &BTreeSet::from(["web-2".to_owned()])).expect("swept");
        }
        assert_eq!(names(&root.join("shop")), ["web-2"]);
        sweep(&root, &app, &BTreeSet::new()).expect("swept");
        sweep(&root, &app, &BTreeSet::new()).expect("swept again");
        assert_eq!(names(&root), ["blog"]);
    }

    #[test]
    fn what_is_being_removed_has_lost_its_name() {
        let base = tempfile::tempdir().expect("a directory");
        let (root, app) = (base.path().join("files"), "shop".parse::<AppName>().expect("a name"));
        write(&root, &app, "web-1", &[file(b"x", 0o444)]).expect("written");
        // Removing it as a directory fails, as a disk may fail in the middle of one.
        fs::write(root.join("shop/web-2"), "x").expect("written");
        let keep = BTreeSet::from(["web-1".to_owned()]);
        sweep(&root, &app, &keep).expect_err("no directory");
        assert_eq!(names(&root.join("shop")), ["web-1", "web-2.partial"]);
        write(&root, &app, "web-2", &[file(b"y", 0o444)]).expect_err("nor does a half one stand in for a whole");
        fs::remove_file(root.join("shop/web-2.partial")).expect("removed");
        write(&root, &app, "web-2", &[file(b"y", 0o444)]).expect("written");
        assert_eq!(names(&root.join("shop")), ["web-1", "web-2"]);
    }
}
