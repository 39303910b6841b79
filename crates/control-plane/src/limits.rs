//! Limits of the control plane's shell.

use std::time::Duration;

/// Connections in TLS handshake at a time; more wait in the kernel's backlog.
pub(crate) const HANDSHAKES_MAX: usize = 256;
/// Agents' connections at a time.
pub(crate) const CONNECTIONS_MAX: usize = 20_000;
/// Time for a TLS handshake.
pub(crate) const TLS_TIMEOUT: Duration = Duration::from_secs(5);
/// Time from the first byte of a session's stream until both sides have proved themselves.
pub(crate) const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(5);
/// Time from the first byte of a stream until its host is enrolled: holds two waits for the agent's
/// disk, so it is the protocol's own.
pub(crate) const ENROLMENT_TIMEOUT: Duration = Duration::from_millis(session::limits::ENROLMENT_MAX.0);
/// A connection on which no host has proved itself is cut after this; one whose sessions have ended,
/// after twice as long at most.
pub(crate) const UNPROVED_MAX: Duration = Duration::from_secs(20);
// An enrolment proves nothing before its end, and needs time to open its stream.
const _: () = assert!(UNPROVED_MAX.as_secs() > ENROLMENT_TIMEOUT.as_secs());
/// Pause after a connection could not be accepted.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often an idle agent's connection is probed by an HTTP/2 PING.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(45);
/// How long a PING may stay unanswered.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// HTTP/2 streams per agent's connection: one session, and one to spare.
pub(crate) const STREAMS_MAX: u32 = 2;
/// Exchanges of root metadata on one agent's connection: one that asks, and one that brings.
pub(crate) const ROOTS_EXCHANGES_MAX: usize = 2;
/// HTTP/2 flow-control window per stream and connection, in bytes: bounds what an agent can have in flight.
pub(crate) const WINDOW_BYTES: u32 = 256 * 1024;
/// Frames waiting to be sent to one agent.
pub(crate) const SEND_QUEUE_MAX: usize = 4;
/// An agent that takes no frame for so long is cut off.
pub(crate) const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Events kept for people who watch and read slowly.
pub(crate) const EVENTS_MAX: usize = 4096;
/// How often a new audit head is looked for.
pub(crate) const HEAD_INTERVAL: Duration = Duration::from_millis(500);
/// How often commands that waited too long are looked for.
pub(crate) const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);
/// How often a store that could not write tries again, and a signer is handed newer root metadata that it did not take.
pub(crate) const MEND_INTERVAL: Duration = Duration::from_secs(2);
/// First wait before a signer of `serve`'s own is started anew; doubles up to [`SIGNER_RESTART_MAX`].
pub(crate) const SIGNER_RESTART_FIRST: Duration = Duration::from_millis(50);
/// Longest such wait; one that ran longer has started well.
pub(crate) const SIGNER_RESTART_MAX: Duration = Duration::from_secs(5);
/// Time for a signer's answer to `init` and `doctor`.
pub(crate) const SIGNER_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time given to it to end.
pub(crate) const SIGNER_END_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether a standing order is to be signed anew.
pub(crate) const STANDING_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How often a change of a key that waits for hosts or for the signer is looked at.
pub(crate) const KEY_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Time for the signer to take root metadata before hosts are told of it.
pub(crate) const SIGNER_ROOT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is recorded who was refused at the agents' listener.
pub(crate) const REFUSALS_INTERVAL: Duration = Duration::from_secs(60);
/// Join tokens whose refused enrolments are counted apart in that time; more count as strangers.
pub(crate) const REFUSED_TOKENS_MAX: usize = 64;
/// How long before its expiry root metadata is warned about.
pub(crate) const ROOT_EXPIRY_WARNING: ids::DurationMs = ids::DurationMs::from_days(60);
/// Time for one question and its answer on the machine's own socket.
pub(crate) const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of such a question.
pub(crate) const ADMIN_LINE_BYTES_MAX: u64 = 16 * 1024;
/// Bytes of such an answer.
pub(crate) const ADMIN_ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of a file with a passphrase or a public key.
pub(crate) const PASSPHRASE_FILE_BYTES_MAX: u64 = 4 * 1024;
/// Bytes of a key, a certificate or a manifest in a backup.
pub(crate) const BACKUP_KEY_BYTES_MAX: u64 = 256 * 1024;
/// Bytes of any other piece of a backup that is held in memory: the signer's record and root metadata.
pub(crate) const BACKUP_PIECE_BYTES_MAX: u64 = signer::limits::STATE_BYTES_MAX;
/// Time given to sessions and requests to end at shutdown.
pub(crate) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a certificate file or a key file.
pub(crate) const CERTIFICATE_BYTES_MAX: u64 = 256 * 1024;
/// How often the people's certificate is looked at; SIGHUP makes it be read at once.
pub(crate) const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a self-signed certificate is valid.
pub(crate) const CERTIFICATE_LIFETIME: ids::DurationMs = ids::DurationMs::from_days(730);
/// Characters of a certificate's common name (X.520).
pub(crate) const COMMON_NAME_MAX: usize = 64;
/// Bytes of an agent's program: far more than a release has, and room for one with debug information.
pub(crate) const AGENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Time for the control plane to answer `health`.
pub(crate) const HEALTH_TIMEOUT: Duration = Duration::from_secs(4);
/// Bytes read of that answer.
pub(crate) const HEALTH_ANSWER_BYTES_MAX: u64 = 16 * 1024;
/// Free bytes below which `doctor` warns, and below which it calls the disk full.
pub(crate) const DISK_WARN_BYTES: u64 = 1024 * 1024 * 1024;
pub(crate) const DISK_FAIL_BYTES: u64 = 64 * 1024 * 1024;
/// Free inodes below which `doctor` warns, and below which it calls the file system full.
pub(crate) const INODES_WARN: u64 = 50_000;
pub(crate) const INODES_FAIL: u64 = 1_000;
/// How long before its end `doctor` warns of the people's certificate.
pub(crate) const CERTIFICATE_EXPIRY_WARNING: ids::DurationMs = ids::DurationMs::from_days(21);
/// How far what was written before may be ahead of the clock, before `doctor` calls the clock wrong.
pub(crate) const CLOCK_BEHIND_MAX: ids::DurationMs = ids::DurationMs::from_mins(1);
