//! `serverflow root …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use envelope::messages::{PublicKeyBytes, SealingKeyBytes};
use ids::Sha256;

#[derive(Debug, Subcommand)]
pub(crate) enum Root {
    /// Make root keys, each in a file encrypted with a passphrase of its own; needs no network
    #[command(after_help = "Example:\n  serverflow root init --threshold 2 --keys 3 --out keys")]
    Init(RootInit),
    /// Show what a file would change, who signed it and who is missing; without a file, the fleet's present root
    #[command(after_help = "Example:\n  serverflow root show root-v2.json\n  serverflow root show")]
    Show {
        /// A file from `root propose` or `root export`
        file: Option<PathBuf>,
    },
    /// Write a file with the next version of the fleet's root metadata, for the root keys to sign
    #[command(after_help = "Example:\n  \
        serverflow root propose --add-approver 3b6a27bc…29 --approvals-destructive 1\n  \
        serverflow root propose --renew --key root.key.pem --apply   # one root key: signed and in force at once")]
    Propose(Box<Propose>),
    /// Add a signature to a file; needs no network
    #[command(after_help = "Example:\n  serverflow root sign root-v2.json --key root-1.key.pem")]
    Sign(RootSign),
    /// Put a file with all its signatures in force
    #[command(after_help = "Example:\n  serverflow root apply root-v2.json")]
    Apply {
        /// A file from `root propose`, signed
        file: PathBuf,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Write the fleet's present root metadata into a file, for a host out of reach or to propose from
    #[command(after_help = "Example:\n  serverflow root export root.json")]
    Export {
        /// File to write; it must not exist yet
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RootInit {
    /// How many of the keys must sign
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) threshold: u32,
    /// How many keys there shall be
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) keys: u32,
    /// Folder for the files; it is made if it does not exist
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
}

/// The key of whoever signs.
#[derive(Debug, Args)]
pub(crate) struct RootSign {
    /// The file to sign; the signature is added to it
    pub(crate) file: PathBuf,
    /// The root key's file
    #[arg(long, value_name = "KEYFILE")]
    pub(crate) key: PathBuf,
    /// File whose first line is the key's passphrase; `-` reads standard input. Asked for when absent
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// File with a root public key that signed version 1: the chain in the file must begin with it
    #[arg(long, value_name = "FILE", env = "SERVERFLOW_ROOT")]
    pub(crate) root: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Heading of flags for the day on which something was lost or stolen.
const RECOVERY: &str = "Recovery";

#[derive(Debug, Args)]
pub(crate) struct Propose {
    /// File to write; `root-vN.json` when absent. It must not exist yet
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Begin with the newest version in this file instead of asking the control plane
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Last another 400 days, and nothing else; every proposal does that too
    #[arg(long)]
    pub(crate) renew: bool,
    /// Other root keys, and how many must sign: the public halves that `root init` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) root_keys: Option<PathBuf>,
    /// Add an approver's public key (64 hexadecimal digits)
    #[arg(long, value_name = "PUBLIC_KEY")]
    pub(crate) add_approver: Vec<PublicKeyBytes>,
    /// Drop an approver's public key
    #[arg(long, value_name = "PUBLIC_KEY")]
    pub(crate) drop_approver: Vec<PublicKeyBytes>,
    /// How many approvals an action of class change needs
    #[arg(long, value_name = "N")]
    pub(crate) approvals_change: Option<u32>,
    /// How many approvals an action of class destructive needs
    #[arg(long, value_name = "N")]
    pub(crate) approvals_destructive: Option<u32>,
    /// Add an owner recovery key (64 hexadecimal digits)
    #[arg(long, value_name = "PUBLIC_KEY")]
    pub(crate) add_recovery_key: Vec<SealingKeyBytes>,
    /// Drop an owner recovery key
    #[arg(long, value_name = "PUBLIC_KEY")]
    pub(crate) drop_recovery_key: Vec<SealingKeyBytes>,
    /// Address agents dial, in place of the present ones; may be given more than once
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: Vec<String>,
    #[command(flatten)]
    pub(crate) recovery: Recovery,
    /// Sign with this root key at once
    #[arg(long, value_name = "KEYFILE")]
    pub(crate) key: Option<PathBuf>,
    /// File whose first line is the key's passphrase; `-` reads standard input. Asked for when absent
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Put it in force at once: for a fleet with one root key
    #[arg(long, requires = "key", conflicts_with = "from")]
    pub(crate) apply: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Changes of what the control plane holds; day by day it proposes these itself.
#[derive(Debug, Args)]
pub(crate) struct Recovery {
    /// After a restore from a backup: void everything that was signed before, begin another audit log, and name where the old
    /// one stood by the word of all hosts
    #[arg(long, help_heading = RECOVERY, conflicts_with_all = ["from", "raise_epoch"])]
    pub(crate) restored: bool,
    /// Void everything that was signed before
    #[arg(long, help_heading = RECOVERY)]
    pub(crate) raise_epoch: bool,
    /// Drop a command key: orders under it stop
    #[arg(long, value_name = "PUBLIC_KEY", help_heading = RECOVERY)]
    pub(crate) drop_command_key: Vec<PublicKeyBytes>,
    /// Add a command key
    #[arg(long, value_name = "PUBLIC_KEY", help_heading = RECOVERY)]
    pub(crate) add_command_key: Vec<PublicKeyBytes>,
    /// Drop a session key
    #[arg(long, value_name = "PUBLIC_KEY", help_heading = RECOVERY)]
    pub(crate) drop_session_key: Vec<PublicKeyBytes>,
    /// Add a session key
    #[arg(long, value_name = "PUBLIC_KEY", help_heading = RECOVERY)]
    pub(crate) add_session_key: Vec<PublicKeyBytes>,
    /// The audit key, in place of the present one
    #[arg(long, value_name = "PUBLIC_KEY", help_heading = RECOVERY)]
    pub(crate) audit_key: Option<PublicKeyBytes>,
    /// Drop a TLS pin
    #[arg(long, value_name = "SHA256", help_heading = RECOVERY)]
    pub(crate) drop_tls_pin: Vec<Sha256>,
    /// Add a TLS pin
    #[arg(long, value_name = "SHA256", help_heading = RECOVERY)]
    pub(crate) add_tls_pin: Vec<Sha256>,
}
