//! `serverflow standing …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ids::{ActionName, HostName, StandingOrderId};

use super::{action::pair, choice::action_name};
use crate::spans;

#[derive(Debug, Subcommand)]
pub(crate) enum Standing {
    /// List standing orders, and why any of them is not what it should be
    #[command(after_help = "Example:\n  serverflow standing list\n  \
        serverflow standing list --json | jq -r '.[] | select(.outdated).standing_order_id'")]
    List,
    /// Have a host take a standing order: an action at set times
    #[command(
        after_help = "Example:\n  serverflow standing install app.restart --host web-1 --param app=shop \\\n    \
        --schedule '30 3 * * 1-5' --zone Europe/Zurich\n\nA host keeps it, verifies it, and says with `serverflow-agent status` why it would not run. The part of the agent that \
        runs it at its times comes with a later version."
    )]
    Install(StandingInstall),
    /// Have a host drop a standing order
    #[command(after_help = "Example:\n  serverflow standing drop web-1 0199aa11-2233-7445-8667-788990011223")]
    Drop {
        /// Name of the host
        host: HostName,
        /// The standing order, as `standing list` or the host's `serverflow-agent status` shows it
        standing_order: StandingOrderId,
        /// Do not wait for the end
        #[arg(long)]
        detach: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StandingInstall {
    /// Name of the action, such as app.restart
    #[arg(value_parser = action_name)]
    pub(crate) name: ActionName,
    /// The host
    #[arg(long, value_name = "NAME")]
    pub(crate) host: HostName,
    /// One parameter; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) parameters: Vec<(String, String)>,
    /// JSON file of parameters, for those that are lists or mappings; --param wins over it
    #[arg(long = "params", value_name = "FILE.json")]
    pub(crate) file: Option<PathBuf>,
    /// Five fields, as in crontab(5): minute, hour, day of the month, month, day of the week
    #[arg(long, value_name = "FIELDS")]
    pub(crate) schedule: String,
    /// Time zone that the schedule is meant in
    #[arg(long, value_name = "NAME", default_value = "UTC")]
    pub(crate) zone: String,
    /// How long it is valid, up to 399d; 365d when absent
    #[arg(long, value_name = "SPAN", value_parser = spans::standing_seconds)]
    pub(crate) valid_for: Option<u64>,
    /// How long it goes on when its host hears nothing of the control plane, up to 365d; 30d when absent
    #[arg(long, value_name = "SPAN", value_parser = spans::alone_seconds)]
    pub(crate) alone_for: Option<u64>,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) detach: bool,
}
