//! Reading the journal whole, at start.

use std::path::Path;

use envelope::messages::{LogPosition, ReportPosition, SealedValue};
use ids::{
    AuditLogId, BootId, BootMs, CommandId, HostEpoch, OperationId, QuarantineId, ReportSequence, Revision, Sequence,
    Sha256, StandingOrderId, UnixMs,
};
use session::{
    agent::io::{Burned, JournalState, OpenCommand, Retirement, RingEntry, StoredClock, StoredReport, StoredStanding},
    frames::{KeyRecord, Stage},
    limits::KEY_CHANGES_SHOWN_MAX,
};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use crate::{JournalError, limits};

/// Keys of the `meta` table. Values are fixed-width big-endian fields, one after another.
pub(crate) mod meta {
    pub(crate) const HIGH: &str = "high";
    pub(crate) const LAST_REPORT: &str = "last_report";
    pub(crate) const AUDIT_HEAD: &str = "audit_head";
    /// One byte: the audit log was once proved to continue.
    pub(crate) const AUDIT_PROVED: &str = "audit_proved";
    pub(crate) const QUARANTINE: &str = "quarantine";
    pub(crate) const CLOCK: &str = "clock";
    /// The epoch of the host whose keys are in force.
    pub(crate) const HOST_EPOCH: &str = "host_epoch";
    /// When they were taken, by the control plane's time: 8 bytes.
    pub(crate) const KEYS_SINCE: &str = "keys_since";
    /// One byte: how far this host is on its way out of the fleet.
    pub(crate) const RETIREMENT: &str = "retirement";
    /// Highest revision of a standing order ever taken: 8 bytes.
    pub(crate) const STANDING_REVISION: &str = "standing_revision";
}

/// Numbers of stages in the tables.
pub(crate) const fn stage_number(stage: Stage) -> i64 {
    match stage {
        Stage::Accepted => 1,
        Stage::Started => 2,
        Stage::Done => 3,
    }
}

const fn stage(number: i64) -> Option<Stage> {
    match number {
        1 => Some(Stage::Accepted),
        2 => Some(Stage::Started),
        3 => Some(Stage::Done),
        _ => None,
    }
}

/// Numbers of the steps of a retirement in the tables.
pub(crate) const fn retirement_number(retirement: Retirement) -> u8 {
    match retirement {
        Retirement::Begun => 1,
        Retirement::Reported => 2,
    }
}

const fn retirement(number: u8) -> Option<Retirement> {
    match number {
        1 => Some(Retirement::Begun),
        2 => Some(Retirement::Reported),
        _ => None,
    }
}

struct Reader<'a> {
    connection: &'a mut SqliteConnection,
    path: &'a Path,
}

pub(crate) async fn state(connection: &mut SqliteConnection, path: &Path) -> Result<JournalState, JournalError> {
    let mut reader = Reader { connection, path };
    let mut state = JournalState { high: reader.high().await?, ring: reader.ring().await?, ..JournalState::default() };
    state.open = reader.open_commands().await?;
    state.last_report = reader.last_report().await?;
    state.outbox = reader.outbox().await?;
    state.root_chain = reader.root_chain().await?;
    state.audit_head = reader.audit_head().await?;
    state.audit_proved = reader.meta(meta::AUDIT_PROVED).await?.is_some();
    state.quarantine = reader.quarantine().await?;
    state.clock = reader.clock().await?;
    state.burned = reader.burned().await?;
    state.host_epoch = reader.host_epoch().await?;
    state.keys_since = reader.keys_since().await?;
    (state.keys_offered, state.reset) = reader.keys_offered().await?;
    state.retirement = reader.retirement().await?;
    state.standing = reader.standing().await?;
    state.standing_revision = reader.standing_revision().await?;
    Ok(state)
}

/// The first of the acknowledged reports in that range that are still kept.
pub(crate) async fn acknowledged(
    connection: &mut SqliteConnection,
    path: &Path,
    first: ReportSequence,
    last: ReportSequence,
) -> Result<Vec<StoredReport>, JournalError> {
    // What lies beyond was never given out.
    let [first, last] = [first, last].map(|sequence| i64::try_from(sequence.0).unwrap_or(i64::MAX));
    let rows = sqlx::query(
        "SELECT command, sequence, sha256, envelope FROM report \
         WHERE acknowledged = 1 AND sequence BETWEEN $1 AND $2 ORDER BY sequence LIMIT $3",
    )
    .bind(first)
    .bind(last)
    .bind(limits::ACKNOWLEDGED_REPORTS_READ_MAX)
    .fetch_all(&mut *connection)
    .await
    .map_err(|error| JournalError::read(path, error))?;
    Reader { connection, path }.reports(&rows)
}

