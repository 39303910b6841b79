//! `recovery …`

use clap::{Args, Subcommand};
use ids::HostName;

#[derive(Debug, Subcommand)]
pub(crate) enum Recovery {
    /// Say how far the recovery is, which hosts were heard, which are revoked, and what to do next
    #[command(after_help = "Example:\n  serverflow recovery status")]
    Status,
    /// Confirm which hosts are revoked; from then on orders go out again
    #[command(after_help = "Example:\n  serverflow recovery confirm --none\n  \
        serverflow recovery confirm --revoked web-3 --revoked db-1   # revoked after the backup was made")]
    Confirm(Confirm),
    /// Take hosts back that the backup does not know, or knows by older keys, and that showed who they are
    #[command(after_help = "Example:\n  serverflow recovery take web-9\n  \
        serverflow recovery take --all   # everything that `recovery status` lists")]
    Take(Claims),
    /// Refuse such hosts: one that the backup does not know is revoked, and of one that it knows the older keys go on counting
    #[command(after_help = "Example:\n  serverflow recovery refuse web-7   # it was revoked after the backup was made")]
    Refuse(Claims),
}

#[derive(Debug, Args)]
pub(crate) struct Claims {
    /// Names of the hosts as `recovery status` shows them, or their ids
    #[arg(value_name = "HOST", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) hosts: Vec<String>,
    /// All that wait
    #[arg(long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Confirm {
    /// Host that was revoked after the backup was made, and is revoked now; may be given more than once
    #[arg(long, value_name = "NAME", required_unless_present = "none", conflicts_with = "none")]
    pub(crate) revoked: Vec<HostName>,
    /// No host was revoked after the backup was made
    #[arg(long)]
    pub(crate) none: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}
