//! Every limit of this room. Those of single messages stand in `envelope::limits`.

use ids::DurationMs;

pub use envelope::limits::{RESULT_BYTES_MAX, RING_MAX};

/// Protocol versions both ends of this program speak, ascending.
pub const PROTOCOLS: [u32; 2] = [1, 2];
/// From this version on, heads of the audit log come with proofs, and the first comes before the first order.
pub const PROTOCOL_AUDIT_PROOFS: u32 = 2;
/// From this version on an agent says what became of an order whose key or epoch is void, if its number is used up there.
pub const PROTOCOL_VOID_ANSWERED: u32 = 2;
/// From this version on, a host's keys can be rotated.
pub const PROTOCOL_KEY_ROTATION: u32 = 2;
/// From this version on, a host's quarantine can be ended by a guard reset.
pub const PROTOCOL_GUARD_RESET: u32 = 2;
/// From this version on, a host says how far its clock is off.
pub const PROTOCOL_CLOCK: u32 = 2;
/// How long a host's keys are good for. At half of it the host makes new ones by itself.
pub const HOST_KEY_LIFETIME: DurationMs = DurationMs::from_days(90);
/// How much earlier or later than at half its life a key may be replaced, in percent of that half: which, rests on the
/// host's id and epoch, so that hosts enrolled together do not all change their keys at once.
pub const HOST_KEY_SPREAD_PERCENT: u64 = 10;
/// A key from farther ahead than this was taken under a clock that was wrong: it is replaced.
pub const HOST_KEY_AHEAD_MAX: DurationMs = DurationMs::from_days(1);
/// How often in a row a control plane may say that it stored this host's new keys and then refuse them, before the
/// agent takes them for somebody else's.
pub const NEXT_KEYS_REFUSED_MAX: u32 = 4;
/// From this version on, a host shows a restored control plane who it is.
pub const PROTOCOL_CREDENTIALS: u32 = 2;
/// Changes of a host's keys that are shown and looked at: more than sixty years of them, by themselves.
pub const KEY_CHANGES_SHOWN_MAX: usize = 512;
/// From this version on, agents judge approvals, and take commands that need them.
pub const PROTOCOL_APPROVALS: u32 = 2;

/// From a connection to the end of its authentication.
pub const AUTHENTICATION_MAX: DurationMs = DurationMs::from_secs(5);
/// From a connection to the receipt at enrolment: holds two waits for a disk as well.
pub const ENROLMENT_MAX: DurationMs = DurationMs::from_secs(15);
/// After this the agent ends its session and authenticates anew.
pub const RENEW_AFTER: DurationMs = DurationMs::from_mins(55);
/// After this the control plane ends a session that its agent did not renew.
pub const SESSION_MAX: DurationMs = DurationMs::from_mins(60);
/// How far wall clock and boot-time clock may drift apart in one session.
pub const CLOCK_DRIFT_MAX: DurationMs = DurationMs::from_secs(30);
/// How wrong the wall clock may be for destructive actions.
pub const CLOCK_SKEW_DESTRUCTIVE_MAX: DurationMs = DurationMs::from_mins(5);

/// Root metadata versions taken from one connection before its session is open.
pub const ROOT_CHAIN_PER_CONNECTION_MAX: usize = 256;
/// Frames held back while newer root metadata becomes durable or places are short.
pub const HELD_FRAMES_MAX: usize = 64;
/// Writes asked for and not yet durable, beyond which nothing is read.
pub const PENDING_WRITES_MAX: usize = 256;

/// Places for reports: stored ones, and one for each command that has no end yet.
pub const OUTBOX_PLACES_MAX: usize = 512;
/// Of those, kept for cancels and refusals.
pub const OUTBOX_PLACES_RESERVED: usize = 64;
/// Commands without an end.
pub const OPEN_MAX: usize = 256;
/// Runs of one command after its first, each because the agent's process ended during the one before. Enough
/// for any series of restarts that is about something else.
pub const RESUMPTIONS_MAX: u32 = 10;
/// Commands running under a lock at the same time.
pub const RUNNING_LOCKED_MAX: usize = 16;
/// Commands running without a lock at the same time.
pub const RUNNING_FREE_MAX: usize = 32;
/// How long used approvals are remembered after the last of them expired.
pub const BURNED_KEPT: DurationMs = DurationMs::from_days(30);
/// Operations whose used approvals are remembered, beyond which nothing more that needs approvals is accepted.
pub const BURNED_MAX: usize = 16_384;
/// Reports sent and not acknowledged in one session.
pub const REPORT_WINDOW_MAX: usize = 32;

/// One piece of output for whoever watches.
pub const PROGRESS_BYTES_MAX: usize = 16 * 1024;
/// One piece of a command's stream.
pub const OUTPUT_BYTES_MAX: usize = 16 * 1024;
/// Words for a person in a result made here.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// Standing orders of one host.
pub const STANDING_ORDERS_MAX: usize = 64;
/// Actions one agent may list.
pub const ACTIONS_COUNT_MAX: usize = 256;
/// Root metadata versions a control plane takes from one agent.
pub const ROOT_CHAIN_FROM_AGENT_MAX: usize = 64;

// The ring must be able to hold every command whose report is not settled, or a redelivered command
// could be met as a stranger.
const _: () = assert!(RING_MAX > OUTBOX_PLACES_MAX);
const _: () = assert!(OPEN_MAX + OUTBOX_PLACES_RESERVED <= OUTBOX_PLACES_MAX);
