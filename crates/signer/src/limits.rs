//! Every bound of this room, in one place. Those that agents enforce as well are `envelope`'s:
//! a command's lifetime and the greatest jump of a sequence.

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
