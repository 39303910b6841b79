//! `serverflow key …`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use ids::HostName;

use crate::{
    limits,
    spans::{self, wait_seconds},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// List the control plane's own keys: roles, ids, ages, next rotation, changes under way and who has not acknowledged
    #[command(after_help = "Example:\n  serverflow key list")]
    List,
    /// Put new keys in the place of those in use: of hosts, or one of the control plane's own
    #[command(
        subcommand,
        after_help = "Example:\n  serverflow key rotate agent web-1\n  serverflow key rotate command --key root.key.pem"
    )]
    Rotate(Rotate),
    /// Shut out a command key that is in wrong hands: the next root metadata drops it and voids all that was signed before
    #[command(after_help = "\
Hosts that are connected refuse the key as soon as they have that root metadata, others when they come; until then they are
listed. Where that is too late, bring it to them: `serverflow root export FILE`, and there `serverflow-agent trust apply FILE`.

Example:
  serverflow key revoke command 5b0c1d…77 --emergency --key root.key.pem")]
    Revoke(Revoke),
}

/// The steps of a change of one of the control plane's own keys, for its help.
const STEPS: &str = "\
Steps: a new key is made; root metadata lists it, which root keys sign; all hosts take that; the new key is used; root
metadata drops the old one, which root keys sign; the old one is destroyed. With enough --key all of it happens at once;
without, each version of root metadata is written into a file to be signed elsewhere (`serverflow root sign`, `root apply`).
Run again, it goes on. Exit code 0 when the change is done, 1 when it waits for something.

Example:
  serverflow key rotate command --key root.key.pem     # one root key: all of it
  serverflow key rotate tls                            # several: writes root-vN.json to be signed; then again
  serverflow key rotate command --activate-anyway      # hosts that are away learn it when they come
  serverflow key rotate session --abort";

#[derive(Debug, Subcommand)]
pub(crate) enum Rotate {
    /// Give hosts new identity and sealing keys
    #[command(after_help = "Example:\n  serverflow key rotate agent web-1 web-2\n  \
        serverflow key rotate agent --all --wave 20   # every connected host, twenty at a time")]
    Agent(RotateAgent),
    /// Change the key that signs orders, without a gap
    #[command(after_help = STEPS)]
    Command(RotateOwn),
    /// Change the key that signs the control plane's hellos and receipts
    #[command(after_help = STEPS)]
    Session(RotateOwn),
    /// Change the key that signs heads of the audit log
    #[command(after_help = STEPS)]
    Audit(RotateOwn),
    /// Have the next TLS key take the place of the present one, with a further one published first
    #[command(after_help = STEPS)]
    Tls(RotateOwn),
}

#[derive(Debug, Args)]
pub(crate) struct RotateAgent {
    /// Hosts that get new keys
    #[arg(value_name = "HOST", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) hosts: Vec<HostName>,
    /// Every connected host, wave after wave; the first wave in which one fails is the last
    #[arg(long)]
    pub(crate) all: bool,
    /// So many hosts at a time
    #[arg(long, value_name = "COUNT", default_value_t = limits::ROTATION_WAVE,
        value_parser = clap::value_parser!(u32).range(1..=limits::ROTATION_WAVE_MAX))]
    pub(crate) wave: u32,
    /// How long the order may wait for a host that is away, up to 30d; 10m when absent
    #[arg(long, value_name = "SPAN", value_parser = spans::queue_seconds)]
    pub(crate) queue_for: Option<u64>,
}

/// A role whose stolen key root metadata shuts out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RevocableRole {
    Command,
}

#[derive(Debug, Args)]
pub(crate) struct RotateOwn {
    /// Give the change up before its new key is used
    #[arg(long, conflicts_with = "activate_anyway")]
    pub(crate) abort: bool,
    /// Use the new key now, though some hosts have not acknowledged it. They take it in root metadata when they come,
    /// before any order; until then nothing is lost, and nothing of them is known
    #[arg(long)]
    pub(crate) activate_anyway: bool,
    /// Drop the old command key though orders it signed may not have started; a host that drops it never starts them
    #[arg(long)]
    pub(crate) retire_anyway: bool,
    #[command(flatten)]
    pub(crate) signing: Signing,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Whose key: a TLS, session or audit key that was stolen is changed with `key rotate`; see docs/RECOVERY.md
    #[arg(value_enum)]
    pub(crate) role: RevocableRole,
    /// The key or its id, as `serverflow key list` shows it
    pub(crate) key: String,
    /// Say that this is what you want: orders that wait are void, and root metadata rises to the next epoch
    #[arg(long, required = true)]
    pub(crate) emergency: bool,
    #[command(flatten)]
    pub(crate) signing: Signing,
}

/// How the versions of root metadata get their signatures.
#[derive(Debug, Args)]
pub(crate) struct Signing {
    /// Sign with this root key at once; may be given more than once
    #[arg(long = "key", value_name = "KEYFILE")]
    pub(crate) keys: Vec<PathBuf>,
    /// File whose first line is a key's passphrase, in the order of the keys; `-` reads standard input. Asked for when absent
    #[arg(long = "passphrase-file", value_name = "FILE", requires = "keys")]
    pub(crate) passphrase_files: Vec<PathBuf>,
    /// File for root metadata that lacks signatures; `root-vN.json` when absent
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Wait so long for hosts, and for orders to start (90s, 5m, 1h)
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = wait_seconds)]
    pub(crate) wait: u64,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}
