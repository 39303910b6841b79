//! Standing orders, with how what was ordered about them ended.

use fleet::{
    model::CommandStatus,
    ports::StoreError,
    standing::{StandingRecord, StandingSeal, StandingStep, StepKind},
};
use ids::{DurationMs, Epoch, HostEpoch, HostId, Revision, StandingOrderId};
use sqlx::sqlite::SqliteRow;

use crate::{cipher::Place, rows::Fields, sqlite::Reader};

/// The first of a step's columns.
const STEP_COLUMN: usize = 11;

/// A row for each step, with the last command of its operation.
const SELECT: &str = "SELECT o.id, h.id, h.name, o.action, o.action_version, o.schedule, o.zone, o.valid_until, o.alone_for_ms, \
     o.requested_by, o.created_at, st.kind, p.id, st.at, st.revision, st.key, st.host_epoch, st.epoch, \
     c.number, c.status, c.settled_at, c.dry_run, c.message \
     FROM standing_orders o JOIN hosts h ON h.number = o.host JOIN standing_steps st ON st.standing = o.number \
     JOIN operations p ON p.number = st.operation \
     LEFT JOIN commands c ON c.number = (SELECT max(number) FROM commands WHERE operation = st.operation) \
     WHERE $1 IS NULL OR h.id = $1 ORDER BY o.number, st.number";

impl Reader {
    pub(crate) async fn standing_orders(&self, host: Option<HostId>) -> Result<Vec<StandingRecord>, StoreError> {
        let select = sqlx::query(SELECT).bind(host.map(|host| host.as_bytes().to_vec()));
        let mut records: Vec<StandingRecord> = Vec::new();
        for row in self.rows("reading standing orders", select).await? {
            let step = self.step(&row)?;
            let order = Fields::of(&row, "the standing orders").id()?;
            match records.last_mut().filter(|record| record.order == order) {
                Some(record) => record.steps.push(step),
                None => records.push(record(&row, step)?),
            }
        }
        Ok(records)
    }

    fn step(&self, row: &SqliteRow) -> Result<StandingStep, StoreError> {
        let mut fields = Fields::from(row, "the steps of standing orders", STEP_COLUMN);
        let word: &str = fields.get()?;
        let kind = StepKind::named(word).ok_or_else(|| {
            StoreError::Corrupt(
                "a step of a standing order is of a kind that no program wrote; restore the database".to_owned(),
            )
        })?;
        let (operation, at) = (fields.id()?, fields.time()?);
        let (revision, key) = (fields.number_maybe()?, fields.id_maybe()?);
        let (host_epoch, epoch) = (fields.number_maybe()?, fields.number_maybe()?);
        let seal = revision.zip(key).zip(host_epoch.zip(epoch)).map(|((revision, key), (host_epoch, epoch))| {
            StandingSeal { revision: Revision(revision), key, host_epoch: HostEpoch(host_epoch), epoch: Epoch(epoch) }
        });
        let number: Option<i64> = fields.get()?;
        let status: Option<CommandStatus> = fields.word_maybe()?;
        let (settled, dry_run) = (fields.time_maybe()?, fields.get::<Option<bool>>()?.unwrap_or_default());
        let message: Option<&[u8]> = fields.get()?;
        let message =
            number.zip(message).map(|(number, message)| self.cipher.open(Place::COMMAND_MESSAGE, number, message));
        let message = String::from_utf8_lossy(&message.transpose()?.unwrap_or_default()).into_owned();
        let is_under_way = settled.is_none() && !dry_run && status.is_some_and(|status| status != CommandStatus::Held);
        let ended = match (status, settled) {
            // A plan that led to no order.
            (Some(CommandStatus::Succeeded), Some(_)) if dry_run => Some(CommandStatus::Failed),
            (status, Some(_)) => status,
            (_, None) => None,
        };
        Ok(StandingStep { kind, operation, seal, at, ended, is_under_way, message })
    }

    pub(crate) async fn standing_envelope(&self, order: StandingOrderId) -> Result<Option<Vec<u8>>, StoreError> {
        let select = sqlx::query(
            "SELECT st.number, st.envelope FROM standing_steps st JOIN standing_orders o ON o.number = st.standing \
             WHERE o.id = $1 AND st.envelope IS NOT NULL ORDER BY st.number DESC LIMIT 1",
        );
        let row = self.row("reading a standing order", select.bind(order.as_bytes().to_vec())).await?;
        let Some(row) = row else { return Ok(None) };
        let mut fields = Fields::of(&row, "the steps of standing orders");
        let number: i64 = fields.get()?;
        self.cipher.open(Place::STANDING_ENVELOPE, number, fields.get()?).map(Some)
    }

    pub(crate) async fn standing_revision(&self, host: HostId) -> Result<Revision, StoreError> {
        let select = sqlx::query(
            "SELECT revision FROM standing_revisions WHERE host = (SELECT number FROM hosts WHERE id = $1)",
        );
        let row = self.row("reading a host's last revision", select.bind(host.as_bytes().to_vec())).await?;
        row.map_or(Ok(Revision(0)), |row| Fields::of(&row, "the revisions").number().map(Revision))
    }
}

fn record(row: &SqliteRow, step: StandingStep) -> Result<StandingRecord, StoreError> {
    let mut fields = Fields::of(row, "the standing orders");
    Ok(StandingRecord {
        order: fields.id()?,
        host: fields.id()?,
        host_name: fields.word()?,
        action: fields.word()?,
        action_version: fields.small()?,
        schedule: fields.get()?,
        zone: fields.get()?,
        valid_until: fields.time()?,
        alone_for: DurationMs(fields.number()?),
        requested_by: fields.word()?,
        created_at: fields.time()?,
        steps: vec![step],
    })
}
