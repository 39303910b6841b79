//! Every bound of this room, in one place. Those that agents enforce as well are `envelope`'s:
//! a command's lifetime and the greatest jump of a sequence.

use std::time::Duration;

use ids::DurationMs;

/// Requests waiting for the signer, and so the most that one write to disk covers.
pub const QUEUE_MAX: usize = 1024;
/// How far a command's `issued` may be from the signer's own clock, either way.
pub const ISSUED_SKEW_MAX: DurationMs = DurationMs::from_secs(30);

/// Commands one host may be given at once.
pub const COMMANDS_PER_HOST_BURST: u32 = 2_048;
/// Commands per second one host may be given for long.
pub const COMMANDS_PER_HOST_PER_SECOND: u32 = 128;
/// Session-opens one host may be given at once.
pub const OPENS_PER_HOST_BURST: u32 = 64;
/// Session-opens per second one host may be given for long.
pub const OPENS_PER_HOST_PER_SECOND: u32 = 1;
/// Hosts whose rates are remembered; above it, those that are at rest are forgotten.
pub const RATES_REMEMBERED_MAX: usize = 16_384;

/// Records of one frame of the state file.
pub const RECORDS_PER_FRAME_MAX: usize = QUEUE_MAX;
/// The state file is written anew when it is longer than this and mostly out of date.
pub const STATE_BYTES_BEFORE_REWRITE: u64 = 4 * 1024 * 1024;
/// "Mostly out of date": so many times as long as what it says.
pub const STATE_REWRITE_FACTOR: u64 = 4;
/// A state file longer than this is not read: no fleet writes one.
pub const STATE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Command keys held at once: as many as root metadata can list.
pub const KEYS_MAX: usize = envelope::limits::ONLINE_KEYS_COUNT_MAX;
/// The file with root metadata and the list of keys: the longest chain, in base64, with room to spare.
pub const TRUST_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The log is begun anew when it is as long as this.
pub const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Files of the log, the one being written among them; the oldest goes.
pub const LOG_FILES_MAX: u32 = 8;

/// A request or an answer on the socket.
pub const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Envelopes of root metadata in one request, together; a chain that is longer goes in several.
pub const CHAIN_PART_BYTES_MAX: usize = 1024 * 1024;
/// What a request counts at least among those that are not answered yet.
pub const FRAME_BYTES_MIN: usize = 4 * 1024;
/// Bytes of requests of one connection that are not answered yet; above it, the connection is not read.
pub const UNANSWERED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Connections at a time; one above it is closed.
pub const CONNECTIONS_MAX: usize = 8;
/// Time for the rest of a frame once it has begun, and for an answer to be taken.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a request waits for a signer that is away, before it is answered that it is.
pub const AWAY_PATIENCE: Duration = Duration::from_secs(3);
/// First wait before a signer that is away is dialled again; doubles up to [`REDIAL_MAX`].
pub const REDIAL_FIRST: Duration = Duration::from_millis(20);
/// Longest such wait.
pub const REDIAL_MAX: Duration = Duration::from_secs(1);
/// How often a signer is asked how it stands.
pub const STANDING_INTERVAL: Duration = Duration::from_secs(2);
/// Time for that answer, before it counts as one that does not answer.
pub const STANDING_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a signer that could not write tries again.
pub const MEND_INTERVAL: Duration = Duration::from_secs(2);
