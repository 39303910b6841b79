//! What the tests' world shows of the rest of a control plane.

use std::sync::Arc;

use store::SqliteStore;

use crate::Figures;

pub(super) struct StoreFigures(pub(super) Arc<SqliteStore>);

impl Figures for StoreFigures {
    fn sessions_open(&self) -> u64 {
        3
    }
    fn audit_size(&self) -> u64 {
        self.0.audit_position().size
    }
}
