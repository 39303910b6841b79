//! `serverflow approver …` and `serverflow approval …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ids::OperationId;

use super::Extent;
use crate::spans;

#[derive(Debug, Subcommand)]
pub(crate) enum Approver {
    /// Make your approver key on this machine, encrypted with a passphrase, and register it with your account
    #[command(after_help = "Example:\n  serverflow approver init")]
    Init(ApproverInit),
    /// List approver keys: whose they are, and whether they count
    #[command(after_help = "Example:\n  serverflow approver list")]
    List,
}

#[derive(Debug, Args)]
pub(crate) struct ApproverInit {
    /// File to write; beside the session when absent. It must not exist yet
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// File whose first line is the passphrase; `-` reads standard input. Made here and shown once when absent
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Approval {
    /// List what waits for approval
    #[command(after_help = "Example:\n  serverflow approval list")]
    List {
        #[command(flatten)]
        extent: Extent,
    },
    /// Show what an operation would do on each host, as the hosts themselves have signed it
    #[command(after_help = "Example:\n  serverflow approval show 018bcfe5-6800-7fff-bfff-ffffffffffff")]
    Show {
        /// Id of the operation
        id: OperationId,
    },
    /// Approve an operation with your approver key, after showing what it would do
    #[command(after_help = "Example:\n  serverflow approval approve 018bcfe5-6800-7fff-bfff-ffffffffffff")]
    Approve(Approve),
    /// Refuse an operation: what waits of it ends
    #[command(after_help = "Example:\n  \
        serverflow approval deny 018bcfe5-6800-7fff-bfff-ffffffffffff --because 'not before the backup'")]
    Deny {
        /// Id of the operation
        id: OperationId,
        /// Why, for whoever asked
        #[arg(long, value_name = "TEXT", default_value = "")]
        because: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Approve {
    /// Id of the operation
    pub(crate) id: OperationId,
    /// Your approver key's file; that of `approver init` when absent
    #[arg(long, value_name = "KEYFILE")]
    pub(crate) key: Option<PathBuf>,
    /// File whose first line is the key's passphrase; `-` reads standard input. Asked for when absent
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// How long the approval holds, such as 2h, at most 30d; until an hour after the order's own time when absent
    #[arg(long, value_name = "SPAN", value_parser = spans::approval_seconds)]
    pub(crate) expires: Option<u64>,
    /// Approve it even if a host comes to another plan by then: for what looks another way each time, such as a container
    /// that keeps crashing
    #[arg(long)]
    pub(crate) unbound: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}
