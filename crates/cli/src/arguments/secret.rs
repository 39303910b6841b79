//! `serverflow secret …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ids::AppName;

use super::SomeHosts;

#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Make an owner recovery key, in a file encrypted with a passphrase; needs no network
    ///
    /// Once root metadata names its public half, every deploy seals the app's secrets to it as well. It opens them when
    /// an app moves to another host. Keep it offline, with the root keys.
    #[command(after_help = "Example:\n  serverflow secret recovery-key --out owner.key.pem\n  \
        serverflow root propose --add-recovery-key 3b6a27bc…29")]
    RecoveryKey {
        /// File to write; it must not exist yet
        #[arg(long, value_name = "FILE", default_value = "recovery.key.pem")]
        out: PathBuf,
    },
    /// Seal stored secrets to the keys of today, so that the keys before can be thrown away
    ///
    /// With hosts: each seals the secrets of its apps to its newest sealing key, by itself; no value leaves it. Worth doing
    /// after `serverflow key rotate agent`.
    /// With a recovery key: the secrets it opens, on this machine, are sealed to the owner recovery keys that root metadata
    /// names now.
    #[command(after_help = "Example:\n  serverflow secret rewrap --host web-1\n  \
        serverflow secret rewrap --selector role=app\n  serverflow secret rewrap --recovery-key old-owner.key.pem")]
    Rewrap(Rewrap),
}

/// The owner's recovery key.
#[derive(Debug, Args)]
pub(crate) struct OwnerKey {
    /// File with an owner recovery key
    #[arg(long, value_name = "KEYFILE")]
    pub(crate) recovery_key: Option<PathBuf>,
    /// File whose first line is the key's passphrase; `-` reads standard input. Asked for when absent
    #[arg(long, value_name = "FILE", requires = "recovery_key")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whose").required(true).args(["names", "selector", "recovery_key"]))]
pub(crate) struct Rewrap {
    #[command(flatten)]
    pub(crate) owner: OwnerKey,
    #[command(flatten)]
    pub(crate) hosts: SomeHosts,
    /// Only the secrets of this app; may be repeated
    #[arg(long = "app", value_name = "APP")]
    pub(crate) apps: Vec<AppName>,
}
