//! Operations and commands, whole: with parameters, signed versions and report.

use envelope::messages::{Order, SealedRef, SealedValue};
use fleet::{
    model::{Command, CommandFilter, Operation, Seal},
    ports::StoreError,
};
use ids::{CommandId, HostId, OperationId, Sequence, Sha256};
use sqlx::{QueryBuilder, Sqlite, sqlite::SqliteRow};

use crate::{cipher::Place, codes::operation_kind, limits, rows::Fields, sqlite::Reader};

const DOING: &str = "reading commands";

/// The first of a seal's columns in [`SELECT`].
const SEAL_COLUMN: usize = 28;
/// Columns of [`SELECT`] in all.
pub(super) const COLUMNS: usize = 33;
/// The end of [`SELECT`]: a command that was sealed several times has a row for each, in order.
pub(super) const ORDER: &str = ") ORDER BY c.number, s.sequence";

pub(super) const SELECT: &str = "SELECT c.number, c.id, h.id, h.name, o.id, o.requested_by, c.status, c.action, c.app, \
     c.delivered_at, c.accepted_at, c.started_at, c.settled_at, c.fleet, c.proposed_at, c.deliver_by, \
     c.start_within_ms, c.action_version, c.schema_sha256, c.requester, c.dry_run, p.number, p.body, c.sealed_refs, \
     c.sealed_values, c.message, r.envelope, \
     (SELECT group_concat(hex(a.envelope)) FROM command_approvals a WHERE a.command = c.number), s.number, s.sequence, s.expires, s.payload_sha256, s.envelope \
     FROM commands c JOIN hosts h ON h.number = c.host \
     JOIN operations o ON o.number = c.operation JOIN parameters p ON p.number = c.parameters \
     LEFT JOIN command_reports r ON r.command = c.number LEFT JOIN command_seals s ON s.command = c.number \
     WHERE c.number IN (SELECT c.number FROM commands c ";

