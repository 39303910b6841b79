//! `serverflow key …`

use clap::{Args, Subcommand};
use ids::HostName;

use crate::{limits, spans};

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Put new keys in the place of those in use
    #[command(subcommand, after_help = "Example:\n  serverflow key rotate agent web-1")]
    Rotate(Rotate),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rotate {
    /// Give hosts new identity and sealing keys
    #[command(after_help = "Example:\n  serverflow key rotate agent web-1 web-2\n  \
        serverflow key rotate agent --all --wave 20   # every connected host, twenty at a time")]
    Agent(RotateAgent),
}

#[derive(Debug, Args)]
pub(crate) struct RotateAgent {
    /// Hosts that get new keys
    #[arg(value_name = "HOST", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) hosts: Vec<HostName>,
    /// Every connected host, wave after wave; the first wave in which one fails is the last
    #[arg(long)]
    pub(crate) all: bool,
    /// So many hosts at a time
    #[arg(long, value_name = "COUNT", default_value_t = limits::ROTATION_WAVE,
        value_parser = clap::value_parser!(u32).range(1..=limits::ROTATION_WAVE_MAX))]
    pub(crate) wave: u32,
    /// How long the order may wait for a host that is away, up to 30d; 10m when absent
    #[arg(long, value_name = "SPAN", value_parser = spans::queue_seconds)]
    pub(crate) queue_for: Option<u64>,
}
