//! Reading and writing the files that travel.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use envelope::root::{FILE_BYTES_MAX, FileError, RootError, RootFile, TrustedRoot};

use crate::{
    exit::{Failure, Kind},
    files,
};

/// An error with what caused it, on one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(&format!(": {words}"));
        }
        cause = inner.source();
    }
    text
}

pub(super) fn broken(error: &RootError) -> Failure {
    Failure::invalid(with_sources(error))
}

pub(super) fn unusable(path: &Path, error: &FileError) -> Failure {
    Failure::invalid(format!("{} cannot be used: {}", path.display(), with_sources(error)))
}

/// Reads a file with root metadata; the chain in it verifies in itself.
pub(super) fn read(path: &Path) -> Result<RootFile, Failure> {
    RootFile::read(&files::read(path, FILE_BYTES_MAX)?).map_err(|error| unusable(path, &error))
}

/// The newest version in a file, which must have all its signatures.
pub(super) fn newest(path: &Path) -> Result<TrustedRoot, Failure> {
    read(path)?.completed().map_err(|error| {
        Failure::invalid(format!(
            "{} does not end with a version to begin with: {}",
            path.display(),
            with_sources(&error)
        ))
        .hint("have it signed first, or give a file of `serverflow root export`")
    })
}

fn text(path: &Path, file: &RootFile) -> Result<String, Failure> {
    file.write().map_err(|error| unusable(path, &error))
}

/// Writes a new file, durably.
pub(super) fn write_new(path: &Path, file: &RootFile) -> Result<(), Failure> {
    write_text(path, &text(path, file)?)
}

/// Writes a text to a new file, durably.
pub(super) fn write_text(path: &Path, text: &str) -> Result<(), Failure> {
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        sync_folder(path)
    };
    written().map_err(|error| Failure::file("write", path, &error))
}

/// Puts a file in the place of the one that was read: whoever looks sees the one or the other, whole.
pub(super) fn replace(path: &Path, file: &RootFile) -> Result<(), Failure> {
    let text = text(path, file)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let written = || -> io::Result<()> {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path)?.permissions()) & 0o777;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_folder(path)
    };
    written().map_err(|error| {
        // Best effort: what is left says nothing that the file itself does not.
        let _ = fs::remove_file(&new);
        let words = crate::exit::io_words(&error);
        Failure::new(Kind::NotWell, format!("{} was not signed: it cannot be replaced: {words}", path.display()))
    })
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