impl Reader {
    pub(crate) async fn operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        let select = sqlx::query(
            "SELECT number, id, kind, requested_by, created_at, request_sha256, queue_for_ms, dry_run, detail, \
             selector, approvals, requester FROM operations WHERE id = $1",
        )
        .bind(&id.as_bytes()[..]);
        let Some(row) = self.row("reading an operation", select).await? else {
            return Ok(None);
        };
        let mut fields = Fields::of(&row, "the operations");
        let number: i64 = fields.get()?;
        Ok(Some(Operation {
            id: fields.id()?,
            kind: operation_kind(fields.get()?)?,
            requested_by: fields.word()?,
            created_at: fields.time()?,
            request_sha256: fields.hash()?,
            queue_for_ms: fields.number()?,
            dry_run: fields.get()?,
            detail: self.cipher.open(Place::OPERATION_DETAIL, number, fields.get()?)?,
            selector: fields.get()?,
            approvals: fields.small()?,
            requester: fields.id_maybe()?,
        }))
    }

    pub(crate) async fn command(&self, id: CommandId) -> Result<Option<Command>, StoreError> {
        let mut select = QueryBuilder::new(SELECT);
        select.push("WHERE c.id = ").push_bind(id.as_bytes().to_vec());
        Ok(self.whole(select, "").await?.pop())
    }

    pub(crate) async fn commands_open(&self, host: HostId) -> Result<Vec<Command>, StoreError> {
        let mut select = QueryBuilder::new(SELECT);
        select.push("WHERE c.host = (SELECT number FROM hosts WHERE id = ").push_bind(host.as_bytes().to_vec());
        select.push(") AND c.settled_at IS NULL");
        self.whole(select, "").await
    }

    pub(crate) async fn commands(&self, filter: CommandFilter) -> Result<Vec<Command>, StoreError> {
        let mut select = QueryBuilder::new(SELECT);
        select.push("WHERE 1 = 1");
        if let Some(host) = filter.host {
            select.push(" AND c.host = (SELECT number FROM hosts WHERE id = ").push_bind(host.as_bytes().to_vec());
            select.push(")");
        }
        if let Some(operation) = filter.operation {
            select.push(" AND c.operation = (SELECT number FROM operations WHERE id = ");
            select.push_bind(operation.as_bytes().to_vec()).push(")");
        }
        if let Some(status) = filter.status {
            select.push(" AND c.status = ").push_bind(status.as_str());
            if !status.is_end() {
                // Implied by the status; lets the index of open commands serve.
                select.push(" AND c.settled_at IS NULL");
            }
        }
        if let Some(app) = &filter.app {
            select.push(" AND c.app = ").push_bind(app.as_str());
        }
        if let Some(action) = &filter.action {
            select.push(" AND c.action = ").push_bind(action.as_str());
        }
        if let Some(before) = filter.before {
            select.push(" AND c.number < (SELECT number FROM commands WHERE id = ");
            select.push_bind(before.as_bytes().to_vec()).push(")");
        }
        let limit = filter.limit.clamp(1, limits::LIST_MAX);
        select.push(" ORDER BY c.number DESC LIMIT ").push_bind(i64::from(limit));
        self.whole(select, "DESC").await
    }

    /// Reads what `select` finds and everything that belongs to it, in one statement and so as of one
    /// moment. A command that was sealed several times has a row for each.
    pub(super) async fn whole(
        &self,
        mut select: QueryBuilder<Sqlite>,
        order: &str,
    ) -> Result<Vec<Command>, StoreError> {
        select.push(format_args!(") ORDER BY c.number {order}, s.sequence"));
        let rows = self.rows(DOING, select.build()).await?;
        self.commands_of(&rows)
    }

    /// The commands of rows of [`SELECT`], those of one command behind each other.
    pub(super) fn commands_of<'r>(
        &self,
        rows: impl IntoIterator<Item = &'r SqliteRow>,
    ) -> Result<Vec<Command>, StoreError> {
        let mut commands: Vec<Command> = Vec::new();
        let mut last = None;
        for row in rows {
            let mut fields = Fields::of(row, "the commands");
            let number: i64 = fields.get()?;
            if last != Some(number) {
                last = Some(number);
                commands.push(self.command_of(row)?);
            }
            let mut fields = Fields::from(row, "the signed commands", SEAL_COLUMN);
            if let (Some(seal), Some(command)) = (fields.get::<Option<i64>>()?, commands.last_mut()) {
                command.seals.push(Seal {
                    sequence: Sequence(fields.number()?),
                    expires: fields.time()?,
                    payload_sha256: fields.hash()?,
                    envelope: self.cipher.open(Place::SEAL, seal, fields.get()?)?,
                });
            }
        }
        Ok(commands)
    }

    fn command_of(&self, row: &SqliteRow) -> Result<Command, StoreError> {
        let mut fields = Fields::of(row, "the commands");
        let number: i64 = fields.get()?;
        let (command, host, host_name) = (fields.id()?, fields.id()?, fields.word()?);
        let (operation, requested_by) = (fields.id()?, fields.word()?);
        let (status, action, app) = (fields.word()?, fields.word()?, fields.word_maybe()?);
        let (delivered_at, accepted_at) = (fields.time_maybe()?, fields.time_maybe()?);
        let (started_at, settled_at) = (fields.time_maybe()?, fields.time_maybe()?);
        let mut order = Order {
            fleet: fields.id()?,
            host,
            command,
            operation,
            proposed_at: fields.time()?,
            deliver_by: fields.time()?,
            start_within_ms: fields.number()?,
            action,
            action_version: fields.small()?,
            schema_sha256: fields.hash()?,
            parameters: Vec::new(),
            sealed: Vec::new(),
            requester: fields.id_maybe()?,
            dry_run: fields.get()?,
        };
        let parameters: i64 = fields.get()?;
        order.parameters = self.cipher.open(Place::PARAMETERS, parameters, fields.get()?)?;
        for (name, hash) in fields.named()? {
            let sha256 = Sha256::try_from_slice(&hash).ok_or_else(|| {
                StoreError::Corrupt(format!(
                    "command {command} has no hash for {name}; restore the database from a backup"
                ))
            })?;
            order.sealed.push(SealedRef { name, sha256 });
        }
        let sealed = fields.named()?.into_iter().map(|(name, bytes)| SealedValue { name, bytes }).collect();
        let message: Option<&[u8]> = fields.get()?;
        let message = message.map(|sealed| self.cipher.open(Place::COMMAND_MESSAGE, number, sealed)).transpose()?;
        let message = String::from_utf8(message.unwrap_or_default())
            .map_err(|_| StoreError::Corrupt(format!("the message of command {command} is no text")))?;
        let report: Option<&[u8]> = fields.get()?;
        let report = report.map(|sealed| self.cipher.open(Place::REPORT, number, sealed)).transpose()?;
        let approvals = approvals(fields.get()?).ok_or_else(|| {
            StoreError::Corrupt(format!("the approvals of command {command} cannot be read; restore the database"))
        })?;
        Ok(Command {
            order,
            host_name,
            app,
            sealed,
            approvals,
            status,
            message,
            requested_by,
            seals: Vec::new(),
            report,
            delivered_at,
            accepted_at,
            started_at,
            settled_at,
        })
    }
}

/// Envelopes as one text of hexadecimal numbers, so that a command is one row however many approved it.
fn approvals(text: Option<&str>) -> Option<Vec<Vec<u8>>> {
    let byte = |pair: &[u8]| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok();
    let envelope = |hex: &str| hex.as_bytes().chunks(2).map(byte).collect::<Option<Vec<u8>>>();
    text.map_or(Some(Vec::new()), |text| text.split(',').map(envelope).collect())
}
