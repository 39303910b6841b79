//! Limits of the journal.

/// Writes waiting for the writer.
pub const QUEUE_MAX: usize = 256;
/// Most writes in one commit. A test that ends the agent at each write wants each by itself.
pub const BATCH_MAX: usize = if cfg!(feature = "crash-points") { 1 } else { 256 };
/// Acknowledged reports kept for a control plane that lost them.
pub const ACKNOWLEDGED_REPORTS_KEPT: i64 = 1024;
/// Of those, read at once when it did: each may have a result of 256 KiB.
pub const ACKNOWLEDGED_REPORTS_READ_MAX: i64 = 32;
