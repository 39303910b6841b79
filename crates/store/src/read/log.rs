//! The audit log and root metadata.

use envelope::audit::AuditKind;
use fleet::{model::AuditRow, ports::StoreError};
use ids::Sha256;
use sqlx::sqlite::SqliteRow;

use crate::{
    cipher::Place,
    limits,
    rows::{Fields, int},
    sqlite::Reader,
};

impl Reader {
    pub(crate) async fn audit(&self, first: u64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let select = sqlx::query(
            "SELECT a.leaf, a.time, a.kind, a.actor, a.subject, a.record_sha256, a.record, \
             a.record_seal, s.envelope, a.record_report, r.envelope \
             FROM audit_leaves a LEFT JOIN command_seals s ON s.number = a.record_seal \
             LEFT JOIN command_reports r ON r.command = a.record_report \
             WHERE a.leaf >= $1 ORDER BY a.leaf LIMIT $2",
        )
        .bind(int(first)?)
        .bind(i64::from(limit.min(limits::AUDIT_ROWS_MAX)));
        let rows = self.rows("reading the audit log", select).await?;
        rows.iter().map(|row| self.audit_row(row)).collect()
    }

    fn audit_row(&self, row: &SqliteRow) -> Result<AuditRow, StoreError> {
        let mut fields = Fields::of(row, "the audit log");
        let index = fields.number()?;
        let time = fields.time()?;
        let kind = fields.small()?;
        let kind = u16::try_from(kind).ok().and_then(AuditKind::from_number).ok_or_else(|| {
            StoreError::Corrupt(format!("audit entry {index} is of kind {kind}, which this program does not know"))
        })?;
        let (actor, subject, record_sha256) = (fields.get()?, fields.get()?, fields.hash()?);
        let inline: Option<&[u8]> = fields.get()?;
        let (seal, seal_envelope): (Option<i64>, Option<&[u8]>) = (fields.get()?, fields.get()?);
        let (report, report_envelope): (Option<i64>, Option<&[u8]>) = (fields.get()?, fields.get()?);
        let leaf = int(index)?;
        let record = match (inline, seal.zip(seal_envelope), report.zip(report_envelope)) {
            (Some(sealed), _, _) => Some(self.cipher.open(Place::AUDIT_RECORD, leaf, sealed)?),
            (None, Some((number, sealed)), _) => Some(self.cipher.open(Place::SEAL, number, sealed)?),
            (None, None, Some((command, sealed))) => Some(self.cipher.open(Place::REPORT, command, sealed)?),
            (None, None, None) => None,
        };
        Ok(AuditRow { index, time, kind, actor, subject, record_sha256, record })
    }

    pub(crate) async fn audit_leaf_hashes(&self, first: u64, limit: u32) -> Result<Vec<Sha256>, StoreError> {
        let select = sqlx::query("SELECT leaf_sha256 FROM audit_leaves WHERE leaf >= $1 ORDER BY leaf LIMIT $2")
            .bind(int(first)?)
            .bind(i64::from(limit.min(limits::AUDIT_ROWS_MAX)));
        let rows = self.rows("reading the audit log", select).await?;
        rows.iter().map(|row| Fields::of(row, "the audit log").hash()).collect()
    }

    pub(crate) async fn audit_heads(&self, latest_only: bool) -> Result<Vec<Vec<u8>>, StoreError> {
        let select = if latest_only {
            sqlx::query("SELECT envelope FROM audit_heads ORDER BY size DESC LIMIT 1")
        } else {
            sqlx::query("SELECT envelope FROM audit_heads ORDER BY size")
        };
        let rows = self.rows("reading the audit heads", select).await?;
        rows.iter().map(|row| Fields::of(row, "the audit heads").get()).collect()
    }

    pub(crate) async fn root_chain(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let select = sqlx::query("SELECT envelope FROM root_chain ORDER BY version");
        let rows = self.rows("reading the root chain", select).await?;
        rows.iter().map(|row| Fields::of(row, "the root chain").get()).collect()
    }
}
