//! `serverflow app …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ids::{AppName, HostName, ServiceName};

use super::{Extent, Hosts, OwnerKey, SomeHosts};
use crate::spans;

#[derive(Debug, Subcommand)]
pub(crate) enum App {
    /// Deploy Compose files to one or more hosts
    #[command(
        after_help = "Variables of the files (${A:-b}) are taken from the process environment, then from `.env` \
        beside the first file.\nEvery environment value is sealed to its host before it leaves this machine.\n\n\
        Example:\n  serverflow app deploy -f compose.yaml --host web-1 --dry-run\n  \
        TAG=1.4 serverflow app deploy -f compose.yaml --host web-1 --host web-2 --queue-for 1h\n  \
        serverflow app deploy -f compose.yaml --host web-1 --healthy-within 5m --min-healthy 30s"
    )]
    Deploy(Deploy),
    /// Read Compose files as a deploy would, and send nothing
    ///
    /// Shows everything that is wrong with them at once, and what a host's default policy would refuse.
    /// Nobody has to be signed in.
    #[command(after_help = "Example:\n  serverflow app check -f compose.yaml\n  \
        serverflow app check -f compose.yaml -f production.yaml --profile metrics --json")]
    Check(AppFiles),
    /// List apps and where they run
    #[command(after_help = "Example:\n  serverflow app list --host web-1")]
    List {
        /// Only those on this host
        #[arg(long, value_name = "HOST")]
        host: Option<HostName>,
        #[command(flatten)]
        extent: Extent,
    },
    /// Show one app
    #[command(after_help = "Example:\n  serverflow app show shop")]
    Show {
        /// Name of the app
        app: AppName,
    },
    /// Stop an app, and keep it stopped
    #[command(after_help = "A stopped app stays stopped across a reboot of its host, until `app start` or the next \
        deploy.\n\nExample:\n  serverflow app stop shop\n  serverflow app stop shop --service worker --host web-2")]
    Stop(Lifecycle),
    /// Start an app that was stopped, and wait until it is healthy
    #[command(
        after_help = "Example:\n  serverflow app start shop\n  serverflow app start shop --healthy-within 5m\n  \
        serverflow app start shop --dry-run"
    )]
    Start(Rise),
    /// Stop an app's containers and start them again
    #[command(after_help = "Example:\n  serverflow app restart shop --service web")]
    Restart(Rise),
    /// Print an app's last log lines, or follow them
    #[command(
        after_help = "With --follow and --json, each line is a document of its own; the last one is the end.\n\n\
        Example:\n  serverflow app logs shop --service web --tail 50\n  serverflow app logs shop -f --since 10m"
    )]
    Logs(Logs),
    /// Bring an app to another host, with its secrets, and take it away where it was
    ///
    /// The release that runs is deployed to the other host: the same specification, the same images, the same secrets,
    /// which the owner's recovery key opens on this machine and nowhere else. When it is healthy there, it is removed
    /// where it was. Data in volumes and on the old host's disk stays there.
    #[command(
        after_help = "Example:\n  serverflow app move shop --to web-2 --recovery-key owner.key.pem --dry-run\n  \
        serverflow app move shop --to web-2 --recovery-key owner.key.pem --keep   # runs on both\n  \
        serverflow app move shop --from dead --to web-2 --recovery-key owner.key.pem --leave-data"
    )]
    Move(Move),
    /// Remove an app from its hosts; its volumes stay
    #[command(after_help = "Example:\n  serverflow app remove shop --host web-2")]
    Remove {
        /// Name of the app
        app: AppName,
        #[command(flatten)]
        hosts: SomeHosts,
        /// Do not wait for the end
        #[arg(long)]
        detach: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Name of the app
    pub(crate) app: AppName,
    /// Go on with what is written, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only this service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<ServiceName>,
    /// Lines per service, counted from the end, up to 2000
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub(crate) tail: Option<u32>,
    /// With --follow: of those, only what was written in the last so long, up to 7d
    #[arg(long, value_name = "SPAN", value_parser = spans::since_seconds, requires = "follow")]
    pub(crate) since: Option<u64>,
    #[command(flatten)]
    pub(crate) hosts: SomeHosts,
}

#[derive(Debug, Args)]
pub(crate) struct Lifecycle {
    /// Name of the app
    pub(crate) app: AppName,
    /// Only this service; may be repeated
    #[arg(long = "service", value_name = "NAME")]
    pub(crate) services: Vec<ServiceName>,
    #[command(flatten)]
    pub(crate) hosts: SomeHosts,
    /// Show what would happen, and do nothing
    #[arg(long, conflicts_with = "detach")]
    pub(crate) dry_run: bool,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) detach: bool,
}

/// An order after which services run.
#[derive(Debug, Args)]
pub(crate) struct Rise {
    #[command(flatten)]
    pub(crate) order: Lifecycle,
    /// Within this time every service must be healthy, or all is as it was; 1s to 20m, 2m when absent
    #[arg(long, value_name = "SPAN", value_parser = spans::healthy_within_seconds)]
    pub(crate) healthy_within: Option<u64>,
}

/// The files of an app, and how they are read.
#[derive(Debug, Args)]
pub(crate) struct AppFiles {
    /// Compose file; `-` reads standard input. May be repeated: each is merged over those before it
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Name of the app; wins over the file's `name` and its folder's name
    #[arg(long, value_name = "APP")]
    pub(crate) name: Option<AppName>,
    /// Services of this profile take part as well; `*` for all. May be repeated; COMPOSE_PROFILES when absent
    #[arg(long = "profile", value_name = "PROFILE")]
    pub(crate) profiles: Vec<String>,
    /// File of variables instead of `.env` beside the first Compose file; may be repeated, later ones win
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,
    /// File outside of the first Compose file's folder that the Compose files may read; may be repeated
    #[arg(long = "with-file", value_name = "FILE")]
    pub(crate) with_files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    #[command(flatten)]
    pub(crate) files: AppFiles,
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    /// Show what would change, and change nothing
    #[arg(long, conflicts_with = "detach")]
    pub(crate) dry_run: bool,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) detach: bool,
    /// How long the order may wait for a host that is away, up to 30d; 10m when absent
    #[arg(long, value_name = "SPAN", value_parser = spans::queue_seconds)]
    pub(crate) queue_for: Option<u64>,
    /// Within this time every service must be healthy, or all is put back; 1s to 20m, 2m when absent
    #[arg(long, value_name = "SPAN", value_parser = spans::healthy_within_seconds)]
    pub(crate) healthy_within: Option<u64>,
    /// How long each service must stay healthy before it counts, up to 10m; 2s when absent
    #[arg(long, value_name = "SPAN", value_parser = spans::min_healthy_seconds)]
    pub(crate) min_healthy: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Move {
    /// Name of the app
    pub(crate) app: AppName,
    /// Host to bring it to
    #[arg(long, value_name = "HOST")]
    pub(crate) to: HostName,
    /// Host to take it from, which may be gone; needed when it is on several
    #[arg(long, value_name = "HOST")]
    pub(crate) from: Option<HostName>,
    #[command(flatten)]
    pub(crate) owner: OwnerKey,
    /// Show what would change on the other host, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Leave it running where it was as well
    #[arg(long)]
    pub(crate) keep: bool,
    /// Go on though the app has volumes or host directories: what is in them stays where it was
    #[arg(long)]
    pub(crate) leave_data: bool,
}
