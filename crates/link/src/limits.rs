//! Limits of the agent's connection.

use std::time::Duration;

/// Time to resolve an address and open a TCP connection to it.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the TLS handshake.
pub const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// Time until the control plane answers the call with its headers.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Frames waiting to be sent; the agent's loop waits when it is full.
pub const SEND_QUEUE_MAX: usize = 16;
/// How often an idle connection is probed by an HTTP/2 PING.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long a PING may stay unanswered until the connection is given up.
pub const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest window of the random wait before dialling again, in milliseconds.
pub const BACKOFF_WINDOW_MS_MAX: u64 = 60_000;
/// Smallest window of the random wait before dialling again, in milliseconds.
pub const BACKOFF_WINDOW_MS_MIN: u64 = 500;
/// After a session that was opened and did not last, the window is the smallest, doubled so often at most: 2 s.
pub const BACKOFF_ATTEMPTS_OPENED: u32 = 2;
/// A session that lasted this long, in milliseconds, resets the back-off.
pub const BACKOFF_RESET_AFTER_MS: u64 = 30_000;
