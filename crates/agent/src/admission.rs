//! Whether an order may run on this host: is the action registered, do its parameters decode, and
//! does the owner's policy allow it.
//!
//! The policy is a file of the host's owner. It is looked at before each judgement and read again when
//! it changed, so that a new line holds from the next order on, and a broken one refuses everything at
//! once.

use std::{
    cell::RefCell,
    fs::{File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use actions::{
    Lock, Request,
    policy::{Policy, PolicyError},
};
use envelope::messages::Order;
use session::{
    agent::io::{Admission, Admitted, AdmittedKind, Rejection},
    frames::ActionRef,
};

/// Why the policy file allows nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyFileError {
    #[error("the policy file {path} does not exist, so this host refuses everything; write one (see docs/POLICY.md)")]
    Missing { path: PathBuf },
    #[error("the policy file {path} cannot be read, so this host refuses everything")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the policy file {path} could be changed by others than the host's owner ({why}), so this host refuses everything"
    )]
    Changeable { path: PathBuf, why: String },
    #[error("the policy file {path} is not valid, so this host refuses everything")]
    Invalid {
        path: PathBuf,
        #[source]
        source: PolicyError,
    },
}

/// What tells one content of the file from another without reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

struct Known {
    /// `None`: there was no file.
    stamp: Option<Stamp>,
    judgement: Result<Policy, String>,
}

/// The owner's policy, as the file says at this moment.
pub(crate) struct PolicyFile {
    path: PathBuf,
    known: RefCell<Option<Known>>,
}

impl PolicyFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, known: RefCell::new(None) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The policy in force now.
    ///
    /// # Errors
    /// Words for a person when the file allows nothing.
    pub(crate) fn current(&self) -> Result<Policy, String> {
        let opened = File::open(&self.path);
        let stamp = opened.as_ref().ok().and_then(|file| stamp(file).ok());
        let mut known = self.known.borrow_mut();
        if let Some(known) = known.as_ref().filter(|known| known.stamp == stamp && stamp.is_some()) {
            return known.judgement.clone();
        }
        let judgement = read_opened(&self.path, opened).map_err(|error| crate::failure::words(&error));
        if known.as_ref().is_none_or(|known| known.judgement != judgement) {
            match &judgement {
                Ok(_) => tracing::info!(path = %self.path.display(), "policy read"),
                Err(error) => tracing::error!(%error, "no policy: every order is refused"),
            }
        }
        *known = Some(Known { stamp, judgement: judgement.clone() });
        judgement
    }
}

/// Reads a policy file once.
pub(crate) fn read_policy(path: &Path) -> Result<Policy, PolicyFileError> {
    read_opened(path, File::open(path))
}

fn stamp(file: &File) -> io::Result<Stamp> {
    let metadata = file.metadata()?;
    Ok(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

fn read_opened(path: &Path, opened: io::Result<File>) -> Result<Policy, PolicyFileError> {
    let path = path.to_owned();
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(PolicyFileError::Missing { path }),
        Err(source) => return Err(PolicyFileError::Io { path, source }),
    };
    let metadata = file.metadata().map_err(|source| PolicyFileError::Io { path: path.clone(), source })?;
    if let Some(why) = changeable_by_others(&metadata, rustix::process::geteuid().as_raw()) {
        return Err(PolicyFileError::Changeable { path, why });
    }
    let mut text = String::new();
    // One byte more than a policy may have, so that a longer one is seen to be longer.
    let limit = actions::limits::POLICY_BYTES_MAX as u64 + 1;
    if let Err(source) = file.take(limit).read_to_string(&mut text) {
        return Err(PolicyFileError::Io { path, source });
    }
    Policy::parse(&text).map_err(|source| PolicyFileError::Invalid { path, source })
}

/// Why others than root and the agent's own user could change the file, if they could. The policy is
/// the owner's word: whoever can write it decides what may happen to this host.
fn changeable_by_others(metadata: &Metadata, me: u32) -> Option<String> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != 0 && owner != me {
        return Some(format!("it belongs to user {owner}"));
    }
    (mode & 0o022 != 0).then(|| format!("its mode is {mode:04o}"))
}

/// The actions of this program, as each session lists them.
pub(crate) fn action_refs() -> Vec<ActionRef> {
    let reference = |info: &actions::ActionInfo| ActionRef {
        name: info.name.parse().expect("invariant: the registry's names obey the rule for action names"),
        version: info.version,
        schema_sha256: info.schema_sha256(),
    };
    actions::actions().iter().map(reference).collect()
}

/// Registry and policy of this host.
pub(crate) struct HostAdmission {
    pub(crate) policy: PolicyFile,
}

impl HostAdmission {
    fn request(order: &Order) -> Result<Request, Rejection> {
        let (name, version) = (&order.action, order.action_version);
        if let Some(info) = actions::find(name, version)
            && info.schema_sha256() != order.schema_sha256
        {
            let message = format!(
                "the order was made for another form of {name} version {version} than this agent has; bring control \
                 plane and agent to the same release"
            );
            return Err(Rejection { message });
        }
        let request = Request::decode(name, version, &order.parameters)
            .map_err(|error| Rejection { message: error.to_string() })?;
        let missing = request.secret_names().into_iter().find(|name| order.sealed.iter().all(|it| it.name != name.0));
        match missing {
            Some(name) => {
                let message = format!("the order refers to the sealed value {}, which did not come with it", name.0);
                Err(Rejection { message })
            }
            None => Ok(request),
        }
    }

