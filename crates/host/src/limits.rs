//! Every bound of this room: how long a call may take and how much an answer may hold.

use std::time::Duration;

/// Reading something small: inspect, list, version.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Changing something: create, rename, connect, tag, remove.
pub const CHANGE_TIMEOUT: Duration = Duration::from_secs(120);
/// Starting a container; volume plugins and slow disks included.
pub const START_TIMEOUT: Duration = Duration::from_secs(180);
/// What stopping may take on top of the grace period.
pub const STOP_MARGIN: Duration = Duration::from_secs(30);
/// Longest grace period, in milliseconds; a longer one is cut to it.
pub const STOP_GRACE_MS_MAX: u64 = 60 * 60 * 1000;
/// Pulls at the same time; further ones wait. Plans read, so many may run at once, and each may pull.
pub const PULLS_MAX: usize = 3;
/// A whole pull.
pub const PULL_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// A pull in which nothing is heard from the engine.
pub const PULL_SILENCE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Shortest time between two progress lines of one pull.
pub const PULL_PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Layers of one image whose progress is followed; the engine itself stops at 127.
pub const PULL_LAYERS_MAX: usize = 256;
/// Waiting for a container that the engine is still making under the same name.
pub const CREATION_WAIT: Duration = Duration::from_secs(120);
/// How often that is looked at.
pub const CREATION_POLL: Duration = Duration::from_millis(200);
/// Waiting for the engine to finish a removal that something else began.
pub const REMOVAL_WAIT: Duration = Duration::from_secs(30);
/// How often that is looked at.
pub const REMOVAL_POLL: Duration = Duration::from_millis(200);

/// Most bytes of one line of a log that is followed; the rest of the line is left out.
pub const LOG_LINE_BYTES_MAX: usize = 64 * 1024;
/// Most lines of one log answer.
pub const LOG_LINES_MAX: u32 = 10_000;
/// Most bytes of one log answer; older lines are left out first.
pub const LOG_BYTES_MAX: usize = 1024 * 1024;
/// Most containers, networks or volumes one app may have on a host.
pub const APP_THINGS_MAX: usize = 1_000;
/// Most containers listed of the whole engine; the newest are kept.
pub const CONTAINERS_MAX: i32 = 1_000;
/// Longest text of the engine carried into a message, in bytes.
pub const ENGINE_TEXT_MAX: usize = 2_000;
/// Longest name of a container, network or volume.
pub const NAME_LENGTH_MAX: usize = 255;
/// Longest image reference.
pub const IMAGE_LENGTH_MAX: usize = 512;
/// Longest text read from one file of the kernel or of the distribution.
pub const FACT_FILE_BYTES_MAX: u64 = 256 * 1024;
/// Largest Docker configuration file read for registry credentials.
pub const CREDENTIALS_BYTES_MAX: u64 = 1024 * 1024;
