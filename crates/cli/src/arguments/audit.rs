//! `serverflow audit …`

use std::path::PathBuf;

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use envelope::audit::AuditKind;

use super::{Extent, Period};

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List the entries of the audit log
    #[command(after_help = "Example:\n  serverflow audit list --limit 20\n  \
        serverflow audit list --actor ada --since 7d --all")]
    List(Entries),
    /// Verify the whole audit log on this machine, with the root's public key alone
    #[command(after_help = "Example:\n  serverflow audit verify audit.json --root root.pub   # needs no network\n  \
        serverflow audit verify --root root.pub              # what the control plane says now")]
    Verify {
        /// Export to verify, as `audit export` wrote it; `-` reads standard input. Without it the control plane is asked
        /// for one
        file: Option<PathBuf>,
        /// File with the root's public key in hexadecimal; SERVERFLOW_ROOT when absent
        #[arg(long, value_name = "FILE", env = "SERVERFLOW_ROOT")]
        root: Option<PathBuf>,
    },
    /// Write everything an offline verifier needs into a file
    #[command(after_help = "Example:\n  serverflow audit export audit.json")]
    Export {
        /// File to write; it must not exist yet. `-` writes to standard output
        file: PathBuf,
    },
}

fn kinds() -> impl Iterator<Item = &'static str> {
    AuditKind::ALL.iter().map(|kind| kind.as_str())
}

/// Which entries to list.
#[derive(Debug, Args)]
pub(crate) struct Entries {
    /// First entry to show, counted from 0; the latest ones when absent
    #[arg(long, value_name = "INDEX", conflicts_with_all = ["kind", "actor", "since", "until"])]
    pub(crate) first: Option<u64>,
    /// Only of this kind
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(kinds()))]
    pub(crate) kind: Option<String>,
    /// Only of this actor: an account's name, host:NAME, or control-plane
    #[arg(long, value_name = "ACTOR")]
    pub(crate) actor: Option<String>,
    #[command(flatten)]
    pub(crate) period: Period,
    #[command(flatten)]
    pub(crate) extent: Extent,
}
