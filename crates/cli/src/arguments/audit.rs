//! `serverflow audit …`

use std::path::PathBuf;

use clap::Subcommand;

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
