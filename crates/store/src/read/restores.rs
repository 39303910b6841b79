//! The last restore from a backup, and what hosts were heard to say since.

use envelope::messages::{LogPosition, PublicKeyBytes, ReportPosition};
use fleet::{
    ports::StoreError,
    recovery::{Claim, Heard, Recovery, RecoveryHost},
};
use ids::{HostEpoch, HostId, ReportSequence, Sequence, Sha256, UnixMs};
use session::control::Presented;
use sqlx::sqlite::SqliteRow;

use crate::{rows::Fields, sqlite::Reader};

impl Reader {
    pub(crate) async fn recovery(&self) -> Result<Option<Recovery>, StoreError> {
        let select = sqlx::query(
            "SELECT restored_at, backup_made_at, log, log_size, log_root, confirmed_at FROM recoveries \
             ORDER BY number DESC LIMIT 1",
        );
        let row = self.row("reading the last restore", select).await?;
        let read = |row: &SqliteRow| {
            let mut fields = Fields::of(row, "the restores");
            Ok(Recovery {
                restored_at: fields.time()?,
                backup_made_at: fields.time()?,
                log: LogPosition { log: fields.id()?, size: fields.number()?, root: fields.hash()? },
                confirmed_at: fields.time_maybe()?,
            })
        };
        row.as_ref().map(read).transpose()
    }

    pub(crate) async fn recovery_hosts(&self, host: Option<HostId>) -> Result<Vec<RecoveryHost>, StoreError> {
        let select = sqlx::query(
            "SELECT h.id, h.name, h.revoked_at, r.allocated, r.adopted_at, r.heard_at, r.high, r.report_sequence, \
             r.report_sha256, r.head_log, r.head_size, r.head_root \
             FROM recovery_hosts r JOIN hosts h ON h.number = r.host WHERE $1 IS NULL OR h.id = $1 \
             ORDER BY h.name, h.number",
        );
        let rows =
            self.rows("reading the hosts of a restore", select.bind(host.map(|id| id.as_bytes().to_vec()))).await?;
        rows.iter().map(recovery_host).collect()
    }

    pub(crate) async fn recovery_claims(&self, host: Option<HostId>) -> Result<Vec<Claim>, StoreError> {
        let select = sqlx::query(
            "SELECT host, name, enrolled_at, receipt, rotations, on_record, host_epoch, identity_key, is_receipted, \
             is_by_dropped_key, first_at, refused_at, heard_at, high, report_sequence, report_sha256, head_log, head_size, \
             head_root FROM recovery_claims WHERE $1 IS NULL OR host = $1 ORDER BY name, number",
        );
        let rows = self.rows("reading what hosts brought", select.bind(host.map(|id| id.as_bytes().to_vec()))).await?;
        rows.iter().map(claim).collect()
    }
}

fn claim(row: &SqliteRow) -> Result<Claim, StoreError> {
    let mut fields = Fields::of(row, "what hosts brought");
    let presented = Presented {
        host: fields.id()?,
        name: fields.word()?,
        enrolled_at: fields.time()?,
        receipt: fields.get()?,
        rotations: fields.named()?.into_iter().map(|(_, rotation)| rotation).collect(),
        on_record: fields.number_maybe()?.map(HostEpoch),
        host_epoch: HostEpoch(fields.number()?),
        identity_key: PublicKeyBytes(fields.bytes()?),
        is_receipted: fields.get()?,
        is_by_dropped_key: fields.get()?,
    };
    let (first_at, refused_at) = (fields.time()?, fields.time_maybe()?);
    let heard = Heard {
        at: fields.time()?,
        high: Sequence(fields.number()?),
        last_report: ReportPosition { sequence: ReportSequence(fields.number()?), sha256: fields.hash()? },
        head: fields.log_position_maybe()?,
    };
    Ok(Claim { presented, first_at, heard, refused_at })
}

fn recovery_host(row: &SqliteRow) -> Result<RecoveryHost, StoreError> {
    let mut fields = Fields::of(row, "the hosts of a restore");
    let (host, name) = (fields.id()?, fields.word()?);
    let revoked: Option<UnixMs> = fields.time_maybe()?;
    let (allocated, adopted_at) = (Sequence(fields.number()?), fields.time_maybe()?);
    let at = fields.time_maybe()?;
    let (high, sequence): (Option<i64>, Option<i64>) = (fields.get()?, fields.get()?);
    let sha256: Option<Sha256> = fields.hash_maybe()?;
    let head = fields.log_position_maybe()?;
    let number = |value: i64| {
        u64::try_from(value).map_err(|_| StoreError::Corrupt("a host of a restore has a negative number".to_owned()))
    };
    let heard = match (at, high, sequence, sha256) {
        (Some(at), Some(high), Some(sequence), Some(sha256)) => {
            let last_report = ReportPosition { sequence: ReportSequence(number(sequence)?), sha256 };
            Some(Heard { at, high: Sequence(number(high)?), last_report, head })
        }
        _ => None,
    };
    Ok(RecoveryHost { host, name, is_revoked: revoked.is_some(), allocated, heard, adopted_at })
}
