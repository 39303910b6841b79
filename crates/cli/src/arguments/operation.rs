//! `serverflow operation …`

use clap::{Args, Subcommand};
use ids::{OperationId, UserName};

use super::{Extent, Period};

#[derive(Debug, Subcommand)]
pub(crate) enum Operation {
    /// List operations, newest first
    #[command(after_help = "Example:\n  serverflow operation list --requested-by ada --since 2h")]
    List(Operations),
    /// Show one operation: how each host stands
    #[command(after_help = "Example:\n  serverflow operation show 018bcfe5-6800-7fff-bfff-ffffffffffff")]
    Show {
        /// Id of the operation
        id: OperationId,
    },
    /// Follow one operation to its end, on every host
    #[command(after_help = "Example:\n  serverflow operation watch 018bcfe5-6800-7fff-bfff-ffffffffffff")]
    Watch {
        /// Id of the operation
        id: OperationId,
    },
}

/// Which operations to list.
#[derive(Debug, Args)]
pub(crate) struct Operations {
    /// Only those this account asked for
    #[arg(long, value_name = "NAME")]
    pub(crate) requested_by: Option<UserName>,
    #[command(flatten)]
    pub(crate) period: Period,
    #[command(flatten)]
    pub(crate) extent: Extent,
}