    fn admitted(request: &Request) -> Admitted {
        let info = request.info();
        let kind = match (request, request.lock()) {
            (Request::CommandCancel(cancel), _) => AdmittedKind::Cancel(cancel.command_id),
            (Request::HostKeysRotate(_), _) => AdmittedKind::RotateKeys,
            (Request::HostRetire(_), _) => AdmittedKind::Retire,
            (Request::StandingInstall(install), _) => AdmittedKind::StandingInstall(install.envelope()),
            (Request::StandingRenew(renew), _) => AdmittedKind::StandingRenew(renew.envelope()),
            (Request::StandingDrop(drop), _) => AdmittedKind::StandingDrop(drop.standing_order, drop.revision),
            (_, Lock::App(app)) => AdmittedKind::Locked(app),
            (_, Lock::None) => AdmittedKind::Free,
        };
        Admitted { class: info.class, on_restart: info.on_restart, kind, approvals_min: 0 }
    }
}

impl Admission for HostAdmission {
    fn judge(&self, order: &Order) -> Result<Admitted, Rejection> {
        let request = Self::request(order)?;
        // Stopping something must be possible whatever the file says, or says no longer.
        let policy = match self.policy.current() {
            Ok(policy) => policy,
            // So must the change of keys that may have been stolen.
            Err(_) if actions::policy::ALWAYS_ALLOWED.contains(&request.info().name) => Policy::refuse_all(),
            Err(message) => return Err(Rejection { message }),
        };
        policy.judge(&order.action, request.info().class, &request.demands()).map_err(|refusal| Rejection {
            message: format!("{refusal} (the file is {})", self.policy.path().display()),
        })?;
        let approvals_min = policy.approvals_min(request.info().class);
        Ok(Admitted { approvals_min, ..Self::admitted(&request) })
    }

    fn declared(&self, order: &Order) -> Option<Admitted> {
        Self::request(order).ok().map(|request| Self::admitted(&request))
    }
}

#[cfg(test)]
mod tests {
    use ids::{CommandId, FleetId, HostId, OperationId, Sha256, UnixMs};

    use super::*;

    fn order(action: &str, parameters: &str) -> Order {
        let action = action.parse().expect("an action's name");
        let schema_sha256 = actions::find(&action, 1).map_or(Sha256::ZERO, actions::ActionInfo::schema_sha256);
        Order {
            fleet: FleetId::from_bytes([1; 16]),
            host: HostId::from_bytes([2; 16]),
            command: CommandId::from_bytes([3; 16]),
            operation: OperationId::from_bytes([4; 16]),
            proposed_at: UnixMs(0),
            deliver_by: UnixMs(1),
            start_within_ms: 1,
            action,
            action_version: 1,
            schema_sha256,
            parameters: parameters.as_bytes().to_vec(),
            sealed: Vec::new(),
            requester: None,
            dry_run: false,
        }
    }

    fn admission(directory: &tempfile::TempDir) -> HostAdmission {
        HostAdmission { policy: PolicyFile::new(directory.path().join("policy.toml")) }
    }

    #[test]
    fn a_changed_file_holds_from_the_next_judgement_on() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let admission = admission(&directory);
        let facts = order("host.facts", "{}");
        let refused = admission.judge(&facts).expect_err("no file refuses");
        assert!(refused.message.contains("does not exist"), "{}", refused.message);

        std::fs::write(admission.policy.path(), "actions = [\"host.facts\"]\n").expect("written");
        let admitted = admission.judge(&facts).expect("allowed now");
        assert_eq!(admitted.kind, AdmittedKind::Free);

        std::fs::write(admission.policy.path(), "actions = [\"host.facts\"]\nsurprise = 1\n").expect("written");
        let refused = admission.judge(&facts).expect_err("an unknown key refuses");
        assert!(refused.message.contains("line 2") && refused.message.contains("surprise"), "{}", refused.message);

        std::fs::remove_file(admission.policy.path()).expect("removed");
        assert!(admission.judge(&facts).is_err(), "what was read before does not hold without its file");
    }

    #[test]
    fn a_refusal_names_line_and_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let admission = admission(&directory);
        std::fs::write(admission.policy.path(), "actions = [\"host.facts\"]\n").expect("written");
        let refused = admission.judge(&order("docker.containers", "{}")).expect_err("not listed");
        assert!(refused.message.contains("actions = [\"docker.containers\"]"), "{}", refused.message);
        assert!(refused.message.contains(&directory.path().display().to_string()), "{}", refused.message);
    }

    #[test]
    fn cancelling_and_new_keys_need_no_policy_and_everything_needs_its_schema() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let admission = admission(&directory);
        let target = CommandId::from_bytes([9; 16]);
        let mut cancel = order("command.cancel", &format!("{{\"command_id\":\"{target}\"}}"));
        assert_eq!(admission.judge(&cancel).expect("allowed").kind, AdmittedKind::Cancel(target));
        let rotate = order("host.keys.rotate", "{}");
        assert_eq!(admission.judge(&rotate).expect("allowed").kind, AdmittedKind::RotateKeys);
        assert!(admission.judge(&order("host.facts", "{}")).is_err(), "nothing else is");
        std::fs::write(admission.policy.path(), "this is no policy").expect("written");
        assert_eq!(admission.judge(&rotate).expect("allowed").kind, AdmittedKind::RotateKeys);
        assert!(admission.judge(&order("host.facts", "{}")).is_err());
        std::fs::remove_file(admission.policy.path()).expect("removed");
        cancel.schema_sha256 = Sha256([1; 32]);
        assert!(admission.judge(&cancel).expect_err("another schema").message.contains("another form"));
        assert_eq!(admission.declared(&cancel), None);
        assert!(admission.judge(&order("no.such", "{}")).expect_err("unknown").message.contains("no action no.such"));
    }
}
