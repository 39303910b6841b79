//! `serverflow action …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ids::ActionName;

use super::{Hosts, choice::action_name};
use crate::spans;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// List the actions the control plane knows
    #[command(after_help = "Example:\n  serverflow action list")]
    List,
    /// Show one action and its parameters
    #[command(after_help = "Example:\n  serverflow action show app.logs")]
    Show {
        /// Name of the action, such as host.facts
        #[arg(value_parser = action_name)]
        name: ActionName,
    },
    /// Run one action on one or more hosts
    #[command(after_help = "Example:\n  serverflow action run host.facts --host web-1\n  \
        serverflow action run app.logs --host web-1 --param app=shop --param tail=20")]
    Run(Run),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Name of the action, such as host.facts
    #[arg(value_parser = action_name)]
    pub(crate) name: ActionName,
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    /// One parameter; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) parameters: Vec<(String, String)>,
    /// JSON file of parameters, for those that are lists or mappings; --param wins over it
    #[arg(long = "params", value_name = "FILE.json")]
    pub(crate) file: Option<PathBuf>,
    /// Ask what it would do, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) detach: bool,
    /// How long the order may wait for a host that is away, up to 30d; 10m when absent
    #[arg(long, value_name = "SPAN", value_parser = spans::queue_seconds)]
    pub(crate) queue_for: Option<u64>,
}

pub(super) fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE"),
    }
}
