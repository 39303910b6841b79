//! Every bound of this room, in one place.

use core::time::Duration;

use ids::DurationMs;

pub use fleet::limits::LIST_MAX;

/// Bytes of one request's body.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The same where nobody has to be signed in: room for a name and a password, however it is escaped.
pub const BODY_BYTES_OPEN_MAX: usize = 8 * 1024;
/// Bytes of one request's line and headers.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Time for a TLS handshake.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// Time for a request's headers to arrive, and for which an idle connection is kept.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// Time for a request's body to arrive.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(20);
/// Time until a response must begin.
pub const RESPONSE_TIME_MAX: Duration = Duration::from_secs(30);
/// Time for a waiting answer to make headway; whoever takes nothing for so long is cut off.
pub const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
/// Connections open at once; more wait in the listener's queue.
pub const CONNECTIONS_MAX: usize = 512;
/// Of these, from one address (IPv6: one /64 network) that is not loopback.
pub const CONNECTIONS_PER_PEER_MAX: usize = 128;
/// Pause after a connection could not be accepted, such as when file descriptors ran out.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for open responses to end when the program is asked to.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// Event streams open at once.
pub const EVENT_STREAMS_MAX: usize = 256;
/// Of these, streams of one account.
pub const EVENT_STREAMS_PER_ACCOUNT_MAX: usize = 32;
/// Age at which an event stream is ended; whoever still watches opens another.
pub const EVENT_STREAM_AGE_MAX: Duration = Duration::from_secs(60 * 60);
/// How often a quiet event stream carries a comment.
pub const EVENT_HEARTBEAT: Duration = Duration::from_secs(15);
/// How often an event stream reads the store even though nothing was announced, and asks whether
/// its reader is still signed in.
pub const EVENT_REREAD: Duration = Duration::from_secs(30);
/// Bytes of one command's stream that may be on their way to its reader at once.
pub const STREAM_WINDOW_BYTES: usize = 128 * 1024;
/// How often a host is told that somebody watches a stream of it; well within its lease.
pub const STREAM_RENEW: Duration = Duration::from_secs(3);
/// How long the rest of a stream is waited for once its command has ended.
pub const STREAM_LAST_WAIT: Duration = Duration::from_secs(2);
/// Bytes of results that one answer about an operation holds; later ones are left out.
pub const RESULTS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Entries of a list when nobody says how many.
pub const LIST_DEFAULT: u32 = 100;
/// Bytes of a list's cursor.
pub const CURSOR_BYTES_MAX: usize = 512;
/// Pages of hosts looked at for one answer, when whether a host is shown is known here alone.
pub const HOST_PAGES_MAX: usize = 8;
/// Audit entries read at once for an export.
pub const EXPORT_ROWS: u32 = 500;

/// Bytes of an `Authorization` header's token.
pub const BEARER_BYTES_MAX: usize = 256;
/// How long a sign-in lasts.
pub const SIGN_IN_LIFETIME: DurationMs = DurationMs::from_days(7);
/// Passwords checked at once: each takes a core for tens of milliseconds and 19 MiB.
pub const PASSWORD_CHECKS_MAX: usize = 2;
/// How long a sign-in waits for its turn.
pub const PASSWORD_CHECK_WAIT_MAX: Duration = Duration::from_secs(5);
/// Sign-ins in a row with one name from one address (IPv6: one /64 network) before they are slowed down.
pub const SIGN_INS_PER_NAME_AND_PEER: u32 = 10;
/// Time after which one more sign-in with that name from that address is possible.
pub const SIGN_IN_NAME_AND_PEER_REFILL: DurationMs = DurationMs::from_secs(6);
/// Sign-ins in a row with one name from anywhere before they are slowed down.
pub const SIGN_INS_PER_NAME: u32 = 300;
/// Time after which one more sign-in with that name is possible from anywhere: so much shorter than
/// what one address gets, that one alone never empties it for the others.
pub const SIGN_IN_NAME_REFILL: DurationMs = DurationMs(500);
/// Sign-ins in a row from one address (IPv6: one /64 network) before they are slowed down.
pub const SIGN_INS_PER_PEER: u32 = 30;
/// Time after which one more sign-in from that address is possible.
pub const SIGN_IN_PEER_REFILL: DurationMs = DurationMs::from_secs(2);
/// Requests in a row from one address (IPv6: one /64 network), whoever sends them.
pub const REQUESTS_PER_ADDRESS: u32 = 2_000;
/// Time after which one more request from that address is possible.
pub const REQUEST_ADDRESS_REFILL: DurationMs = DurationMs(5);
/// Requests in a row from one address without a credential that is taken.
pub const REQUESTS_PER_STRANGER: u32 = 240;
/// Time after which one more of those is possible.
pub const REQUEST_STRANGER_REFILL: DurationMs = DurationMs(50);
/// Requests in a row of one account's sessions together.
pub const REQUESTS_PER_ACCOUNT: u32 = 1_000;
/// Time after which one more request of that account is possible.
pub const REQUEST_ACCOUNT_REFILL: DurationMs = DurationMs(10);
/// Requests in a row of one API token.
pub const REQUESTS_PER_TOKEN: u32 = 1_000;
/// Time after which one more request of that token is possible.
pub const REQUEST_TOKEN_REFILL: DurationMs = DurationMs(10);
/// Names, accounts, tokens and addresses remembered for all that, once for sign-ins and once for
/// requests; the one with the least to remember gives way.
pub const RATE_KEYS_MAX: usize = 10_000;
/// Refusals of one account or token make one audit entry in this time.
pub const REFUSALS_PER: DurationMs = DurationMs::from_mins(1);
/// Accounts and tokens whose refusals are counted apart.
pub const REFUSAL_KEYS_MAX: usize = 4_096;

