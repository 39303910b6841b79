//! Every bound of this room, in one place.

use ids::DurationMs;

pub use envelope::limits::{
    PARAMETERS_BYTES_MAX, SEAL_OVERHEAD_BYTES, SEALED_COUNT_MAX, SEALED_NAME_BYTES_MAX, SEALED_TOTAL_BYTES_MAX,
    SECRET_BYTES_MAX,
};

/// Entries of one answer of a list.
pub const LIST_MAX: u32 = 500;

/// Bytes of a selector of hosts.
pub const SELECTOR_BYTES_MAX: usize = 1_024;
/// Parts of a selector of hosts.
pub const SELECTOR_PARTS_MAX: usize = 16;
/// Labels of one host.
pub const LABELS_PER_HOST_MAX: usize = 64;

/// Hosts of one operation.
pub const TARGETS_MAX: usize = 10_000;
/// Most commands of one host that may wait or be under way; a session holds all of them in memory.
pub const OPEN_PER_HOST_MAX: u32 = 1_000;

/// Accounts of a fleet; deleted ones do not count.
pub const USERS_MAX: usize = 1_000;
/// Sessions of one account; a sign-in beyond it ends the oldest.
pub const SESSIONS_PER_USER_MAX: u32 = 100;
/// API tokens of one account that are taken.
pub const API_TOKENS_PER_USER_MAX: u32 = 100;
/// API tokens of one account that are kept for its list though they ended.
pub const API_TOKENS_ENDED_KEPT_MAX: u32 = 100;
/// How long an API token lives, unless someone says otherwise.
pub const API_TOKEN_LIFETIME_DEFAULT: DurationMs = DurationMs::from_days(30);
/// Shortest life of an API token.
pub const API_TOKEN_LIFETIME_MIN: DurationMs = DurationMs::from_mins(1);
/// Longest life of an API token.
pub const API_TOKEN_LIFETIME_MAX: DurationMs = DurationMs::from_days(366);
/// Characters of an API token's name.
pub const API_TOKEN_NAME_CHARS_MAX: usize = 64;
/// The use of an API token is noted once in this time at most.
pub const API_TOKEN_USE_NOTED_PER: DurationMs = DurationMs::from_mins(60);

/// How long a command key or a session key is used before its rotation is advised.
pub const SIGNING_KEY_PERIOD: DurationMs = DurationMs::from_days(180);
/// The same of an audit key and of a TLS key, whose rotation costs more and wins less.
pub const LONG_KEY_PERIOD: DurationMs = DurationMs::from_days(365);
/// A change of a key that stands still for so long is said to be stuck.
pub const KEY_CHANGE_STUCK: DurationMs = DurationMs::from_days(1);
/// After a key was activated, an order may still be on its way that the one before it signed.
pub const KEY_ACTIVATION_SLACK: DurationMs = DurationMs::from_secs(30);
/// Changes of keys that one answer tells of.
pub const KEY_CHANGES_MAX: u32 = 64;

/// How long an order may wait for its host, unless the person says otherwise: a forgotten order
/// must not fire three weeks later.
pub const QUEUE_FOR_DEFAULT: DurationMs = DurationMs::from_mins(10);
/// The same for an order that people must approve first: they may not be there.
pub const QUEUE_FOR_APPROVAL_DEFAULT: DurationMs = DurationMs::from_days(1);
/// Least time a person may ask for.
pub const QUEUE_FOR_MIN: DurationMs = DurationMs::from_secs(1);
/// Greatest time a person may ask for.
pub const QUEUE_FOR_MAX: DurationMs = DurationMs::from_days(30);
/// How long an accepted order may wait for its lock, from its sealing on.
pub const START_WITHIN: DurationMs = envelope::limits::START_WITHIN_MAX;
/// From sealing to the end of acceptance.
pub const SEAL_LIFETIME: DurationMs = envelope::limits::COMMAND_LIFETIME_MAX;

/// Commands sent on one session and not yet acknowledged.
pub const UNACKNOWLEDGED_MAX: usize = 32;
/// Cancellations that may be sent on top of those, so that a full window can still be stopped.
pub const UNACKNOWLEDGED_CANCELS_MAX: usize = 4;
/// Signed commands waiting for their transaction.
pub const SIGNED_WAITING_MAX: usize = 4;
/// A host's clock is noted again when it is off by so much more or less than before.
pub const CLOCK_SKEW_NEWS: DurationMs = DurationMs::from_secs(1);
/// Frames taken from the stream and not yet dealt with; above it, the stream is not read.
pub const FRAMES_WAITING_MAX: usize = 16;
/// Transactions a session may have waiting that no frame count bounds.
pub const WRITES_WAITING_MAX: usize = 64;
/// Boot ids kept of a host: enough to see two of them take turns.
pub const BOOTS_KEPT: usize = 2;

/// Bytes of one progress text that is passed on; the rest is cut.
pub const PROGRESS_BYTES_MAX: usize = 4 * 1024;
/// Progress texts passed on per session and second; more are dropped.
pub const PROGRESS_PER_SECOND_MAX: u32 = 50;
/// Characters of a message kept with a command.
pub const MESSAGE_CHARS_MAX: usize = 2_000;

/// Approver keys of one account: a person counts once.
pub const APPROVER_KEYS_PER_USER_MAX: usize = 1;
/// Bytes of the approvals of one command together: they travel in one frame with it and its sealed values.
pub const APPROVALS_BYTES_MAX: usize = 256 * 1024;
/// How long a standing order is valid, unless somebody says otherwise.
pub const STANDING_VALID_DEFAULT: DurationMs = DurationMs::from_days(365);
/// Longest validity that may be asked for: a little less than what may be signed, because the signer's clock decides.
pub const STANDING_VALID_MAX: DurationMs = DurationMs::from_days(399);
/// How long a standing order goes on after its host's last session, unless somebody says otherwise.
pub const ALONE_FOR_DEFAULT: DurationMs = DurationMs::from_days(30);
/// After a renewal of a standing order that came to nothing, the next attempt waits so long.
pub const STANDING_RENEWAL_RETRY: DurationMs = DurationMs::from_mins(60);
/// Standing orders of one host that are kept on record; those that were dropped or refused give way.
pub const STANDING_PER_HOST_MAX: usize = session::limits::STANDING_ORDERS_MAX;
/// Characters of the reason given with a denial.
pub const BECAUSE_CHARS_MAX: usize = 500;

/// First wait before the store or the signer is tried again; doubles up to [`RETRY_MAX`].
pub const RETRY_FIRST: DurationMs = DurationMs(250);
/// Longest such wait.
pub const RETRY_MAX: DurationMs = DurationMs::from_secs(30);
/// Hosts that wait, after a restore from a backup, to be taken back by what they brought.
pub const RECOVERY_CLAIMS_MAX: u64 = 10_000;
