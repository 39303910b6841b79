//! The agent's program for new machines. It is public and named by its SHA-256, which the lines of
//! `serverflow host enroll` carry: whoever fetches it checks what came, whatever brought it.

use std::{fs::File, io};

use api::AgentProgram;
use ids::Sha256;

/// Where the programs are. Both calls may block on the disk.
pub trait AgentPrograms: Send + Sync {
    /// What is served now.
    fn list(&self) -> Vec<AgentProgram>;
    /// The program with this hash, from its beginning, and its length in bytes; `None` when there is
    /// none (any more).
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn open(&self, sha256: Sha256) -> io::Result<Option<(File, u64)>>;
}
