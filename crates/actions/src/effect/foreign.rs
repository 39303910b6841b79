//! What an app is to stand on and did not make itself.

use std::collections::BTreeSet;

use ids::AppName;

/// Everything of that kind, for one judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The app.
    pub app: AppName,
    /// Allowed roots of binds, as the policy has them.
    pub roots: Vec<String>,
    /// Whether the policy allows Docker's socket.
    pub docker_socket: bool,
    /// Files and directories of the host.
    pub binds: Vec<ForeignBind>,
    /// Networks of others: each must exist.
    pub networks: BTreeSet<String>,
    /// Volumes of others: each must exist.
    pub volumes: BTreeSet<String>,
    /// Names of the app's own containers: none may belong to anything else.
    pub containers: BTreeSet<String>,
    /// Makes missing directories of those binds that want it.
    pub make: bool,
}

/// One file or directory of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignBind {
    /// Which service mounts it.
    pub service: String,
    /// Absolute path.
    pub source: String,
    /// Whether the container may not write.
    pub read_only: bool,
    /// Whether a missing directory is made.
    pub create: bool,
}
