//! By what a changed file is told, without reading it.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// Device, inode, length, and change time in seconds and nanoseconds; `None` when there is no file.
pub(crate) type Stamp = Option<FileStamp>;

/// The stamp of a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp(u64, u64, u64, i64, i64);

/// The stamp of what lies at a path.
pub(crate) fn stamp(path: &Path) -> Stamp {
    fs::metadata(path).ok().as_ref().map(stamp_of)
}

/// The stamp of an open file.
pub(crate) fn stamp_of(seen: &Metadata) -> FileStamp {
    FileStamp(seen.dev(), seen.ino(), seen.len(), seen.ctime(), seen.ctime_nsec())
}
