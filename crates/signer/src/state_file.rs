//! The durable records: the highest sequence ever signed for each host, and the highest revision of its standing orders.
//!
//! A header, then frames, each the records of one batch with a checksum. A frame is on disk before
//! anything of its batch is signed, so the last frame may be torn by a crash and then counts for
//! nothing: it was never acted upon. Damage anywhere else means that sequences could be signed
//! twice, and the file is refused. Numbers are big-endian; a checksum is the first eight bytes of a
//! SHA-256. When the file has grown far beyond what it says, it is written anew beside itself and
//! renamed.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use ids::{FleetId, HostId, Sequence, sha256};

use crate::limits;

/// Which of the records a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Sequences,
    /// Of standing orders.
    Revisions,
}

impl Record {
    const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Sequences => b"SFSEQ1\r\n",
            Self::Revisions => b"SFREV1\r\n",
        }
    }
}

const MARKER: &[u8; 4] = b"SFfr";
const CHECKSUM_BYTES: usize = 8;
const HEADER_BYTES: usize = 8 + 16 + CHECKSUM_BYTES;
const FRAME_HEAD_BYTES: usize = 8;
const RECORD_BYTES: usize = 24;

/// Why the record of signed sequences cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It was never made, or is gone.
    #[error(
        "the signer's record of sequences is not at {path}; bring it back from the newest backup. Only a new fleet starts without one (`serverflow-control-plane init`)"
    )]
    Missing { path: PathBuf },
    /// A new one was to be made where one is.
    #[error("there is a signer's record of sequences at {path} already; it is not overwritten")]
    Exists { path: PathBuf },
    /// Another signer has it open.
    #[error("{path} is in use by another control plane; stop that one first")]
    InUse { path: PathBuf },
    /// It belongs to another fleet.
    #[error("{path} belongs to fleet {found}, not to {expected}; give the file of this fleet")]
    OtherFleet { path: PathBuf, found: FleetId, expected: FleetId },
    /// It was damaged or changed.
    #[error(
        "{path} is damaged at byte {at} ({what}), so the signer cannot know which sequences it gave; bring it back from the newest backup"
    )]
    Damaged { path: PathBuf, at: u64, what: &'static str },
    /// The system refused.
    #[error("{doing} {path} failed; see to the disk, and to the owner and mode of the directory")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// The open file and what it says.
#[derive(Debug)]
pub(crate) struct StateFile {
    record: Record,
    path: PathBuf,
    fleet: FleetId,
    file: File,
    /// End of the last good frame.
    length: u64,
    high: HashMap<HostId, Sequence>,
    /// A write or sync failed: what the file holds is not known, and appending to it could lie. What is
    /// known is `high`, so the whole record is written anew before anything else.
    doubtful: bool,
    /// Apart from the file itself, which is replaced when it is written anew.
    _lock: File,
}

impl StateFile {
    /// Makes an empty record for a new fleet.
    pub(crate) fn create(record: Record, path: &Path, fleet: FleetId) -> Result<(), StateError> {
        let _lock = lock(path)?;
        if path.symlink_metadata().is_ok() {
            return Err(StateError::Exists { path: path.to_owned() });
        }
        replace(record, path, fleet, &HashMap::new()).map(drop)
    }

    /// Opens and reads it; cuts a torn end off.
    pub(crate) fn open(record: Record, path: &Path, fleet: FleetId) -> Result<Self, StateError> {
        let lock = lock(path)?;
        let io = |doing| io_error(doing, path);
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StateError::Missing { path: path.to_owned() });
            }
            Err(error) => return Err(io("opening")(error)),
        };
        let length = file.metadata().map_err(io("reading"))?.len();
        if length > limits::STATE_BYTES_MAX {
            return Err(StateError::Damaged { path: path.to_owned(), at: 0, what: "too long" });
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("reading"))?;
        let damaged = |at: usize, what| StateError::Damaged { path: path.to_owned(), at: at as u64, what };
        let (found, frames) = header(record, &bytes).ok_or_else(|| damaged(0, "the header"))?;
        if found != fleet {
            return Err(StateError::OtherFleet { path: path.to_owned(), found, expected: fleet });
        }
        let mut high = HashMap::new();
        let good =
            read_frames(frames, &mut high).map_err(|at| damaged(HEADER_BYTES + at, "a frame before the last"))?;
        let length = (HEADER_BYTES + good) as u64;
        if length < bytes.len() as u64 {
            tracing::warn!(path = %path.display(), at = length, "cutting off a torn end; nothing of it was signed");
            file.set_len(length).map_err(io("cutting"))?;
            file.sync_all().map_err(io("syncing"))?;
        }
        Ok(Self { record, path: path.to_owned(), fleet, file, length, high, doubtful: false, _lock: lock })
    }

    /// Hosts that have one.
    pub(crate) fn hosts(&self) -> usize {
        self.high.len()
    }

    /// Highest sequence signed for this host; 0 before the first.
    pub(crate) fn high(&self, host: HostId) -> Sequence {
        self.high.get(&host).copied().unwrap_or_default()
    }

    /// Records new highest sequences. Durable when it returns.
    pub(crate) fn raise(&mut self, records: &HashMap<HostId, Sequence>) -> Result<(), StateError> {
        if records.is_empty() {
            return Ok(());
        }
        self.mend()?;
        let bytes = frames(records);
        #[cfg(feature = "crash-points")]
        let point = crash_points::Point::before("signer", "raise", crash_points::Passage::Aside);
        if let Err(error) = self.append(&bytes) {
            self.doubtful = true;
            return Err(io_error("writing", &self.path)(error));
        }
        #[cfg(feature = "crash-points")]
        point.after();
        self.length += bytes.len() as u64;
        self.high.extend(records);
        let needed = (self.high.len() * RECORD_BYTES) as u64;
        if self.length > limits::STATE_BYTES_BEFORE_REWRITE && self.length > needed * limits::STATE_REWRITE_FACTOR {
            // Failing to is harmless: the next batch tries again before it is written.
            let _ = self.rewrite();
        }
        Ok(())
    }

    /// Whether a write failed and none has succeeded since.
    pub(crate) const fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// After a failed write: writes the whole record beside the old file and puts it in its place. Every
    /// sequence that was ever given is in memory, so nothing of the old file is needed.
    pub(crate) fn mend(&mut self) -> Result<(), StateError> {
        if self.doubtful { self.rewrite() } else { Ok(()) }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }

    fn rewrite(&mut self) -> Result<(), StateError> {
        match replace(self.record, &self.path, self.fleet, &self.high) {
            Ok((file, length)) => {
                (self.file, self.length, self.doubtful) = (file, length, false);
                Ok(())
            }
            Err(error) => {
                // The rename may or may not have happened, so neither file may be appended to.
                self.doubtful = true;
                Err(error)
            }
        }
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> StateError {
    move |source| StateError::Io { doing, path: path.to_owned(), source }
}

pub(crate) fn lock(path: &Path) -> Result<File, StateError> {
    let lock_path = path.with_added_extension("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(io_error("opening", &lock_path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io_error("locking", &lock_path)(error)),
    }
}

/// Writes the whole record beside `path`, then puts it there in one step.
fn replace(
    record: Record,
    path: &Path,
    fleet: FleetId,
    high: &HashMap<HostId, Sequence>,
) -> Result<(File, u64), StateError> {
    let new_path = path.with_added_extension("new");
    let io = |doing| io_error(doing, &new_path);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&new_path)
        .map_err(io("making"))?;
    let mut bytes = [record.magic().as_slice(), fleet.as_bytes()].concat();
    bytes.extend_from_slice(&checksum(&bytes));
    bytes.extend_from_slice(&frames(high));
    file.write_all(&bytes).map_err(io("writing"))?;
    file.sync_all().map_err(io("syncing"))?;
    std::fs::rename(&new_path, path).map_err(io("renaming"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(io_error("syncing", parent))?;
    Ok((file, bytes.len() as u64))
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    *sha256(bytes).as_bytes().first_chunk().expect("invariant: a SHA-256 has 32 bytes")
}

/// As many frames as the records need.
fn frames(records: &HashMap<HostId, Sequence>) -> Vec<u8> {
    let records: Vec<_> = records.iter().collect();
    let mut bytes = Vec::new();
    for records in records.chunks(limits::RECORDS_PER_FRAME_MAX) {
        let start = bytes.len();
        bytes.extend_from_slice(MARKER);
        let count = u32::try_from(records.len()).expect("invariant: a frame's records are bounded");
        bytes.extend_from_slice(&count.to_be_bytes());
        for (host, sequence) in records {
            bytes.extend_from_slice(host.as_bytes());
            bytes.extend_from_slice(&sequence.0.to_be_bytes());
        }
        let checksum = checksum(&bytes[start..]);
        bytes.extend_from_slice(&checksum);
    }
    bytes
}

/// The fleet, and what follows the header.
fn header(record: Record, bytes: &[u8]) -> Option<(FleetId, &[u8])> {
    let (header, frames) = bytes.split_at_checked(HEADER_BYTES)?;
    let (said, sum) = header.split_at(HEADER_BYTES - CHECKSUM_BYTES);
    let fleet = FleetId::try_from_slice(said.strip_prefix(record.magic())?).ok()?;
    (checksum(said) == sum).then_some((fleet, frames))
}

/// One frame at the start of `bytes`: its records and its length.
fn frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let length = frame_length(bytes)?;
    let (said, sum) = bytes.get(..length)?.split_at(length - CHECKSUM_BYTES);
    (checksum(said) == sum).then_some((&said[FRAME_HEAD_BYTES..], length))
}

/// How long the frame at the start of `bytes` says it is.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let (count, _) = bytes.strip_prefix(MARKER)?.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
    let bounded = (1..=limits::RECORDS_PER_FRAME_MAX).contains(&count);
    bounded.then_some(FRAME_HEAD_BYTES + count * RECORD_BYTES + CHECKSUM_BYTES)
}

