//! Every bound of the agent's own, in one place. Those of messages, sessions and actions stand in
//! their rooms.

use std::time::Duration;

use ids::DurationMs;

/// Bytes read of a token file or standard input.
pub(crate) const TOKEN_FILE_BYTES_MAX: u64 = 4096;
/// Bytes read of a JSON file in the state directory.
pub(crate) const STATE_FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Frames waiting to be sent in one connection, beyond which it counts as broken.
pub(crate) const OUTGOING_FRAMES_MAX: usize = 1024;
/// Frames received and not yet handed to the loop; HTTP/2 holds back the rest.
pub(crate) const INCOMING_FRAMES_MAX: usize = 4;
/// How long a connection that is being closed may take to send what is queued.
pub(crate) const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// Wait before dialling again when the control plane said that this host is unknown or revoked. That
/// word is not signed, so whoever stole a TLS key could say it: the agent asks again, rarely.
pub(crate) const STAY_AWAY: DurationMs = DurationMs::from_mins(15);
/// Longest sleep of the loop, so that a suspended machine or a jumping clock is noticed.
pub(crate) const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Events of running commands waiting for the loop.
pub(crate) const EXECUTOR_EVENTS_MAX: usize = 64;
/// Output is gathered this long before it is handed on.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Output of one command waiting to be handed on; the oldest is dropped beyond it.
pub(crate) const PROGRESS_PENDING_BYTES_MAX: usize = 64 * 1024;
/// Records of a stream waiting to be sent; the oldest are left out beyond it.
pub(crate) const STREAM_PENDING_BYTES_MAX: usize = 256 * 1024;
/// Time in which what is left of a stream at its end is sent; the rest is left out.
pub(crate) const STREAM_DRAIN: Duration = Duration::from_secs(3);
/// Pieces of streams waiting behind everything else that is to be sent.
pub(crate) const OUTPUT_FRAMES_MAX: usize = 8;
/// Lines of followed logs handed to an action at once.
pub(crate) const LOG_BATCH_MAX: usize = 256;
/// What an action that changes something may take beyond its own time limit before it is stopped hard:
/// putting back has its own patience, and each container its grace.
pub(crate) const TIMEOUT_MARGIN: DurationMs = DurationMs::from_mins(180);

/// Time for pending writes to become durable at the end of the process.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// Shortest time between two writes of the status file when only numbers changed.
pub(crate) const STATUS_INTERVAL: DurationMs = DurationMs(500);

/// How often the status file is written anew while standing orders are in it: time alone may end one.
pub(crate) const STANDING_LOOK: DurationMs = DurationMs::from_secs(60);
/// Wall clock off by more than this: `doctor` warns. Commands are judged by the control plane's
/// time, so nothing breaks; times in logs and records are wrong.
pub(crate) const SKEW_WARN: DurationMs = DurationMs::from_secs(30);
/// Free bytes below which `doctor` warns, and below which it calls the disk full.
pub(crate) const DISK_WARN_BYTES: u64 = 1024 * 1024 * 1024;
pub(crate) const DISK_FAIL_BYTES: u64 = 64 * 1024 * 1024;
/// Free inodes below which `doctor` warns, and below which it calls the file system full.
pub(crate) const INODES_WARN: u64 = 50_000;
pub(crate) const INODES_FAIL: u64 = 1_000;
/// Longest look-up of a name by `doctor`.
pub(crate) const LOOK_UP_MAX: Duration = Duration::from_secs(5);
/// Root metadata that expires within this span is warned of.
pub(crate) const ROOT_EXPIRY_WARN: DurationMs = DurationMs::from_days(60);
/// Threads for what blocks: look-ups of names, facts of the host.
pub(crate) const BLOCKING_THREADS_MAX: usize = 4;

/// Seconds for which `install` waits for a session of the agent it started, unless it is told otherwise.
pub(crate) const SESSION_PATIENCE_SECONDS: u64 = 60;
/// How often the status file is looked at meanwhile.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Time for a running agent to end when it is asked to, and when it is killed.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(15);
pub(crate) const KILL_GRACE: Duration = Duration::from_secs(5);
/// The log of an agent without a service manager begins anew at its start once it is larger.
pub(crate) const DETACHED_LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Requests on the agent's own socket waiting for the loop.
pub(crate) const HANDED_MAX: usize = 4;
/// Time for one such request and its answer.
pub(crate) const HANDED_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of such a request or answer: a chain as the file has it.
pub(crate) const HANDED_BYTES_MAX: u64 = envelope::root::FILE_BYTES_MAX as u64;
/// Pause after a connection to that socket could not be accepted.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Sealing keys of this host, the newest first, that a sealed value is tried with.
pub(crate) const SEALING_KEYS_MAX: usize = 64;
