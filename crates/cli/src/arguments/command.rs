//! `serverflow command …`

use api::CommandStatus;
use clap::{
    Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use ids::{CommandId, HostName};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List commands, newest first
    #[command(after_help = "Example:\n  serverflow command list --host web-1 --status failed")]
    List {
        /// Only of this host
        #[arg(long, value_name = "HOST")]
        host: Option<HostName>,
        /// Only with this status
        #[arg(long, value_parser = status())]
        status: Option<CommandStatus>,
    },
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

fn status() -> impl TypedValueParser<Value = CommandStatus> {
    PossibleValuesParser::new(CommandStatus::ALL.map(CommandStatus::as_str)).try_map(|word| {
        CommandStatus::ALL.into_iter().find(|status| status.as_str() == word).ok_or("not a command's status")
    })
}
