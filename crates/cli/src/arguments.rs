//! The command line: nouns, verbs, flags, and an example for each.

use std::path::PathBuf;

use api::CommandStatus;
use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use ids::{ActionName, AppName, CommandId, HostName, Role, ServiceName, UserName};

use crate::spans;

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 the operation ended otherwise than well; 2 usage or invalid input; 3 not signed in or not allowed;
4 control plane not reachable; 130 interrupted (the operation goes on).

Environment: SERVERFLOW_URL, SERVERFLOW_TOKEN and SERVERFLOW_ROOT win over what `serverflow login` keeps.

Example:
  serverflow login https://fleet.example.org --user admin
  serverflow host enroll web-1 --role app
  serverflow app deploy -f compose.yaml --host web-1";

/// Orders a fleet of servers: every order signed, every result signed.
#[derive(Debug, Parser)]
#[command(name = "serverflow", version, arg_required_else_help = true, after_help = EXIT_CODES, max_term_width = 120)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) noun: Noun,
}

/// Flags of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Address of the control plane
    #[arg(long, global = true, value_name = "URL", env = "SERVERFLOW_URL")]
    pub(crate) url: Option<String>,
    /// Print exactly one JSON document and nothing else
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colours; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// Show no progress, only the end
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// Sign in and remember the session
    #[command(after_help = "Example:\n  serverflow login https://fleet.example.org --user admin\n  \
        serverflow login http://127.0.0.1:8080 --user admin --password-file -   # from standard input")]
    Login(Login),
    /// Sign out and forget the session
    #[command(after_help = "Example:\n  serverflow logout")]
    Logout,
    /// Show who is signed in, and where
    #[command(after_help = "Example:\n  serverflow whoami --json")]
    Whoami,
    /// Enrol, list and revoke hosts
    #[command(subcommand, after_help = "Example:\n  serverflow host list")]
    Host(Host),
    /// Deploy, list and remove apps, and read their logs
    #[command(subcommand, after_help = "Example:\n  serverflow app deploy -f compose.yaml --host web-1")]
    App(App),
    /// List and run actions
    #[command(subcommand, after_help = "Example:\n  serverflow action run host.facts --host web-1")]
    Action(Action),
    /// List, show, watch and cancel commands
    #[command(subcommand, after_help = "Example:\n  serverflow command list --status running")]
    Command(Command),
    /// Read, verify and export the audit log
    #[command(subcommand, after_help = "Example:\n  serverflow audit verify")]
    Audit(Audit),
    /// Print this program's version
    #[command(after_help = "Example:\n  serverflow version --json")]
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Address of the control plane: https, or http to this machine
    #[arg(value_name = "URL")]
    pub(crate) address: String,
    /// Account name; asked for when absent
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<UserName>,
    /// File whose first line is the password; `-` reads standard input. Asked for when absent
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

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

