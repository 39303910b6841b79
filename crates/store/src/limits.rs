//! Every bound of this room, in one place.

use core::time::Duration;

use ids::DurationMs;

/// Writes waiting for the writer; looks at hosts waiting to be read.
pub const QUEUE_MAX: usize = 1024;
/// Writes that one commit takes from the queue. A test that ends the control plane at each write wants each by itself.
pub const BATCH_MAX: usize = if cfg!(feature = "crash-points") { 1 } else { QUEUE_MAX };
/// Files up to this size are read whole when they are opened, to see whether a page is damaged: about a second. In
/// larger ones damage is found when it is met.
pub const CHECKED_WHOLE_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Rows of one statement, and so the most looks at hosts that are read together. A power of two: see `rows`.
pub const ROWS_PER_STATEMENT_MAX: usize = 128;
/// Rows of a statement that may wait and be handed over together with others.
pub const ROWS_TOGETHER_MAX: usize = 1;
/// Connections that read.
pub const READERS_MAX: u32 = 4;
/// How long a statement waits for a lock that another connection holds (a checkpoint, a backup).
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a reader waits for a connection.
pub const READER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Entries of one answer of the audit log.
pub const AUDIT_ROWS_MAX: u32 = 1_000;
/// Rows of one page of a list, whatever is asked for.
pub const LIST_MAX: u32 = fleet::limits::LIST_MAX;
/// Identity keys of one host, before the one on record, that are read for its reports.
pub const FORMER_KEYS_MAX: u32 = 256;
/// Quarantines of one host's agents that are remembered.
pub const QUARANTINES_SEEN_MAX: i64 = 8;
/// Tree heads that the writer published and that may still come back signed.
pub const POSITIONS_REMEMBERED_MAX: usize = 1024;
/// Levels of the audit log's tree of which one is stored: a node for each 2^6 leaves, each 2^12, and so on.
pub const NODE_LEVELS: u8 = 6;
/// Leaves read at once while nodes are filled in or the whole log is looked at.
pub const LEAVES_PER_READ_MAX: i64 = 4096;
/// Leaves whose nodes are filled in by one transaction. A multiple of 64.
pub const LEAVES_PER_FILL_MAX: u64 = 65_536;
/// Pieces of the tree (64 hashes each) kept in memory for proofs.
pub const TILES_HELD_MAX: usize = 1024;
/// Proofs of consistency kept in memory: many hosts ask for the same.
pub const PROOFS_HELD_MAX: usize = 1024;
/// How long an expired session is remembered, so that its use afterwards can be told from a stranger's.
pub const EXPIRED_SESSIONS_KEPT: DurationMs = DurationMs::from_days(7);
/// Expired sign-in sessions deleted when a new one is made.
pub const EXPIRED_SESSIONS_PER_SIGN_IN_MAX: i64 = 64;