/// Programs fetched at once.
pub const DOWNLOADS_MAX: usize = 16;
/// Of these, by one address (IPv6: one /64 network) that is not loopback.
pub const DOWNLOADS_AT_ONCE_PER_PEER_MAX: usize = 4;
/// Programs fetched in a row from one address (IPv6: one /64 network) before it is slowed down.
pub const DOWNLOADS_PER_PEER: u64 = 60;
/// Time after which one more may be fetched from that address.
pub const DOWNLOAD_REFILL: DurationMs = DurationMs::from_secs(10);
/// Addresses remembered for that.
pub const DOWNLOAD_PEERS_MAX: usize = 10_000;
/// Time for one program to be fetched.
pub const DOWNLOAD_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// Bytes of it read at a time; at most two of these pieces are in memory.
pub const DOWNLOAD_PIECE_BYTES: u64 = 256 * 1024;
/// Least pace at which it must be taken.
pub const DOWNLOAD_BYTES_PER_SECOND_MIN: u64 = 64 * 1024;
/// How far behind that pace a download may fall.
pub const DOWNLOAD_LAG_MAX: Duration = Duration::from_secs(30);

/// How long a join token lives, unless someone says otherwise.
pub const JOIN_TOKEN_LIFETIME_DEFAULT: DurationMs = DurationMs::from_mins(15);
/// Shortest life of a join token.
pub const JOIN_TOKEN_LIFETIME_MIN: DurationMs = DurationMs::from_secs(10);
/// Longest life of a join token.
pub const JOIN_TOKEN_LIFETIME_MAX: DurationMs = DurationMs::from_days(7);

/// Hosts of one request whose files are read and sealed here: each host costs a sealing of every secret.
pub const BUNDLE_HOSTS_MAX: usize = 32;
/// Requests whose files are read at once: each takes a core.
pub const BUNDLE_READERS_MAX: usize = 2;
/// How long a request waits for its turn to be read.
pub const BUNDLE_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often a cancellation is decided anew because its command moved meanwhile.
pub const CANCEL_TRIES_MAX: usize = 4;
/// Approvals in one request: more hosts take several.
pub const APPROVALS_PER_REQUEST_MAX: usize = 500;
/// How often somebody's word is judged anew because somebody else had one meanwhile.
pub const APPROVE_TRIES_MAX: usize = 8;
/// Time for the store to answer a health check.
pub const HEALTH_TIME_MAX: Duration = Duration::from_secs(2);
/// Hosts that the confirmation of a restore may revoke at once.
pub const RECOVERY_REVOKE_MAX: usize = 500;
/// Hosts that are named when something has to be said of more.
pub const RECOVERY_CLAIMS_NAMED_MAX: usize = 10;

/// Hosts by name of each kind that a change of a key tells of; the API's documentation says the same number.
pub(crate) const KEY_HOSTS_SHOWN_MAX: usize = 100;
/// Attempts to have a standing order signed under a revision that nobody else takes meanwhile.
pub(crate) const REVISION_ATTEMPTS_MAX: usize = 4;
