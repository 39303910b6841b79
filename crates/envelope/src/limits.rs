//! Every limit of this room. Bytes unless a name says otherwise.

use ids::DurationMs;

/// A whole envelope, before anything in it is read: parameters, names of sealed values, the rest.
pub const ENVELOPE_BYTES_MAX: usize = 512 * 1024;
/// A message that brings its own key: its size is bounded before that key is read from it.
pub const SELF_SIGNED_BYTES_MAX: usize = 1024;
/// An agent's hello.
pub const AGENT_HELLO_BYTES_MAX: usize = 2048;
/// An order's parameters.
pub const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
/// A report's result.
pub const RESULT_BYTES_MAX: usize = 256 * 1024;
/// The name of a payload type.
pub const PAYLOAD_TYPE_BYTES_MAX: usize = 128;

/// Signatures on root metadata: those of its own keys and of the version before.
pub const SIGNATURES_COUNT_MAX: usize = 32;
/// Root keys of one version. Two versions' keys fit into [`SIGNATURES_COUNT_MAX`].
pub const ROOT_KEYS_COUNT_MAX: usize = 16;
/// Session keys, and command keys.
pub const ONLINE_KEYS_COUNT_MAX: usize = 16;
/// Approver keys.
pub const APPROVER_KEYS_COUNT_MAX: usize = 1024;
/// Owner recovery keys.
pub const RECOVERY_KEYS_COUNT_MAX: usize = 16;
/// TLS pins. At least [`TLS_PINS_COUNT_MIN`].
pub const TLS_PINS_COUNT_MAX: usize = 16;
/// The pin in use and the next one.
pub const TLS_PINS_COUNT_MIN: usize = 2;
/// Addresses of the agents' listener.
pub const ADDRESSES_COUNT_MAX: usize = 16;
/// One `host:port`.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// How long root metadata is valid from its issue on, when it is made here.
pub const ROOT_LIFETIME: DurationMs = DurationMs::from_days(400);
/// Versions of root metadata held at once.
pub const ROOT_CHAIN_COUNT_MAX: usize = 1024;

/// Roles of one host.
pub const ROLES_COUNT_MAX: usize = 6;
/// Protocol versions an agent offers.
pub const PROTOCOLS_COUNT_MAX: usize = 32;
/// The agent program's version, as text.
pub const AGENT_VERSION_BYTES_MAX: usize = 64;
/// Sealed values of one order.
pub const SEALED_COUNT_MAX: usize = 512;
/// The name of a sealed value.
pub const SEALED_NAME_BYTES_MAX: usize = 256;
/// One value before it is sealed. Linux takes no longer string in an environment or argv
/// (`MAX_ARG_STRLEN`).
pub const SECRET_BYTES_MAX: usize = 128 * 1024;
/// What sealing adds: the encapsulated key (32) and the tag (16).
pub const SEAL_OVERHEAD_BYTES: usize = 48;
/// The private key of a recovery copy, sealed: 32 bytes and what sealing adds.
pub const RECOVERY_WRAPPED_BYTES: usize = 32 + SEAL_OVERHEAD_BYTES;
/// All sealed values of one order together.
pub const SEALED_TOTAL_BYTES_MAX: usize = 1024 * 1024;
/// The app's name in a sealed value's context.
pub const SEAL_APP_BYTES_MAX: usize = 64;

/// A join token's text.
pub const TOKEN_TEXT_BYTES_MAX: usize = 1024;

/// Longest wait of an accepted command for its start.
pub const START_WITHIN_MAX: DurationMs = DurationMs::from_mins(60);
/// Longest time between a command's `not_before` and `expires`.
pub const COMMAND_LIFETIME_MAX: DurationMs = DurationMs::from_mins(5);
/// How far a command's `not_before` may lie ahead of the agent's clock.
pub const CLOCK_SKEW_MAX: DurationMs = DurationMs::from_secs(30);
/// Longest life of an approval.
pub const APPROVAL_LIFETIME_MAX: DurationMs = DurationMs::from_days(30);
/// How far ahead an approval may be dated: clocks of people's machines are off.
pub const APPROVAL_AHEAD_MAX: DurationMs = DurationMs::from_mins(5);
/// Approvals that travel with one order.
pub const APPROVALS_COUNT_MAX: usize = 16;
/// Longest validity of a standing order, from its signature on.
pub const STANDING_LIFETIME_MAX: DurationMs = DurationMs::from_days(400);
/// Longest time a standing order may run without its host having a session.
pub const ALONE_FOR_MAX: DurationMs = DurationMs::from_days(365);
/// A standing order's schedule.
pub const SCHEDULE_BYTES_MAX: usize = 256;
/// The name of a time zone.
pub const ZONE_BYTES_MAX: usize = 64;
/// Commands the replay guard remembers.
pub const RING_MAX: usize = 1024;
/// Farthest jump of a command's sequence that is not an attack.
pub const SEQUENCE_JUMP_MAX: u64 = 1 << 32;
/// Farthest jump of a standing order's revision that is not an attack.
pub const REVISION_JUMP_MAX: u64 = 1 << 32;
