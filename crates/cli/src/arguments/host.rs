//! `serverflow host …`

use clap::{Args, Subcommand};
use ids::{HostName, Role, Sha256};

use crate::spans;

/// Where a machine gets the agent, and which.
#[derive(Debug, Args)]
pub(crate) struct AgentSource {
    /// Address under which the machine reaches the control plane, if it is not the one used here
    #[arg(long, value_name = "URL")]
    pub(crate) from: Option<String>,
    /// Print nothing unless the agent served for some processor has this SHA-256, which you know from elsewhere
    #[arg(long, value_name = "SHA256")]
    pub(crate) agent_sha256: Option<Sha256>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Host {
    /// Print the lines that make a machine a host: fetch the agent, check it, install it, enrol
    #[command(after_help = "Example:\n  serverflow host enroll web-1 --ttl 1h --role app --role proxy\n  \
        serverflow host enroll web-1 --json | jq -r .install | ssh root@web-1 sh\n  \
        serverflow host enroll web-1 --token-only --json | jq -r .token | ssh web-1 serverflow-agent enroll --token-file -")]
    Enroll {
        /// Name of the new host: lower-case letters, digits and hyphens
        name: HostName,
        /// How long the token may be used, up to 7d
        #[arg(long, value_name = "SPAN", default_value = "15m", value_parser = spans::token_seconds)]
        ttl: u64,
        /// What the host is for: app, database, backup, dns, mail or proxy; may be repeated
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<Role>,
        /// Print a join token alone, for a machine that has the agent
        #[arg(long)]
        token_only: bool,
        #[command(flatten)]
        source: AgentSource,
    },
    /// Print the lines that upgrade the agent of an enrolled host to the one the control plane serves
    #[command(after_help = "Example:\n  serverflow host upgrade web-1\n  \
        serverflow host upgrade web-1 --json | jq -r .install | ssh root@web-1 sh")]
    Upgrade {
        /// Name of the host
        name: HostName,
        #[command(flatten)]
        source: AgentSource,
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
