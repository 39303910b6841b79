//! Limits on frames, checked before anything in them is looked at.

/// Largest encoded frame, in bytes: a command (256 KiB of parameters) with its sealed values.
pub const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most root metadata envelopes in one frame: as many as a control plane sends at once.
pub const ROOT_CHAIN_MAX: usize = session::limits::ROOT_CHAIN_PER_CONNECTION_MAX;
/// Bytes of the envelopes of one exchange of root metadata; the rest comes in the next one.
pub const ROOTS_BYTES_MAX: usize = FRAME_BYTES_MAX - 256 * 1024;
/// Largest envelope, in bytes.
pub const ENVELOPE_BYTES_MAX: usize = 512 * 1024;
/// Largest encoded hello, in bytes.
pub const HELLO_BYTES_MAX: usize = 4 * 1024;
/// Most actions an agent may list.
pub const ACTIONS_MAX: usize = 512;
/// Most sealed values beside one command.
pub const SEALED_VALUES_MAX: usize = 1024;
/// Most approvals beside one command.
pub const APPROVALS_MAX: usize = envelope::limits::APPROVALS_COUNT_MAX;
/// Largest sealed value, in bytes.
pub const SEALED_VALUE_BYTES_MAX: usize = envelope::limits::SECRET_BYTES_MAX + envelope::limits::SEAL_OVERHEAD_BYTES;
/// Longest name of a sealed value, in bytes.
pub const SEALED_NAME_BYTES_MAX: usize = 256;
/// Most hashes of a proof of consistency: as many as a log of 2^64 entries needs.
pub const CONSISTENCY_HASHES_MAX: usize = 64;
/// Largest piece of progress text, in bytes.
pub const PROGRESS_BYTES_MAX: usize = 16 * 1024;
/// Largest piece of a command's stream, in bytes.
pub const OUTPUT_BYTES_MAX: usize = session::limits::OUTPUT_BYTES_MAX;
/// Longest message of a refusal, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 2 * 1024;
/// Bytes of a stream's encoding buffer, and of the steps in which its buffers grow.
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) const CODEC_BUFFER_BYTES: usize = 512;
/// Frames that are ready are sent together up to so many bytes.
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) const CODEC_YIELD_BYTES: usize = 32 * 1024;