#[derive(Debug, Subcommand)]
pub(crate) enum App {
    /// Deploy a Compose file to one or more hosts
    #[command(after_help = "Variables of the file (${A:-b}) are taken from the process environment, then from `.env` \
        beside the file.\nEvery environment value is sealed to its host before it leaves this machine.\n\n\
        Example:\n  serverflow app deploy -f compose.yaml --host web-1 --dry-run\n  \
        TAG=1.4 serverflow app deploy -f compose.yaml --host web-1 --host web-2 --queue-for 1h")]
    Deploy(Deploy),
    /// List apps and where they run
    #[command(after_help = "Example:\n  serverflow app list")]
    List,
    /// Show one app
    #[command(after_help = "Example:\n  serverflow app show shop")]
    Show {
        /// Name of the app
        app: AppName,
    },
    /// Print an app's last log lines
    #[command(after_help = "Example:\n  serverflow app logs shop --service web --tail 50")]
    Logs {
        /// Name of the app
        app: AppName,
        /// Only this service
        #[arg(long, value_name = "NAME")]
        service: Option<ServiceName>,
        /// Lines per service, counted from the end, up to 2000
        #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(1..=2000))]
        tail: Option<u32>,
        /// Only from this host; may be repeated
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<HostName>,
    },
    /// Remove an app from its hosts; its volumes stay
    #[command(after_help = "Example:\n  serverflow app remove shop --host web-2")]
    Remove {
        /// Name of the app
        app: AppName,
        /// Only from this host; may be repeated
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<HostName>,
        /// Do not wait for the end
        #[arg(long)]
        detach: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// Compose file; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Host to deploy to; may be repeated
    #[arg(long = "host", value_name = "HOST", required = true)]
    pub(crate) hosts: Vec<HostName>,
    /// Name of the app; wins over the file's `name` and its folder's name
    #[arg(long, value_name = "APP")]
    pub(crate) name: Option<AppName>,
    /// Show what would change, and change nothing
    #[arg(long, conflicts_with = "detach")]
    pub(crate) dry_run: bool,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) detach: bool,
    /// How long the order may wait for a host that is away, up to 30d; 10m when absent
    #[arg(long, value_name = "SPAN", value_parser = spans::queue_seconds)]
    pub(crate) queue_for: Option<u64>,
    /// File of variables instead of `.env` beside the Compose file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// List the actions the control plane knows
    #[command(after_help = "Example:\n  serverflow action list")]
    List,
    /// Show one action and its parameters
    #[command(after_help = "Example:\n  serverflow action show app.logs")]
    Show {
        /// Name of the action, such as host.facts
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
    pub(crate) name: ActionName,
    /// Host to run it on; may be repeated
    #[arg(long = "host", value_name = "HOST", required = true)]
    pub(crate) hosts: Vec<HostName>,
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

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List the entries of the audit log
    #[command(after_help = "Example:\n  serverflow audit list --limit 20")]
    List {
        /// First entry to show, counted from 0; the latest ones when absent
        #[arg(long, value_name = "INDEX")]
        first: Option<u64>,
        /// How many entries to show
        #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Verify the whole audit log on this machine, with the root's public key alone
    #[command(after_help = "Example:\n  serverflow audit verify --root root.pub\n  \
        serverflow audit verify --root root.pub --export audit.json   # without the control plane")]
    Verify {
        /// File with the root's public key in hexadecimal; SERVERFLOW_ROOT when absent
        #[arg(long, value_name = "FILE", env = "SERVERFLOW_ROOT")]
        root: Option<PathBuf>,
        /// Verify this export instead of asking the control plane
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
    },
    /// Write everything an offline verifier needs into a file
    #[command(after_help = "Example:\n  serverflow audit export audit.json")]
    Export {
        /// File to write; it must not exist yet. `-` writes to standard output
        file: PathBuf,
    },
}

fn status() -> impl TypedValueParser<Value = CommandStatus> {
    PossibleValuesParser::new(CommandStatus::ALL.map(CommandStatus::as_str)).try_map(|word| {
        CommandStatus::ALL.into_iter().find(|status| status.as_str() == word).ok_or("not a command's status")
    })
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE"),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound_and_every_command_shows_an_example() {
        fn walk(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example:\n  "), "{} has no example", command.get_name());
            command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(walk);
        }
        let command = Arguments::command();
        command.clone().debug_assert();
        walk(&command);
    }

    #[test]
    fn commands_as_the_documents_write_them_are_understood() {
        for line in [
            "serverflow login http://127.0.0.1:8080 --user admin --password-file -",
            "serverflow host enroll web-1 --ttl 15m --role app --role dns --json",
            "serverflow --json host list",
            "serverflow host revoke web-1 --yes",
            "serverflow app deploy -f compose.yaml --name sample --host local",
            "serverflow app deploy -f c.yaml --host a --host b --dry-run --queue-for 1h --env-file x.env",
            "serverflow app logs shop --service web --tail 5 --host a",
            "serverflow app remove shop --host a --detach",
            "serverflow action run host.facts --host a --param k=v --param x= --params p.json --dry-run",
            "serverflow command list --host a --status rolled_back",
            "serverflow command watch 018bcfe5-6800-7fff-bfff-ffffffffffff",
            "serverflow audit verify --root r --export e",
            "serverflow audit export - --quiet --color never --url https://x",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_with_the_rule() {
        for (line, kind) in [
            ("serverflow host enroll Web", ErrorKind::ValueValidation),
            ("serverflow host enroll web --ttl 8d", ErrorKind::ValueValidation),
            ("serverflow host enroll web --role king", ErrorKind::ValueValidation),
            ("serverflow app deploy -f c.yaml", ErrorKind::MissingRequiredArgument),
            ("serverflow app deploy -f c.yaml --host a --dry-run --detach", ErrorKind::ArgumentConflict),
            ("serverflow app logs shop --tail 0", ErrorKind::ValueValidation),
            ("serverflow action run facts --host a", ErrorKind::ValueValidation),
            ("serverflow action run host.facts --host a --param =v", ErrorKind::ValueValidation),
            ("serverflow command list --status done", ErrorKind::InvalidValue),
            ("serverflow command show 7", ErrorKind::ValueValidation),
            ("serverflow login x --password secret", ErrorKind::UnknownArgument),
            ("serverflow frobnicate", ErrorKind::InvalidSubcommand),
        ] {
            assert_eq!(parse(line).map(drop).map_err(|e| e.kind()), Err(kind), "{line}");
        }
    }
}
