//! The agent's directory: which file is what, and how files are written so that a crash leaves the
//! old one or the new one, never half of either.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use ids::{FleetId, HostEpoch, HostId, HostName, Role, Sha256, TokenId, UnixMs};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use session::agent::PendingEnrolment;

use crate::limits;

/// Where the state lies unless it is said otherwise.
pub(crate) const DEFAULT: &str = "/var/lib/serverflow-agent";

/// Why a file of the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("cannot {what} {path}: check its owner, its permissions and the free space on its disk")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is damaged; restore it from a backup, or revoke this host and enrol it anew")]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} has an unusable field {field}; restore it from a backup, or revoke this host and enrol it anew")]
    Field { path: PathBuf, field: &'static str },
    #[error(
        "other users may write to the state directory {path} (mode {mode:o}, user {owner}), and so replace this host's \
         policy and identity: make it yours alone (`chown` and `chmod 700`), ask who wrote there, and try again"
    )]
    Exposed { path: PathBuf, mode: u32, owner: u32 },
}

/// Paths below one directory.
#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
}

impl StateDir {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// What a command of this program needs besides to work on this directory: nothing for the default.
    pub(crate) fn option(&self) -> String {
        if self.root == Path::new(DEFAULT) { String::new() } else { format!(" --state-dir {}", self.root.display()) }
    }

    /// Refuses a directory that somebody else may write to: whoever may replace files in it need not
    /// read or write the files themselves.
    ///
    /// # Errors
    /// When it is somebody else's, or others have the permission to write.
    pub(crate) fn guard(&self) -> Result<(), StateError> {
        let path = self.root.clone();
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(source) => return Err(StateError::Io { what: "look at", path, source }),
        };
        let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
        // What belongs to root may be used by everybody it lets in, and root may run what is another's:
        // that is what `sudo` on one's own machine does.
        let me = rustix::process::geteuid().as_raw();
        let is_mine = owner == 0 || me == 0 || owner == me;
        if is_mine && mode & 0o022 == 0 { Ok(()) } else { Err(StateError::Exposed { path, mode, owner }) }
    }

    /// Signs what this host says. Made here, never leaves.
    pub(crate) fn identity_key(&self) -> PathBuf {
        self.root.join("identity.key.pem")
    }

    /// Opens what is sealed to this host.
    pub(crate) fn sealing_key(&self) -> PathBuf {
        self.root.join("sealing.key.pem")
    }

    /// The identity key of one of this host's epochs.
    pub(crate) fn identity_key_of(&self, epoch: HostEpoch) -> PathBuf {
        self.key_of(epoch, self.identity_key(), "identity")
    }

    /// The sealing key of one of this host's epochs.
    pub(crate) fn sealing_key_of(&self, epoch: HostEpoch) -> PathBuf {
        self.key_of(epoch, self.sealing_key(), "sealing")
    }

    fn key_of(&self, epoch: HostEpoch, first: PathBuf, kind: &str) -> PathBuf {
        if epoch <= HostEpoch(1) { first } else { self.root.join(format!("{kind}.{epoch}.key.pem")) }
    }

    /// By which values are compared without being kept. Never leaves.
    pub(crate) fn fingerprint_key(&self) -> PathBuf {
        self.root.join("fingerprint.key")
    }

    /// What this host is. Its presence means: enrolled.
    pub(crate) fn enrolment(&self) -> PathBuf {
        self.root.join("enrolment.json")
    }

    /// An enrolment that was begun and has no receipt yet.
    pub(crate) fn pending(&self) -> PathBuf {
        self.root.join("enrolment.pending.json")
    }

    pub(crate) fn enrolment_lock(&self) -> PathBuf {
        self.root.join("enrolment.lock")
    }

    /// Files of containers, which the engine mounts: absolute, because it runs elsewhere.
    pub(crate) fn files(&self) -> PathBuf {
        let root = fs::canonicalize(&self.root).unwrap_or_else(|_| self.root.clone());
        root.join("files")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("journal.db")
    }

    /// The owner's policy, unless another path was given.
    pub(crate) fn policy(&self) -> PathBuf {
        self.root.join("policy.toml")
    }

    /// Of an agent that no service manager keeps.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("agent.log")
    }

    pub(crate) fn status(&self) -> PathBuf {
        self.root.join("status.json")
    }
}

/// Bytes as base64 text in JSON.
mod base64 {
    use super::BASE64;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        BASE64.decode(String::deserialize(deserializer)?.as_bytes()).map_err(D::Error::custom)
    }
}

/// What this host is: the durable end of an enrolment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Enrolment {
    pub(crate) fleet: FleetId,
    pub(crate) host: HostId,
    pub(crate) host_epoch: HostEpoch,
    pub(crate) name: HostName,
    pub(crate) roles: Vec<Role>,
    /// Of the root metadata at enrolment; used only when the journal with newer ones is lost.
    pub(crate) addresses: Vec<String>,
    pub(crate) tls_pins: Vec<Sha256>,
    /// SHA-256 of the root metadata pinned by the token, for life.
    pub(crate) root_sha256: Sha256,
    /// The signed receipt, kept for life.
    #[serde(with = "base64")]
    pub(crate) receipt: Vec<u8>,
    pub(crate) enrolled_at: UnixMs,
    /// The policy file, when it is not the one in the state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<PathBuf>,
}

impl Enrolment {
    /// `None` when this machine is not enrolled.
    pub(crate) fn read(state: &StateDir) -> Result<Option<Self>, StateError> {
        read_json(&state.enrolment())
    }

