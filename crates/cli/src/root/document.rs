//! Root metadata as documents and in words.

use std::path::{Path, PathBuf};

use api::Timestamp;
use envelope::{
    keys::key_id,
    messages::{PublicKeyBytes, RootMetadata},
    root::{Progress, RootFile, Threshold, TrustedRoot, changes},
};
use ids::UnixMs;
use serde::Serialize;

use crate::{output::Paint, spans::relative, table::fields};

/// A public key with its id.
#[derive(Serialize)]
struct Key {
    id: String,
    public_key: String,
}

fn keys(list: &[PublicKeyBytes]) -> Vec<Key> {
    list.iter().map(|key| Key { id: key_id(key).to_string(), public_key: key.to_string() }).collect()
}

/// One version.
#[derive(Serialize)]
struct Version {
    version: u64,
    fleet_id: String,
    /// Of its payload, whoever has signed: what people compare.
    sha256: String,
    issued_at: Timestamp,
    expires_at: Timestamp,
    epoch: u64,
    root_threshold: u32,
    root_keys: Vec<Key>,
    session_keys: Vec<Key>,
    command_keys: Vec<Key>,
    audit_key: Vec<Key>,
    approver_keys: Vec<Key>,
    approvals_change: u32,
    approvals_destructive: u32,
    recovery_keys: Vec<String>,
    tls_pins: Vec<String>,
    addresses: Vec<String>,
    audit_log: String,
    protocol_min: u32,
}

impl Version {
    fn of(root: &RootMetadata, sha256: ids::Sha256) -> Self {
        Self {
            version: root.version.0,
            fleet_id: root.fleet.to_string(),
            sha256: sha256.to_string(),
            issued_at: root.issued.into(),
            expires_at: root.expires.into(),
            epoch: root.epoch.0,
            root_threshold: root.root_threshold,
            root_keys: keys(&root.root_keys),
            session_keys: keys(&root.session_keys),
            command_keys: keys(&root.command_keys),
            audit_key: keys(&[root.audit_key]),
            approver_keys: keys(&root.approver_keys),
            approvals_change: root.approvals.change,
            approvals_destructive: root.approvals.destructive,
            recovery_keys: root.recovery_keys.iter().map(ToString::to_string).collect(),
            tls_pins: root.tls_pins.iter().map(ToString::to_string).collect(),
            addresses: root.addresses.clone(),
            audit_log: root.audit_log.to_string(),
            protocol_min: root.protocol_min,
        }
    }

    /// Everything in it, a line each.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let listed =
            |keys: &[Key]| keys.iter().map(|key| format!("{} (id {})", key.public_key, key.id)).collect::<Vec<_>>();
        let joined =
            |lines: Vec<String>| if lines.is_empty() { "none".to_owned() } else { lines.join("\n                ") };
        vec![
            ("fleet", self.fleet_id.clone()),
            ("SHA-256", self.sha256.clone()),
            ("epoch", self.epoch.to_string()),
            ("root keys", joined(listed(&self.root_keys))),
            ("must sign", format!("{} of {}", self.root_threshold, self.root_keys.len())),
            ("session keys", joined(listed(&self.session_keys))),
            ("command keys", joined(listed(&self.command_keys))),
            ("audit key", joined(listed(&self.audit_key))),
            ("approver keys", joined(listed(&self.approver_keys))),
            ("approvals", format!("change {}, destructive {}", self.approvals_change, self.approvals_destructive)),
            ("recovery keys", joined(self.recovery_keys.clone())),
            ("TLS pins", joined(self.tls_pins.clone())),
            ("agents dial", self.addresses.join(", ")),
        ]
    }
}

/// The fleet's present root, as `root show` prints it.
#[derive(Serialize)]
pub(super) struct Present {
    #[serde(flatten)]
    version: Version,
    /// Whole days since its issue.
    age_days: u64,
    expired: bool,
}

const DAY_MS: u64 = 86_400_000;

impl Present {
    pub(super) fn of(root: &TrustedRoot, now: UnixMs) -> Self {
        let current = root.current();
        Self {
            version: Version::of(current, root.payload_sha256()),
            age_days: now.since(current.issued).0 / DAY_MS,
            expired: root.is_expired(now),
        }
    }

