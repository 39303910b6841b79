//! The control plane's durable state, in one SQLite file.
//!
//! One task writes: it drains its queue, applies all of it in one transaction, commits once
//! (`synchronous=FULL`) and then answers everyone, so that durability is paid per batch and not per
//! write. A few connections read beside it. Every write brings its audit entries, which become leaves
//! of the log's tree in the same transaction. What could hold a secret is encrypted with a key that
//! stands outside the database. `README.md` beside this file describes the schema.
//!
//! This room knows neither what a write means nor whether it is wise: [`fleet`] decides. It checks
//! what only a transaction can: that nothing changed in between.

mod audit;
mod cipher;
mod codes;
mod fault;
pub mod limits;
mod lock;
mod read;
mod readers;
mod rows;
mod schema;
mod sqlite;
mod write;
mod writer;

pub use audit::{AuditPosition, whole::AuditExamined};
pub use lock::is_in_use;
pub use sqlite::{Examined, SqliteStore, StoreConfig, examine, snapshot};
