//! `serverflow host …`

use api::HostStatus;
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use ids::{AppName, HostName, LabelKey, LabelValue, QuarantineId, Role, Sha256};

use super::{Extent, choice::label_change};
use crate::{host::status_word, spans};

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
    #[command(
        after_help = "Example:\n  serverflow host list --json | jq -r '.[] | select(.status==\"offline\").name'\n  \
        serverflow host list --status connected --label env=prod --role app"
    )]
    List(HostChoice),
    /// Give a host another name; its agent, its apps and its history stay its own
    #[command(after_help = "Example:\n  serverflow host rename web-1 web-old")]
    Rename {
        /// Name of the host
        name: HostName,
        /// Its new name
        new: HostName,
    },
    /// Set labels of a host, or take them away
    #[command(after_help = "Example:\n  serverflow host label web-1 env=prod zone=eu-1 spot-")]
    Label {
        /// Name of the host
        name: HostName,
        /// KEY=VALUE sets a label, KEY- takes it away
        #[arg(value_name = "KEY=VALUE|KEY-", required = true, allow_hyphen_values = false, value_parser = label_change)]
        labels: Vec<(LabelKey, Option<LabelValue>)>,
    },
    /// Show one host
    #[command(after_help = "Example:\n  serverflow host show web-1")]
    Show {
        /// Name of the host
        name: HostName,
    },
    /// See which hosts are in quarantine and why, and lead them out
    #[command(subcommand, after_help = "Example:\n  serverflow host quarantine list")]
    Quarantine(Quarantine),
    /// Have a host leave the fleet: its agent drops its orders and secrets, reports, and ends; its containers run on
    #[command(after_help = "Example:\n  serverflow host retire web-1 --dry-run\n  serverflow host retire web-1")]
    Retire(Retire),
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

#[derive(Debug, Args)]
pub(crate) struct Retire {
    /// Name of the host
    pub(crate) name: HostName,
    /// Ask the host what it would do, and change nothing
    #[arg(long, conflicts_with = "detach")]
    pub(crate) dry_run: bool,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) detach: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// Hosts that get no orders, because their state and the control plane's disagree
    #[command(after_help = "Example:\n  serverflow host quarantine list --json | jq -r '.[].name'")]
    List,
    /// Let a host come back: it gets new keys, and what is not known to have ended is not run again
    #[command(after_help = "Example:\n  serverflow host quarantine release web-1\n  \
        serverflow host quarantine release web-1 --quarantine 0199c1e2-7a4b-7c1d-8e2f-3a4b5c6d7e8f --yes")]
    Release {
        /// Name of the host
        name: HostName,
        /// Which machine's, if several say that they are this host
        #[arg(long, value_name = "ID")]
        quarantine: Option<QuarantineId>,
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
    },
}

/// Which hosts to list.
#[derive(Debug, Args)]
pub(crate) struct HostChoice {
    /// Only with this status
    #[arg(long, value_parser = status())]
    pub(crate) status: Option<HostStatus>,
    /// Only with this role; may be repeated, and all must hold
    #[arg(long = "role", value_name = "ROLE")]
    pub(crate) roles: Vec<Role>,
    /// Only with this label, KEY or KEY=VALUE; may be repeated, and all must hold
    #[arg(long = "label", value_name = "LABEL")]
    pub(crate) labels: Vec<String>,
    /// Only those that it selects: role=app,env=prod,env!=old,gpu,!spot
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Only those that carry this app
    #[arg(long, value_name = "APP")]
    pub(crate) app: Option<AppName>,
    #[command(flatten)]
    pub(crate) extent: Extent,
}

impl HostChoice {
    /// Roles, labels and selector as one selector.
    pub(crate) fn selector(&self) -> Option<String> {
        let roles = self.roles.iter().map(|role| format!("role={role}"));
        let parts: Vec<String> = roles.chain(self.labels.iter().cloned()).chain(self.selector.clone()).collect();
        (!parts.is_empty()).then(|| parts.join(","))
    }
}

const STATUSES: [HostStatus; 4] =
    [HostStatus::Connected, HostStatus::Offline, HostStatus::Quarantined, HostStatus::Revoked];

fn status() -> impl TypedValueParser<Value = HostStatus> {
    PossibleValuesParser::new(STATUSES.map(status_word))
        .try_map(|word| STATUSES.into_iter().find(|status| status_word(*status) == word).ok_or("not a host's status"))
}