    pub(crate) fn write(&self, state: &StateDir) -> Result<(), StateError> {
        write_json(&state.enrolment(), self, Durability::Synced)
    }
}

/// The form of [`PendingEnrolment`] on disk.
#[derive(Serialize, Deserialize)]
struct PendingFile {
    fleet: FleetId,
    token: TokenId,
    root_sha256: Sha256,
    spki_sha256: Sha256,
    address: String,
    root_chain: Vec<String>,
}

/// Makes a begun enrolment durable: everything of the token but its secret.
pub(crate) fn pending_write(state: &StateDir, pending: &PendingEnrolment) -> Result<(), StateError> {
    let file = PendingFile {
        fleet: pending.fleet,
        token: pending.token,
        root_sha256: pending.root_sha256,
        spki_sha256: pending.spki_sha256,
        address: pending.address.clone(),
        root_chain: pending.root_chain.iter().map(|envelope| BASE64.encode(envelope)).collect(),
    };
    write_json(&state.pending(), &file, Durability::Synced)
}

/// The enrolment that was begun, if there is one.
pub(crate) fn pending_read(state: &StateDir) -> Result<Option<PendingEnrolment>, StateError> {
    let path = state.pending();
    let Some(file) = read_json::<PendingFile>(&path)? else { return Ok(None) };
    let chain: Result<Vec<_>, _> = file.root_chain.iter().map(|text| BASE64.decode(text.as_bytes())).collect();
    let root_chain = chain.map_err(|_| StateError::Field { path, field: "root_chain" })?;
    Ok(Some(PendingEnrolment {
        fleet: file.fleet,
        token: file.token,
        root_sha256: file.root_sha256,
        spki_sha256: file.spki_sha256,
        address: file.address,
        root_chain,
    }))
}

/// Takes the begun enrolment away; absent is fine.
pub(crate) fn pending_remove(state: &StateDir) -> Result<(), StateError> {
    let path = state.pending();
    match fs::remove_file(&path) {
        Ok(()) => sync_directory(&path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StateError::Io { what: "remove", path, source }),
    }
}

/// Whether a written file must survive a power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    Synced,
    Lax,
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<(), StateError> {
    let damaged = |source| StateError::Damaged { path: path.to_owned(), source };
    let mut text = serde_json::to_vec_pretty(value).map_err(damaged)?;
    text.push(b'\n');
    replace(path, &text, durability)
}

/// Puts a new file (0600) in the place of the old one.
fn replace(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), StateError> {
    let new = path.with_extension("new");
    let fail = |what| move |source| StateError::Io { what, path: path.to_owned(), source };
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    let mut file = open.map_err(fail("create"))?;
    file.write_all(bytes).map_err(fail("write"))?;
    if durability == Durability::Synced {
        file.sync_all().map_err(fail("write"))?;
    }
    fs::rename(&new, path).map_err(fail("replace"))?;
    if durability == Durability::Synced { sync_directory(path) } else { Ok(()) }
}

/// Writes a file that does not exist yet, durably. `false` when it was there: then it is left alone.
pub(crate) fn write_new(path: &Path, text: &str, mode: u32) -> Result<bool, StateError> {
    let fail = |what| move |source| StateError::Io { what, path: path.to_owned(), source };
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(source) => return Err(fail("create")(source)),
    };
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail("write"))?;
    sync_directory(path).map(|()| true)
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let fail = |source| StateError::Io { what: "read", path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(fail(source)),
    };
    let mut bytes = Vec::new();
    file.take(limits::STATE_FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(fail)?;
    let damaged = |source| StateError::Damaged { path: path.to_owned(), source };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// A renamed or new file is durable once its directory is.
fn sync_directory(path: &Path) -> Result<(), StateError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|source| StateError::Io {
        what: "write the directory of",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending() -> PendingEnrolment {
        PendingEnrolment {
            fleet: FleetId::from_bytes([1; 16]),
            token: TokenId::from_bytes([2; 16]),
            root_sha256: Sha256([3; 32]),
            spki_sha256: Sha256([4; 32]),
            address: "control.example:7443".to_owned(),
            root_chain: vec![vec![1, 2, 3], vec![]],
        }
    }

    #[test]
    fn a_begun_enrolment_comes_back_as_written_and_goes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = StateDir::new(directory.path().to_owned());
        assert_eq!(pending_read(&state).expect("readable"), None);
        pending_write(&state, &pending()).expect("written");
        assert_eq!(pending_read(&state).expect("readable"), Some(pending()));
        pending_remove(&state).expect("removed");
        pending_remove(&state).expect("absent is fine");
        assert_eq!(pending_read(&state).expect("readable"), None);
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = StateDir::new(directory.path().to_owned());
        for (mode, refused) in [(0o700, false), (0o750, false), (0o755, false), (0o770, true), (0o1777, true)] {
            fs::set_permissions(state.path(), fs::Permissions::from_mode(mode)).expect("changed");
            assert_eq!(matches!(state.guard(), Err(StateError::Exposed { .. })), refused, "{mode:o}");
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_absence() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = StateDir::new(directory.path().to_owned());
        fs::write(state.enrolment(), "{").expect("written");
        assert!(matches!(Enrolment::read(&state), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn a_file_that_exists_is_never_overwritten() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("policy.toml");
        assert!(write_new(&path, "mine", 0o640).expect("written"));
        assert!(!write_new(&path, "other", 0o640).expect("left alone"));
        assert_eq!(fs::read_to_string(&path).expect("readable"), "mine");
    }
}
