//! The command line: nouns, verbs, flags, and an example for each.

mod action;
mod app;
mod approval;
mod audit;
mod choice;
mod command;
mod host;
mod key;
mod operation;
mod people;
mod recovery;
mod root;
mod secret;
mod standing;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ids::UserName;

pub(crate) use self::{
    action::{Action, Run},
    app::{App, AppFiles, Deploy, Lifecycle, Logs, Move, Rise},
    approval::{Approval, Approve, Approver, ApproverInit},
    audit::{Audit, Entries},
    choice::{Extent, Hosts, Period, SomeHosts},
    command::{Command, Commands},
    host::{AgentSource, Host, Quarantine, Retire},
    key::{Key, Revoke as KeyRevoke, Rotate, RotateAgent, RotateOwn, Signing as KeySigning},
    operation::{Operation, Operations},
    people::{NewPassword, Session, Token, User},
    recovery::{Claims, Confirm, Recovery},
    root::{Propose, Recovery as RootRecovery, Root, RootInit, RootSign},
    secret::{OwnerKey, Rewrap, Secret},
    standing::{Standing, StandingInstall},
};

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 the operation ended otherwise than well; 2 usage or invalid input; 3 not signed in or not allowed;
4 control plane not reachable; 130 interrupted (the operation goes on).

Environment: SERVERFLOW_URL, SERVERFLOW_CA, SERVERFLOW_TOKEN and SERVERFLOW_ROOT win over what `serverflow login` keeps.

Example:
  serverflow login https://fleet.example.org --user admin
  serverflow host enroll web-1 --role app
  serverflow app deploy -f compose.yaml --host web-1";

