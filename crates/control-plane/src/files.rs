//! Where everything of one control plane lies.

use std::path::{Path, PathBuf};

use signer::Place;

/// Paths below one data directory.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    root: PathBuf,
}

impl Files {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { root: data_dir.to_owned() }
    }

    /// The data directory itself.
    pub(crate) fn directory(&self) -> &Path {
        &self.root
    }

    /// The root's private key, encrypted with a passphrase. Belongs elsewhere, offline.
    pub(crate) fn root_key(&self) -> PathBuf {
        self.root.join("root.key.pem")
    }

    /// The root's public key, hexadecimal: what `serverflow audit verify` trusts.
    pub(crate) fn root_public(&self) -> PathBuf {
        self.root.join("root.pub")
    }

    /// Version 1 of root metadata while its signatures are gathered. Where it lies, there is no fleet yet.
    pub(crate) fn root_proposal(&self) -> PathBuf {
        self.root.join("root-proposal.json")
    }

    /// What is made at the end of such an `init`, until it is whole.
    pub(crate) fn finishing(&self) -> PathBuf {
        self.root.join("finishing")
    }

    pub(crate) fn session_key(&self) -> PathBuf {
        self.root.join("keys/session.key.pem")
    }

    /// One that is to take its place, while a change is under way; then the one before, until that is destroyed.
    pub(crate) fn session_key_next(&self) -> PathBuf {
        self.root.join("keys/session-next.key.pem")
    }

    /// Where the command key lay before the signer had a directory of its own; it brings it over itself.
    pub(crate) fn earlier_command_key(&self) -> PathBuf {
        self.root.join("keys/command.key.pem")
    }

    pub(crate) fn audit_key(&self) -> PathBuf {
        self.root.join("keys/audit.key.pem")
    }

    /// As [`Self::session_key_next`].
    pub(crate) fn audit_key_next(&self) -> PathBuf {
        self.root.join("keys/audit-next.key.pem")
    }

    pub(crate) fn tls_key(&self) -> PathBuf {
        self.root.join("keys/tls.key.pem")
    }

    /// The TLS key that comes after the present one; its pin is already published.
    pub(crate) fn tls_key_next(&self) -> PathBuf {
        self.root.join("keys/tls-next.key.pem")
    }

    /// The one after that, while a change is under way.
    pub(crate) fn tls_key_after(&self) -> PathBuf {
        self.root.join("keys/tls-after.key.pem")
    }

    /// Encrypts what the database holds of results, parameters and records. 32 bytes, hexadecimal.
    pub(crate) fn data_key(&self) -> PathBuf {
        self.root.join("keys/data.key")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("serverflow.db")
    }

    /// The signer's own directory, unless it is a service of its own.
    pub(crate) fn signer(&self) -> Place {
        Place::new(&self.root.join("signer"))
    }

    /// The first owner's session token.
    pub(crate) fn admin_token(&self) -> PathBuf {
        self.root.join("admin.token")
    }
}
