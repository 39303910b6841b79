//! Structured log lines on standard error. Messages of other people's crates appear from warnings on
//! only, whatever the level: some of them would print what they send.

use tracing::Level;
use tracing_subscriber::{Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::cli::{LogFormat, LogLevel};

/// Targets of ours: the names of the libraries of this workspace.
const OURS: [&str; 10] =
    ["serverflow_agent", "actions", "envelope", "host", "ids", "journal", "keyfile", "link", "session", "wire"];

pub(crate) fn start(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let targets = Targets::new().with_default(level.min(Level::WARN)).with_targets(OURS.map(|target| (target, level)));
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = match format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            layer.with_target(false).with_ansi(colours).with_filter(targets).boxed()
        }
        LogFormat::Json => layer.json().flatten_event(true).with_filter(targets).boxed(),
    };
    tracing_subscriber::registry().with(layer).init();
}