/// Reads frames into `high`; answers the length of the good ones. An error is the place of a bad
/// frame that cannot be the torn last one: more follows it than one frame can hold, than it says it
/// holds, or a good frame stands behind it.
fn read_frames(bytes: &[u8], high: &mut HashMap<HostId, Sequence>) -> Result<usize, usize> {
    let mut at = 0;
    while let Some((records, length)) = frame(&bytes[at..]) {
        for record in records.as_chunks::<RECORD_BYTES>().0 {
            let (host, sequence) = record.split_first_chunk::<16>().expect("invariant: a record has 24 bytes");
            let sequence = sequence.try_into().expect("invariant: a record has 24 bytes");
            let entry: &mut Sequence = high.entry(HostId::from_bytes(*host)).or_default();
            *entry = (*entry).max(Sequence(u64::from_be_bytes(sequence)));
        }
        at += length;
    }
    let rest = &bytes[at..];
    let longest = FRAME_HEAD_BYTES + limits::RECORDS_PER_FRAME_MAX * RECORD_BYTES + CHECKSUM_BYTES;
    let can_be_torn = rest.len() <= frame_length(rest).unwrap_or(longest);
    let good_behind = || (1..rest.len()).any(|from| frame(&rest[from..]).is_some());
    if can_be_torn && !good_behind() { Ok(at) } else { Err(at) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RECORD: Record = Record::Sequences;
    const FLEET: FleetId = FleetId::from_bytes([7; 16]);

    fn host(n: u8) -> HostId {
        HostId::from_bytes([n; 16])
    }

    fn one(n: u8, sequence: u64) -> HashMap<HostId, Sequence> {
        HashMap::from([(host(n), Sequence(sequence))])
    }

    fn made() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sequences");
        StateFile::create(RECORD, &path, FLEET).unwrap();
        (directory, path)
    }

    #[test]
    fn what_was_raised_is_there_after_a_restart() {
        let (_directory, path) = made();
        let mut state = StateFile::open(RECORD, &path, FLEET).unwrap();
        assert_eq!(state.high(host(1)), Sequence(0));
        state.raise(&one(1, 5)).unwrap();
        state.raise(&HashMap::from([(host(1), Sequence(9)), (host(2), Sequence(3))])).unwrap();
        drop(state);
        let state = StateFile::open(RECORD, &path, FLEET).unwrap();
        assert_eq!([1, 2, 3].map(|n| state.high(host(n)).0), [9, 3, 0]);
    }

    #[test]
    fn a_torn_end_is_cut_at_every_byte_and_appended_to() {
        let (_directory, path) = made();
        StateFile::open(RECORD, &path, FLEET).unwrap().raise(&one(1, 5)).unwrap();
        let before = std::fs::read(&path).unwrap();
        StateFile::open(RECORD, &path, FLEET)
            .unwrap()
            .raise(&HashMap::from([(host(1), Sequence(6)), (host(2), Sequence(1))]))
            .unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in before.len()..whole.len() {
            for fill in [0, whole.len() - length] {
                // Cut, or of full length with the rest still zero.
                let mut torn = whole[..length].to_vec();
                torn.resize(length + fill, 0);
                if torn == whole {
                    continue;
                }
                std::fs::write(&path, &torn).unwrap();
                let mut state = StateFile::open(RECORD, &path, FLEET).unwrap();
                assert_eq!([1, 2].map(|n| state.high(host(n)).0), [5, 0], "{length}");
                state.raise(&one(3, 8)).unwrap();
                drop(state);
                let state = StateFile::open(RECORD, &path, FLEET).unwrap();
                assert_eq!([1, 2, 3].map(|n| state.high(host(n)).0), [5, 0, 8], "{length}");
            }
        }
    }

    #[test]
    fn damage_before_the_last_frame_is_refused_at_every_byte() {
        let (_directory, path) = made();
        let mut state = StateFile::open(RECORD, &path, FLEET).unwrap();
        state.raise(&one(1, 5)).unwrap();
        let first = state.length as usize;
        state.raise(&one(1, 6)).unwrap();
        drop(state);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..first {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            let refused = StateFile::open(RECORD, &path, FLEET).unwrap_err().to_string();
            assert!(refused.contains("is damaged at byte") && refused.contains("backup"), "{at}: {refused}");
        }
    }

    #[test]
    fn it_is_written_anew_when_it_has_grown() {
        let (_directory, path) = made();
        let mut state = StateFile::open(RECORD, &path, FLEET).unwrap();
        state.raise(&one(1, 5)).unwrap();
        state.raise(&one(2, 6)).unwrap();
        let long = state.length;
        state.rewrite().unwrap();
        assert!(state.length < long && !state.doubtful);
        state.raise(&one(2, 7)).unwrap();
        drop(state);
        let state = StateFile::open(RECORD, &path, FLEET).unwrap();
        assert_eq!([1, 2].map(|n| state.high(host(n)).0), [5, 7]);
    }

    #[test]
    fn after_a_failed_write_the_whole_record_is_written_anew() {
        let (_directory, path) = made();
        let mut state = StateFile::open(RECORD, &path, FLEET).unwrap();
        state.raise(&one(2, 3)).unwrap();
        state.file = File::open(&path).unwrap();
        assert!(matches!(state.raise(&one(1, 5)), Err(StateError::Io { .. })), "opened for reading only");
        assert!(state.is_doubtful());
        assert_eq!(state.high(host(1)), Sequence(0), "what was not durable was not given");

        // As long as the disk takes nothing, it says so, and the old file stands.
        let in_the_way = path.with_added_extension("new");
        std::fs::create_dir(&in_the_way).unwrap();
        let refused = state.raise(&one(1, 6)).unwrap_err().to_string();
        assert!(refused.contains("see to the disk") && state.is_doubtful(), "{refused}");
        std::fs::remove_dir(&in_the_way).unwrap();

        state.raise(&one(1, 7)).unwrap();
        assert!(!state.is_doubtful());
        drop(state);
        let state = StateFile::open(RECORD, &path, FLEET).unwrap();
        assert_eq!([1, 2].map(|n| state.high(host(n)).0), [7, 3]);
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let (directory, path) = made();
        let exists = StateFile::create(RECORD, &path, FLEET).unwrap_err();
        assert!(matches!(exists, StateError::Exists { .. }), "{exists}");
        let other = StateFile::open(RECORD, &path, FleetId::from_bytes([8; 16])).unwrap_err();
        assert!(matches!(other, StateError::OtherFleet { .. }), "{other}");
        let swapped = StateFile::open(Record::Revisions, &path, FLEET).unwrap_err();
        assert!(matches!(swapped, StateError::Damaged { at: 0, .. }), "{swapped}");
        let missing = StateFile::open(RECORD, &directory.path().join("nothing"), FLEET).unwrap_err();
        assert!(missing.to_string().contains("newest backup"), "{missing}");
        let _held = StateFile::open(RECORD, &path, FLEET).unwrap();
        let in_use = StateFile::open(RECORD, &path, FLEET).unwrap_err();
        assert!(matches!(in_use, StateError::InUse { .. }), "{in_use}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_frames(&bytes, &mut HashMap::new());
            let marked = [MARKER.as_slice(), &bytes].concat();
            let _ = read_frames(&marked, &mut HashMap::new());
            let _ = header(RECORD, &bytes);
        }
    }
}
