//! `serverflow host …`

use clap::Subcommand;
use ids::{HostName, Role};

use crate::spans;

#[derive(Debug, Subcommand)]
pub(crate) enum Host {
    /// Make a join token for a new host
    #[command(after_help = "Example:\n  serverflow host enroll web-1 --ttl 1h --role app --role proxy\n  \
        serverflow host enroll web-1 --json | jq -r .token | ssh web-1 serverflow-agent enroll --token-file -")]
    Enroll {
        /// Name of the new host: lower-case letters, digits and hyphens
        name: HostName,
        /// How long the token may be used, up to 7d
        #[arg(long, value_name = "SPAN", default_value = "15m", value_parser = spans::token_seconds)]
        ttl: u64,
        /// What the host is for: app, database, backup, dns, mail or proxy; may be repeated
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<Role>,
    },
    /// List hosts
    #[command(after_help = "Example:\n  serverflow host list --json | jq -r '.[] | select(.status==\"offline\").name'")]
    List,
    /// Show one host
    #[command(after_help = "Example:\n  serverflow host show web-1")]
    Show {
        /// Name of the host
        name: HostName,
    },
    /// Shut a host out for good and cancel its queue
    #[command(after_help = "Example:\n  serverflow host revoke web-1 --yes")]
    Revoke {
        /// Name of the host
        name: HostName,
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
    },
}