/// The changes of keys to those epochs, with their receipts.
pub(crate) async fn key_changes(
    connection: &mut SqliteConnection,
    path: &Path,
    above: HostEpoch,
    up_to: HostEpoch,
) -> Result<Vec<KeyRecord>, JournalError> {
    let [above, up_to] = [above, up_to].map(|epoch| i64::try_from(epoch.0).unwrap_or(i64::MAX));
    let fail = |error| JournalError::read(path, error);
    let rows = sqlx::query(
        "SELECT rotation, receipt FROM key_change WHERE host_epoch > $1 AND host_epoch <= $2 ORDER BY host_epoch LIMIT $3",
    )
    .bind(above)
    .bind(up_to)
    .bind(i64::try_from(KEY_CHANGES_SHOWN_MAX).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await
    .map_err(fail)?;
    let change = |row: &SqliteRow| Ok(KeyRecord { rotation: row.try_get(0)?, receipt: row.try_get(1)? });
    rows.iter().map(change).collect::<Result<_, _>>().map_err(fail)
}

impl Reader<'_> {
    async fn rows(&mut self, query: &'static str) -> Result<Vec<SqliteRow>, JournalError> {
        sqlx::query(query).fetch_all(&mut *self.connection).await.map_err(|e| JournalError::read(self.path, e))
    }

    async fn meta(&mut self, key: &'static str) -> Result<Option<Vec<u8>>, JournalError> {
        let row = sqlx::query("SELECT value FROM meta WHERE key = $1")
            .bind(key)
            .fetch_optional(&mut *self.connection)
            .await
            .map_err(|e| JournalError::read(self.path, e))?;
        row.map(|row| self.blob(&row, 0)).transpose()
    }

    fn blob(&self, row: &SqliteRow, column: usize) -> Result<Vec<u8>, JournalError> {
        row.try_get(column).map_err(|e| JournalError::read(self.path, e))
    }

    fn int(&self, row: &SqliteRow, column: usize) -> Result<i64, JournalError> {
        row.try_get(column).map_err(|e| JournalError::read(self.path, e))
    }

    fn counter(&self, row: &SqliteRow, column: usize) -> Result<u64, JournalError> {
        u64::try_from(self.int(row, column)?).map_err(|_| self.damaged("negative counter"))
    }

    fn damaged(&self, what: &str) -> JournalError {
        JournalError::damaged(self.path, what)
    }

    fn command(&self, row: &SqliteRow, column: usize) -> Result<CommandId, JournalError> {
        CommandId::try_from_slice(&self.blob(row, column)?).map_err(|_| self.damaged("command id"))
    }

    fn cancelled_by(&self, row: &SqliteRow, column: usize) -> Result<Option<CommandId>, JournalError> {
        let bytes: Option<Vec<u8>> = row.try_get(column).map_err(|e| JournalError::read(self.path, e))?;
        bytes.map(|bytes| CommandId::try_from_slice(&bytes).map_err(|_| self.damaged("id of a cancel"))).transpose()
    }

    fn hash(&self, row: &SqliteRow, column: usize) -> Result<Sha256, JournalError> {
        Sha256::try_from_slice(&self.blob(row, column)?).ok_or_else(|| self.damaged("hash"))
    }

    fn stage(&self, row: &SqliteRow, column: usize) -> Result<Stage, JournalError> {
        stage(self.int(row, column)?).ok_or_else(|| self.damaged("stage"))
    }

    async fn high(&mut self) -> Result<Sequence, JournalError> {
        let Some(value) = self.meta(meta::HIGH).await? else { return Ok(Sequence(0)) };
        let bytes = value.as_slice().try_into().map_err(|_| self.damaged(meta::HIGH))?;
        Ok(Sequence(u64::from_be_bytes(bytes)))
    }

    async fn ring(&mut self) -> Result<Vec<RingEntry>, JournalError> {
        let rows = self.rows("SELECT command, sequence, order_sha256, stage FROM ring ORDER BY position").await?;
        let entry = |row: &SqliteRow| {
            Ok(RingEntry {
                command: self.command(row, 0)?,
                sequence: Sequence(self.int(row, 1)?.cast_unsigned()),
                order_sha256: self.hash(row, 2)?,
                stage: self.stage(row, 3)?,
            })
        };
        rows.iter().map(entry).collect()
    }

    async fn open_commands(&mut self) -> Result<Vec<OpenCommand>, JournalError> {
        let query = "SELECT command, envelope, stage, resumptions, cancelled_by FROM open_command ORDER BY sequence";
        let rows = self.rows(query).await?;
        let sealed = self.rows("SELECT command, name, bytes FROM sealed_value ORDER BY command, position").await?;
        let approvals = self.rows("SELECT command, envelope FROM approval ORDER BY command, position").await?;
        let mut open = Vec::with_capacity(rows.len());
        for row in &rows {
            let command = self.blob(row, 0)?;
            let mut values = Vec::new();
            for value in &sealed {
                if self.blob(value, 0)? == command {
                    let name = value.try_get(1).map_err(|e| JournalError::read(self.path, e))?;
                    values.push(SealedValue { name, bytes: self.blob(value, 2)? });
                }
            }
            open.push(OpenCommand {
                id: self.command(row, 0)?,
                command: self.blob(row, 1)?,
                sealed: values,
                approvals: self.approvals(&approvals, &command)?,
                stage: self.stage(row, 2)?,
                resumptions: u32::try_from(self.counter(row, 3)?).map_err(|_| self.damaged("count of runs"))?,
                cancelled_by: self.cancelled_by(row, 4)?,
            });
        }
        Ok(open)
    }

    fn approvals(&self, rows: &[SqliteRow], command: &[u8]) -> Result<Vec<Vec<u8>>, JournalError> {
        let mut envelopes = Vec::new();
        for row in rows {
            if self.blob(row, 0)? == command {
                envelopes.push(self.blob(row, 1)?);
            }
        }
        Ok(envelopes)
    }

    async fn burned(&mut self) -> Result<Vec<Burned>, JournalError> {
        let rows = self.rows("SELECT operation, action, command, until FROM burned ORDER BY operation, action").await?;
        let burned = |row: &SqliteRow| {
            let action: String = row.try_get(1).map_err(|e| JournalError::read(self.path, e))?;
            Ok(Burned {
                operation: OperationId::try_from_slice(&self.blob(row, 0)?)
                    .map_err(|_| self.damaged("operation id"))?,
                action: action.parse().map_err(|_| self.damaged("action's name"))?,
                command: self.command(row, 2)?,
                until: UnixMs(self.counter(row, 3)?),
            })
        };
        rows.iter().map(burned).collect()
    }

    async fn outbox(&mut self) -> Result<Vec<StoredReport>, JournalError> {
        let query = "SELECT command, sequence, sha256, envelope FROM report WHERE acknowledged = 0 ORDER BY sequence";
        let rows = self.rows(query).await?;
        self.reports(&rows)
    }

    fn reports(&self, rows: &[SqliteRow]) -> Result<Vec<StoredReport>, JournalError> {
        let report = |row: &SqliteRow| {
            Ok(StoredReport {
                command: self.command(row, 0)?,
                sequence: ReportSequence(self.counter(row, 1)?),
                sha256: self.hash(row, 2)?,
                envelope: self.blob(row, 3)?,
            })
        };
        rows.iter().map(report).collect()
    }

    async fn root_chain(&mut self) -> Result<Vec<Vec<u8>>, JournalError> {
        let rows = self.rows("SELECT envelope FROM root ORDER BY version").await?;
        rows.iter().map(|row| self.blob(row, 0)).collect()
    }

    async fn last_report(&mut self) -> Result<Option<ReportPosition>, JournalError> {
        let Some(value) = self.meta(meta::LAST_REPORT).await? else { return Ok(None) };
        let position = split(&value).map(|(sequence, sha256)| ReportPosition {
            sequence: ReportSequence(u64::from_be_bytes(sequence)),
            sha256: Sha256(sha256),
        });
        position.map(Some).ok_or_else(|| self.damaged(meta::LAST_REPORT))
    }

    async fn audit_head(&mut self) -> Result<Option<LogPosition>, JournalError> {
        let Some(value) = self.meta(meta::AUDIT_HEAD).await? else { return Ok(None) };
        let position = value.split_at_checked(16).and_then(|(log, rest)| {
            let (size, root) = split(rest)?;
            let log = AuditLogId::try_from_slice(log).ok()?;
            Some(LogPosition { log, size: u64::from_be_bytes(size), root: Sha256(root) })
        });
        position.map(Some).ok_or_else(|| self.damaged(meta::AUDIT_HEAD))
    }

    async fn quarantine(&mut self) -> Result<Option<QuarantineId>, JournalError> {
        let Some(value) = self.meta(meta::QUARANTINE).await? else { return Ok(None) };
        QuarantineId::try_from_slice(&value).map(Some).map_err(|_| self.damaged(meta::QUARANTINE))
    }

    async fn host_epoch(&mut self) -> Result<Option<HostEpoch>, JournalError> {
        let Some(value) = self.meta(meta::HOST_EPOCH).await? else { return Ok(None) };
        let bytes = value.as_slice().try_into().map_err(|_| self.damaged(meta::HOST_EPOCH))?;
        Ok(Some(HostEpoch(u64::from_be_bytes(bytes))))
    }

    async fn keys_since(&mut self) -> Result<Option<UnixMs>, JournalError> {
        let Some(value) = self.meta(meta::KEYS_SINCE).await? else { return Ok(None) };
        let bytes = value.as_slice().try_into().map_err(|_| self.damaged(meta::KEYS_SINCE))?;
        Ok(Some(UnixMs(u64::from_be_bytes(bytes))))
    }

    async fn retirement(&mut self) -> Result<Option<Retirement>, JournalError> {
        let Some(value) = self.meta(meta::RETIREMENT).await? else { return Ok(None) };
        let known = value.first().filter(|_| value.len() == 1).and_then(|number| retirement(*number));
        known.map(Some).ok_or_else(|| self.damaged(meta::RETIREMENT))
    }

    /// The epoch of the last keys that were offered, and the guard reset that asked for them.
    async fn keys_offered(&mut self) -> Result<(Option<HostEpoch>, Option<Vec<u8>>), JournalError> {
        let rows = self.rows("SELECT host_epoch, reset FROM key_change ORDER BY host_epoch DESC LIMIT 1").await?;
        let Some(row) = rows.first() else { return Ok((None, None)) };
        let reset = row.try_get(1).map_err(|error| JournalError::read(self.path, error))?;
        Ok((Some(HostEpoch(self.counter(row, 0)?)), reset))
    }

    async fn standing(&mut self) -> Result<Vec<StoredStanding>, JournalError> {
        let rows = self.rows("SELECT id, envelope FROM standing_order ORDER BY id").await?;
        let query = "SELECT standing_order, name, bytes FROM standing_value ORDER BY standing_order, position";
        let values = self.rows(query).await?;
        let mut standing = Vec::with_capacity(rows.len());
        for row in &rows {
            let id = self.blob(row, 0)?;
            let mut sealed = Vec::new();
            for value in &values {
                if self.blob(value, 0)? == id {
                    let name = value.try_get(1).map_err(|e| JournalError::read(self.path, e))?;
                    sealed.push(SealedValue { name, bytes: self.blob(value, 2)? });
                }
            }
            let order = StandingOrderId::try_from_slice(&id).map_err(|_| self.damaged("standing order id"))?;
            standing.push(StoredStanding { order, envelope: self.blob(row, 1)?, sealed });
        }
        Ok(standing)
    }

    async fn standing_revision(&mut self) -> Result<Revision, JournalError> {
        let Some(value) = self.meta(meta::STANDING_REVISION).await? else { return Ok(Revision(0)) };
        let bytes = value.as_slice().try_into().map_err(|_| self.damaged(meta::STANDING_REVISION))?;
        Ok(Revision(u64::from_be_bytes(bytes)))
    }

    async fn clock(&mut self) -> Result<Option<StoredClock>, JournalError> {
        let Some(value) = self.meta(meta::CLOCK).await? else { return Ok(None) };
        let clock = value.split_at_checked(16).and_then(|(boot, rest)| {
            let (time, at) = split(rest)?;
            Some(StoredClock {
                boot: BootId::try_from_slice(boot).ok()?,
                time: UnixMs(u64::from_be_bytes(time)),
                at: BootMs(u64::from_be_bytes(at)),
            })
        });
        clock.map(Some).ok_or_else(|| self.damaged(meta::CLOCK))
    }
}

/// Two fixed-width fields, and nothing more.
fn split<const N: usize, const M: usize>(bytes: &[u8]) -> Option<([u8; N], [u8; M])> {
    let (first, second) = bytes.split_at_checked(N)?;
    Some((first.try_into().ok()?, second.try_into().ok()?))
}