    pub(super) fn words(&self, now: UnixMs, paint: Paint) -> String {
        let when = |time: Timestamp| format!("{} ({time})", relative(now, time.0));
        let expires = when(self.version.expires_at);
        let expires = if self.expired { format!("{expires}: hosts take read actions only") } else { expires };
        let mut rows = vec![
            ("version", self.version.version.to_string()),
            ("issued", when(self.version.issued_at)),
            ("expires", expires),
        ];
        rows.extend(self.version.rows());
        fields(paint, &rows)
    }
}

#[derive(Serialize)]
struct Change {
    field: &'static str,
    words: String,
}

#[derive(Serialize)]
struct Signatures {
    /// Whose root keys.
    version: u64,
    needed: u32,
    missing: u32,
    signed: Vec<Key>,
    unsigned: Vec<Key>,
}

impl Signatures {
    fn of(threshold: &Threshold) -> Self {
        Self {
            version: threshold.version.0,
            needed: threshold.needed,
            missing: threshold.missing(),
            signed: keys(&threshold.signed),
            unsigned: keys(&threshold.unsigned),
        }
    }

    fn words(&self) -> String {
        let mut text = format!(
            "Root keys of version {}: {} of {} needed have signed\n",
            self.version,
            self.signed.len(),
            self.needed
        );
        for (list, word) in [(&self.signed, "signed "), (&self.unsigned, "not yet")] {
            list.iter().for_each(|key| text.push_str(&format!("  {word}  {} (id {})\n", key.public_key, key.id)));
        }
        text
    }
}

/// A file: what it would change, who signed, who is missing.
#[derive(Serialize)]
pub(super) struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    proposed: Version,
    /// Nothing for the first version of a fleet.
    changes: Vec<Change>,
    /// By the version it follows, and by its own.
    signatures: Vec<Signatures>,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<bool>,
}

impl Shown {
    pub(super) fn of(file: &RootFile) -> Self {
        let (chain, proposed) = (file.chain.as_ref(), &file.proposed);
        let progress = proposed.progress(chain);
        let complete = progress.is_complete();
        let Progress { before, own } = progress;
        let differences = file.before().map(|before| changes(before, proposed.metadata())).unwrap_or_default();
        Self {
            file: None,
            proposed: Version::of(proposed.metadata(), proposed.payload_sha256()),
            changes: differences
                .into_iter()
                .map(|change| Change { field: change.field, words: change.words })
                .collect(),
            signatures: before.iter().chain([&own]).map(Signatures::of).collect(),
            complete,
            applied: None,
        }
    }

    pub(super) fn in_file(mut self, path: &Path) -> Self {
        self.file = Some(path.to_owned());
        self
    }

    pub(super) fn applied(mut self) -> Self {
        self.applied = Some(true);
        self
    }

    /// Whose signatures are needed yet; empty when none is.
    pub(super) fn missing(&self) -> String {
        let needed = |it: &Signatures| {
            let ids: Vec<_> = it.unsigned.iter().map(|key| key.id.as_str()).collect();
            format!("{} more root keys of version {} (of {})", it.missing, it.version, ids.join(", "))
        };
        let missing: Vec<_> = self.signatures.iter().filter(|it| it.missing > 0).map(needed).collect();
        missing.join("; ")
    }

    pub(super) fn words(&self, paint: Paint) -> String {
        let Version { version, fleet_id, sha256, issued_at, expires_at, .. } = &self.proposed;
        let rows = [
            ("version", version.to_string()),
            ("fleet", fleet_id.clone()),
            ("SHA-256", sha256.clone()),
            ("issued", issued_at.to_string()),
            ("expires", expires_at.to_string()),
        ];
        let mut text = fields(paint, &rows);
        match self.signatures.as_slice() {
            [before, _] => {
                text.push_str(&format!("\n{}\n", paint.bold(format!("What changes after version {}", before.version))));
                self.changes.iter().for_each(|change| text.push_str(&format!("  {}\n", change.words)));
            }
            _ => text.push_str(&format!(
                "\n{}\n{}",
                paint.bold("The first of its fleet"),
                fields(Paint(false), &self.proposed.rows())
            )),
        }
        text.push('\n');
        self.signatures.iter().for_each(|it| text.push_str(&it.words()));
        text
    }
}
