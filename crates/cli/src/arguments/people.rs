//! `serverflow user …`, `session …`, `token …`

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use ids::{ApiTokenId, SessionId, UserName};

use super::Extent;
use crate::spans;

const ROLES: [&str; 4] = ["viewer", "operator", "admin", "owner"];

/// Where a new password comes from; never from the command line, where others could read it.
#[derive(Debug, Args)]
pub(crate) struct NewPassword {
    /// File whose first line is the new password; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "ask")]
    pub(crate) password_file: Option<PathBuf>,
    /// Ask for the new password on the terminal, instead of making one
    #[arg(long)]
    pub(crate) ask: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// List the accounts
    #[command(after_help = "Example:\n  serverflow user list --role admin --status active")]
    List {
        /// Only with this role
        #[arg(long, value_name = "ROLE", value_parser = PossibleValuesParser::new(ROLES))]
        role: Option<String>,
        /// Only with this status
        #[arg(long, value_parser = PossibleValuesParser::new(["active", "disabled"]))]
        status: Option<String>,
        #[command(flatten)]
        extent: Extent,
    },
    /// Show one account
    #[command(after_help = "Example:\n  serverflow user show ada")]
    Show {
        /// Name of the account
        name: UserName,
    },
    /// Make an account; its password is made here and shown once, unless a file or you give it
    #[command(after_help = "Example:\n  serverflow user create ada --role operator\n  \
        serverflow user create ada --role operator --password-file -   # from standard input")]
    Create {
        /// Name of the account
        name: UserName,
        /// What it may do: each role may do all that those before it may
        #[arg(long, value_name = "ROLE", value_parser = PossibleValuesParser::new(ROLES))]
        role: String,
        #[command(flatten)]
        password: NewPassword,
    },
    /// Give an account another role
    #[command(after_help = "Example:\n  serverflow user role ada admin")]
    Role {
        /// Name of the account
        name: UserName,
        /// The role it gets
        #[arg(value_name = "ROLE", value_parser = PossibleValuesParser::new(ROLES))]
        role: String,
    },
    /// Set the password of your account, or of another; every session of it ends
    #[command(
        after_help = "Example:\n  serverflow user password              # your own: asks for the old and the new one\n  \
        serverflow user password ada          # another's: makes one and shows it once"
    )]
    Password {
        /// Name of the account; your own when absent
        name: Option<UserName>,
        #[command(flatten)]
        password: NewPassword,
        /// File whose first line is your present password; asked for when absent
        #[arg(long, value_name = "FILE")]
        old_password_file: Option<PathBuf>,
    },
    /// Shut an account: its sessions end, and its tokens are refused until it is enabled
    #[command(after_help = "Example:\n  serverflow user disable ada")]
    Disable {
        /// Name of the account
        name: UserName,
    },
    /// Open an account that was disabled
    #[command(after_help = "Example:\n  serverflow user enable ada")]
    Enable {
        /// Name of the account
        name: UserName,
    },
    /// Remove an account for good, with its sessions and tokens; its name is not given again
    #[command(after_help = "Example:\n  serverflow user delete ada --yes")]
    Delete {
        /// Name of the account
        name: UserName,
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Session {
    /// List open sessions
    #[command(after_help = "Example:\n  serverflow session list --user ada --address 192.0.2.7")]
    List {
        /// Of this account; your own when absent
        #[arg(long, value_name = "NAME")]
        user: Option<UserName>,
        /// Only those that came from this address
        #[arg(long, value_name = "ADDRESS")]
        address: Option<IpAddr>,
        #[command(flatten)]
        extent: Extent,
    },
    /// End one session, or all
    #[command(after_help = "Example:\n  serverflow session revoke 018bcfe5-6800-7fff-bfff-ffffffffffff\n  \
        serverflow session revoke --all --user ada")]
    Revoke {
        /// Id of the session
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<SessionId>,
        /// Every session, this one too
        #[arg(long)]
        all: bool,
        /// With --all: of this account; your own when absent
        #[arg(long, value_name = "NAME", requires = "all")]
        user: Option<UserName>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make an API token of your account; it is shown once
    #[command(after_help = "Example:\n  serverflow token create --name ci --role operator --ttl 90d\n  \
        SERVERFLOW_TOKEN=$(serverflow token create --role viewer --json | jq -r .token) serverflow host list")]
    Create {
        /// What it is for
        #[arg(long, default_value = "")]
        name: String,
        /// The most it may do; your own role when absent
        #[arg(long, value_name = "ROLE", value_parser = PossibleValuesParser::new(ROLES))]
        role: Option<String>,
        /// How long it is taken, up to 366d; 30d when absent
        #[arg(long, value_name = "SPAN", value_parser = spans::api_token_seconds)]
        ttl: Option<u64>,
    },
    /// List API tokens
    #[command(after_help = "Example:\n  serverflow token list --status active --sort expires_at")]
    List {
        /// Of this account; your own when absent
        #[arg(long, value_name = "NAME")]
        user: Option<UserName>,
        /// Only with this status
        #[arg(long, value_parser = PossibleValuesParser::new(["active", "expired", "revoked", "disabled"]))]
        status: Option<String>,
        #[command(flatten)]
        extent: Extent,
    },
    /// End an API token at once
    #[command(after_help = "Example:\n  serverflow token revoke 018bcfe5-6800-7fff-bfff-ffffffffffff")]
    Revoke {
        /// Id of the token
        id: ApiTokenId,
    },
}
