//! Every bound and wait of this program, in one place.

use std::time::Duration;

/// Longest wait for a connection to the control plane.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a whole answer.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for the whole audit log.
pub(crate) const EXPORT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Longest silence on a stream of events before it counts as broken. The control plane sends a
/// comment far more often.
pub(crate) const EVENTS_SILENCE_MAX: Duration = Duration::from_secs(60);

/// How often a request that may be repeated is sent.
pub(crate) const ATTEMPTS_MAX: u32 = 5;
/// First wait before something is tried again; doubles up to [`BACKOFF_MAX`].
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// Longest such wait.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(4);
/// How long a watched operation is looked for when the control plane does not answer.
pub(crate) const AWAY_MAX: Duration = Duration::from_secs(5 * 60);

/// Bytes of one answer.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes read of an exported audit log.
pub(crate) const EXPORT_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Bytes of an audit log that is fetched to be verified; a longer one is exported to a file first.
pub(crate) const EXPORT_FETCHED_BYTES_MAX: usize = 2 * 1024 * 1024 * 1024;
/// Bytes of one event.
pub(crate) const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of a password.
pub(crate) const PASSWORD_BYTES_MAX: usize = 1024;
/// Bytes of the session file.
pub(crate) const SESSION_FILE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a file of trusted certificates: one authority or a few. Less than the session file, which keeps it.
pub(crate) const CA_FILE_BYTES_MAX: usize = 48 * 1024;
/// Characters of a processor's name.
pub(crate) const ARCHITECTURE_BYTES_MAX: usize = 32;
/// Bytes of a `.env` file.
pub(crate) const ENV_FILE_BYTES_MAX: usize = compose::limits::FILE_BYTES_MAX;
/// Bytes of a file of parameters: more than an order may carry, so that the control plane's own
/// message about that is seen.
pub(crate) const PARAMETERS_FILE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of the root's public key file.
pub(crate) const ROOT_FILE_BYTES_MAX: usize = 4 * 1024;

/// Rest of a sign-in below which `doctor` warns.
pub(crate) const SESSION_WARN: ids::DurationMs = ids::DurationMs::from_secs(24 * 60 * 60);
/// Root metadata that expires within this span is warned of by `doctor`.
pub(crate) const ROOT_EXPIRY_WARN: ids::DurationMs = ids::DurationMs::from_days(60);
/// Clocks of hosts that are farther off than this are shown and warned of.
pub(crate) const CLOCK_SKEW_WARN: ids::DurationMs = ids::DurationMs::from_secs(30);
/// Hosts that a finding of `doctor` names; of more, it says how many.
pub(crate) const DOCTOR_NAMES_MAX: usize = 5;
/// Items of one page of a list, as the control plane has it.
pub(crate) const PAGE_ITEMS_MAX: usize = 500;
/// Approvals of one request, as the control plane takes them.
pub(crate) const APPROVALS_PER_REQUEST_MAX: usize = 500;
/// Hosts asked about at once.
pub(crate) const HOSTS_AT_ONCE: usize = 8;
/// Most hosts for which each plan is printed while a deploy goes on.
pub(crate) const PLANS_SHOWN_HOSTS_MAX: usize = 10;

/// How often a change of a key is looked at while it is followed.
pub(crate) const KEY_CHANGE_LOOK: Duration = Duration::from_millis(500);
/// How long connected hosts are given to take the root metadata that shuts a stolen key out, before those that have not are named.
pub(crate) const KEY_REVOKED_LOOK: Duration = Duration::from_secs(10);
/// Seconds that a change of a key is followed at most: 7 days.
pub(crate) const KEY_CHANGE_SECONDS_MAX: u64 = 7 * 24 * 60 * 60;

/// Seconds a join token lives at least.
pub(crate) const TOKEN_SECONDS_MIN: u64 = 10;
/// Seconds a join token may live at most: 7 days.
pub(crate) const TOKEN_SECONDS_MAX: u64 = 7 * 24 * 60 * 60;
/// Seconds an API token lives at least.
pub(crate) const API_TOKEN_SECONDS_MIN: u64 = 60;
/// Seconds an API token may live at most: 366 days.
pub(crate) const API_TOKEN_SECONDS_MAX: u64 = 366 * 24 * 60 * 60;
/// Seconds an order may wait for its host at most: 30 days.
pub(crate) const QUEUE_SECONDS_MAX: u64 = 30 * 24 * 60 * 60;
/// Seconds an order that people must approve waits for its host, unless it is said otherwise: a day.
pub(crate) const APPROVAL_QUEUE_SECONDS: u64 = 24 * 60 * 60;
/// Longest validity of a standing order that can be asked for.
pub(crate) const STANDING_SECONDS_MAX: u64 = 399 * 24 * 60 * 60;
/// Seconds back that followed logs may begin at most: 7 days.
pub(crate) const SINCE_SECONDS_MAX: u64 = 7 * 24 * 60 * 60;
/// How long Ctrl-C waits to learn how what was followed stands.
pub(crate) const LAST_LOOK: Duration = Duration::from_secs(2);
/// Seconds that reading logs waits for a host that is away.
pub(crate) const LOGS_QUEUE_SECONDS: u64 = 30;
/// How long `host quarantine release` waits for the host to come back.
pub(crate) const RELEASE_WAIT: Duration = Duration::from_secs(90);
/// Hosts that get new keys at a time, unless it is said otherwise.
pub(crate) const ROTATION_WAVE: u32 = 50;
/// Hosts that may get new keys at a time.
pub(crate) const ROTATION_WAVE_MAX: i64 = 500;
