//! `serverflow command …`

use api::CommandStatus;
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use ids::{ActionName, AppName, CommandId, HostName, OperationId, UserName};

use super::{Extent, Period, choice::action_name};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List commands, newest first
    #[command(after_help = "Example:\n  serverflow command list --host web-1 --status failed --since 2h")]
    List(Commands),
    /// Show one command: the signed order, the signed report, and what verified them
    #[command(after_help = "Example:\n  serverflow command show 018bcfe5-6800-7fff-bfff-ffffffffffff")]
    Show {
        /// Id of the command
        id: CommandId,
    },
    /// Follow one command to its end
    #[command(after_help = "Example:\n  serverflow command watch 018bcfe5-6800-7fff-bfff-ffffffffffff")]
    Watch {
        /// Id of the command
        id: CommandId,
    },
    /// Stop one command; what it had changed is put back
    #[command(after_help = "Example:\n  serverflow command cancel 018bcfe5-6800-7fff-bfff-ffffffffffff")]
    Cancel {
        /// Id of the command
        id: CommandId,
    },
}

/// Which commands to list.
#[derive(Debug, Args)]
pub(crate) struct Commands {
    /// Only of this host
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<HostName>,
    /// Only with this status
    #[arg(long, value_parser = status())]
    pub(crate) status: Option<CommandStatus>,
    /// Only about this app
    #[arg(long, value_name = "APP")]
    pub(crate) app: Option<AppName>,
    /// Only of this action, such as app.deploy
    #[arg(long, value_name = "ACTION", value_parser = action_name)]
    pub(crate) action: Option<ActionName>,
    /// Only of this operation
    #[arg(long, value_name = "ID")]
    pub(crate) operation: Option<OperationId>,
    /// Only those this account asked for
    #[arg(long, value_name = "NAME")]
    pub(crate) requested_by: Option<UserName>,
    #[command(flatten)]
    pub(crate) period: Period,
    #[command(flatten)]
    pub(crate) extent: Extent,
}

fn status() -> impl TypedValueParser<Value = CommandStatus> {
    PossibleValuesParser::new(CommandStatus::ALL.map(CommandStatus::as_str)).try_map(|word| {
        CommandStatus::ALL.into_iter().find(|status| status.as_str() == word).ok_or("not a command's status")
    })
}