/// Heading of the flags of every command.
const GLOBAL: &str = "Global options";

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
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "URL", env = "SERVERFLOW_URL")]
    pub(crate) url: Option<String>,
    /// Trust this certificate, or this private authority, and no other (PEM); `login` remembers it
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "FILE", env = "SERVERFLOW_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Print exactly one JSON document and nothing else
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,
    /// When to use colours; NO_COLOR is honoured
    #[arg(long, global = true, help_heading = GLOBAL, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// Show no progress, only the end
    #[arg(short, long, global = true, help_heading = GLOBAL)]
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
        serverflow login https://192.0.2.7:8443 --user admin --ca people.cert.pem\n  \
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
    /// Deploy, list, stop, start and remove apps, and read their logs
    #[command(subcommand, after_help = "Example:\n  serverflow app deploy -f compose.yaml --host web-1")]
    App(App),
    /// List and run actions
    #[command(subcommand, after_help = "Example:\n  serverflow action run host.facts --host web-1")]
    Action(Action),
    /// List, show, watch and cancel commands
    #[command(subcommand, after_help = "Example:\n  serverflow command list --status running")]
    Command(Command),
    /// List, show and watch operations: what was asked for at once, on one host or many
    #[command(subcommand, after_help = "Example:\n  serverflow operation list --since 2h")]
    Operation(Operation),
    /// List, install and drop what hosts are to run by themselves at set times
    #[command(subcommand, after_help = "Example:\n  serverflow standing list")]
    Standing(Standing),
    /// Make and list the keys with which people approve
    #[command(subcommand, after_help = "Example:\n  serverflow approver init")]
    Approver(Approver),
    /// List, show, approve and refuse what waits for a second person
    #[command(subcommand, after_help = "Example:\n  serverflow approval list")]
    Approval(Approval),
    /// Read, verify and export the audit log
    #[command(
        subcommand,
        after_help = "Example:\n  serverflow audit export audit.json\n  serverflow audit verify audit.json --root root.pub"
    )]
    Audit(Audit),
    /// Make root keys, and show, propose, sign and apply root metadata
    #[command(subcommand, after_help = "Example:\n  serverflow root show")]
    Root(Root),
    /// Make the owner's recovery key, and seal stored secrets to the keys of today
    #[command(subcommand, after_help = "Example:\n  serverflow secret recovery-key --out owner.key.pem")]
    Secret(Secret),
    /// Bring a control plane that was restored from a backup to where it orders again
    #[command(subcommand, after_help = "Example:\n  serverflow recovery status")]
    Recovery(Recovery),
    /// List the control plane's own keys, rotate those and hosts', and shut out a stolen one
    #[command(subcommand, after_help = "Example:\n  serverflow key list")]
    Key(Key),
    /// Check the way to the control plane, the sign-in, versions, the root key and the hosts; say what to do
    #[command(after_help = "Example:\n  serverflow doctor")]
    Doctor,
    /// Make, change and delete accounts
    #[command(subcommand, after_help = "Example:\n  serverflow user create ada --role operator")]
    User(User),
    /// List and end sessions
    #[command(subcommand, after_help = "Example:\n  serverflow session list")]
    Session(Session),
    /// Make, list and revoke API tokens
    #[command(subcommand, after_help = "Example:\n  serverflow token create --name ci --role operator --ttl 90d")]
    Token(Token),
    /// Write shell completions and man pages
    #[command(subcommand, after_help = "Example:\n  serverflow generate completions --shell bash")]
    Generate(manual::Generate),
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
    /// File with the root's public key, which the fleet must have; when absent, the key it shows is trusted and kept
    #[arg(long, value_name = "FILE", env = "SERVERFLOW_ROOT")]
    pub(crate) root: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

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
        let command = manual::command::<Arguments>(manual::Section::User);
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
            "serverflow app deploy -f a.yaml -f b.yaml --host a --profile x --profile y --env-file a --env-file b",
            "serverflow app check -f a.yaml -f - --profile * --with-file ../c --json",
            "serverflow app logs shop --service web --tail 5 --host a",
            "serverflow app remove shop --host a --detach",
            "serverflow action run host.facts --host a --param k=v --param x= --params p.json --dry-run",
            "serverflow command list --host a --status rolled_back",
            "serverflow command list --sort -proposed_at --all",
            "serverflow command watch 018bcfe5-6800-7fff-bfff-ffffffffffff",
            "serverflow operation list --requested-by ada --since 2h --until 1h --limit 5 --sort created_at",
            "serverflow operation show 018bcfe5-6800-7fff-bfff-ffffffffffff",
            "serverflow operation watch 018bcfe5-6800-7fff-bfff-ffffffffffff",
            "serverflow approver init --out k --passphrase-file - --json",
            "serverflow approver list",
            "serverflow approval list --all",
            "serverflow approval show 018bcfe5-6800-7fff-bfff-ffffffffffff",
            "serverflow approval approve 018bcfe5-6800-7fff-bfff-ffffffffffff --key k --expires 2h --unbound --yes",
            "serverflow approval deny 018bcfe5-6800-7fff-bfff-ffffffffffff --because no --yes",
            "serverflow user list --role owner --status disabled --sort=-created_at",
            "serverflow session list --user ada --address 2001:db8::7 --limit 3",
            "serverflow token list --user ada --status revoked --all",
            "serverflow audit verify e --root r",
            "serverflow root init --threshold 2 --keys 3 --out keys",
            "serverflow root show",
            "serverflow root show f --json",
            "serverflow root propose --renew --key k --passphrase-file - --apply --yes",
            "serverflow root propose --from f --root-keys r --address a:1 --address b:2 --approvals-change 1 --out o",
            "serverflow root propose --raise-epoch --drop-command-key 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
            "serverflow root sign f --key k --root r",
            "serverflow root apply f --yes",
            "serverflow root export f",
            "serverflow key list --json",
            "serverflow key rotate command --key a --key b --passphrase-file c --passphrase-file d --wait 90s --yes",
            "serverflow key rotate tls --activate-anyway --out f",
            "serverflow key rotate session --abort",
            "serverflow key revoke command 3b6a27bcceb6a42d62a3a8d02a6f0d73 --emergency --key a",
            "serverflow user create ada --role operator --password-file -",
            "serverflow user role ada owner",
            "serverflow user password",
            "serverflow user password ada --ask --json",
            "serverflow session revoke --all --user ada",
            "serverflow token create --name ci --role viewer --ttl 90d",
            "serverflow token revoke 018bcfe5-6800-7fff-bfff-ffffffffffff",
            "serverflow generate completions --out d",
            "serverflow generate man --out d",
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
            ("serverflow generate completions", ErrorKind::MissingRequiredArgument),
            ("serverflow generate completions --out d --shell bash", ErrorKind::ArgumentConflict),
            ("serverflow command list --status done", ErrorKind::InvalidValue),
            ("serverflow command show 7", ErrorKind::ValueValidation),
            ("serverflow login x --password secret", ErrorKind::UnknownArgument),
            ("serverflow user create ada", ErrorKind::MissingRequiredArgument),
            ("serverflow user create ada --role king", ErrorKind::InvalidValue),
            ("serverflow user create ada --role viewer --password secret", ErrorKind::UnknownArgument),
            ("serverflow session revoke", ErrorKind::MissingRequiredArgument),
            ("serverflow session revoke 018bcfe5-6800-7fff-bfff-ffffffffffff --all", ErrorKind::ArgumentConflict),
            ("serverflow token create --ttl 367d", ErrorKind::ValueValidation),
            ("serverflow root init --keys 3", ErrorKind::MissingRequiredArgument),
            ("serverflow root init --keys 17 --threshold 1", ErrorKind::ValueValidation),
            ("serverflow root propose --add-approver 12", ErrorKind::ValueValidation),
            ("serverflow root propose --renew --apply", ErrorKind::MissingRequiredArgument),
            ("serverflow root propose --renew --apply --key k --from f", ErrorKind::ArgumentConflict),
            ("serverflow root sign f", ErrorKind::MissingRequiredArgument),
            (
                "serverflow approval approve 018bcfe5-6800-7fff-bfff-ffffffffffff --expires 31d",
                ErrorKind::ValueValidation,
            ),
            ("serverflow key rotate root", ErrorKind::InvalidSubcommand),
            ("serverflow key rotate command --abort --activate-anyway", ErrorKind::ArgumentConflict),
            ("serverflow key revoke command 3b", ErrorKind::MissingRequiredArgument),
            ("serverflow key revoke tls 3b --emergency", ErrorKind::InvalidValue),
            ("serverflow frobnicate", ErrorKind::InvalidSubcommand),
        ] {
            assert_eq!(parse(line).map(drop).map_err(|e| e.kind()), Err(kind), "{line}");
        }
    }
}
