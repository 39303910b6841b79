//! Lists of commands, operations and audit entries. Nothing is opened but what a list shows.

use std::collections::HashMap;

use envelope::audit::AuditKind;
use fleet::{
    list::{
        AuditFilter, AuditLine, AuditSort, CommandLine, CommandListFilter, HeadLine, ListPage, Listed, OperationFilter,
        OperationLine,
    },
    model::{Command, CommandStatus},
    ports::StoreError,
};
use ids::{UnixMs, UserName};
use sqlx::{QueryBuilder, Sqlite, sqlite::SqliteRow};

use super::{
    commands::SELECT as WHOLE_COMMANDS,
    keyset::{Order, listed, number_key},
};
use crate::{
    cipher::Place,
    codes::operation_kind,
    limits,
    rows::{Fields, int, pieces},
    sqlite::Reader,
};

const COMMANDS: &str = "SELECT c.number, c.id, o.id, h.id, h.name, c.action, c.action_version, c.app, c.dry_run, \
     c.status, c.message, c.requested_by, c.proposed_at, c.settled_at FROM commands c \
     JOIN hosts h ON h.number = c.host JOIN operations o ON o.number = c.operation WHERE 1 = 1";

const OPERATIONS: &str = "SELECT o.number, o.id, o.kind, o.requested_by, o.created_at, o.dry_run, o.selector \
     FROM operations o WHERE 1 = 1";

const AUDIT: &str =
    "SELECT a.leaf, a.time, a.kind, a.actor, a.subject, a.record_sha256 FROM audit_leaves a WHERE 1 = 1";

/// `AND column >= since AND column < until`
fn between(
    select: &mut QueryBuilder<Sqlite>,
    column: &'static str,
    since: Option<UnixMs>,
    until: Option<UnixMs>,
) -> Result<(), StoreError> {
    for (time, compare) in [(since, ">="), (until, "<")] {
        if let Some(time) = time {
            select.push(format_args!(" AND {column} {compare} ")).push_bind(int(time.0)?);
        }
    }
    Ok(())
}

pub(super) fn commands(filter: &CommandListFilter, page: &ListPage) -> Result<QueryBuilder<Sqlite>, StoreError> {
    let mut select = QueryBuilder::new(COMMANDS);
    if let Some(host) = filter.host {
        select.push(" AND c.host = (SELECT number FROM hosts WHERE id = ").push_bind(host.as_bytes().to_vec());
        select.push(")");
    }
    if let Some(operation) = filter.operation {
        select.push(" AND c.operation = (SELECT number FROM operations WHERE id = ");
        select.push_bind(operation.as_bytes().to_vec()).push(")");
    }
    if let Some(status) = filter.status {
        // Both are implied by the status; they name the index that serves it.
        select.push(if status.is_end() { " AND c.settled_at IS NOT NULL" } else { " AND c.settled_at IS NULL" });
        select.push(" AND c.status = ").push_bind(status.as_str());
    }
    if let Some(app) = &filter.app {
        select.push(" AND c.app = ").push_bind(app.to_string());
    }
    if let Some(action) = &filter.action {
        select.push(" AND c.action = ").push_bind(action.to_string());
    }
    if let Some(user) = &filter.requested_by {
        select.push(" AND c.requested_by = ").push_bind(user.to_string());
    }
    between(&mut select, "c.proposed_at", filter.since, filter.until)?;
    Order::number("c.proposed_at", "c.number").end(&mut select, page);
    Ok(select)
}

pub(super) fn operations(filter: &OperationFilter, page: &ListPage) -> Result<QueryBuilder<Sqlite>, StoreError> {
    let mut select = QueryBuilder::new(OPERATIONS);
    if let Some(user) = &filter.requested_by {
        select.push(" AND o.requested_by = ").push_bind(user.to_string());
    }
    between(&mut select, "o.created_at", filter.since, filter.until)?;
    Order::number("o.created_at", "o.number").end(&mut select, page);
    Ok(select)
}

pub(super) fn audit(
    filter: &AuditFilter,
    sort: AuditSort,
    page: &ListPage,
) -> Result<QueryBuilder<Sqlite>, StoreError> {
    let mut select = QueryBuilder::new(AUDIT);
    if let Some(first) = filter.first {
        select.push(" AND a.leaf >= ").push_bind(int(first)?);
    }
    if let Some(kind) = filter.kind {
        select.push(" AND a.kind = ").push_bind(i64::from(kind.number()));
    }
    if let Some(actor) = &filter.actor {
        select.push(" AND a.actor = ").push_bind(actor.clone());
    }
    between(&mut select, "a.time", filter.since, filter.until)?;
    let order = match sort {
        AuditSort::Time => Order::number("a.time", "a.leaf"),
        AuditSort::Index => Order::number("a.leaf", "a.leaf"),
    };
    order.end(&mut select, page);
    Ok(select)
}

pub(super) fn overdue(now: UnixMs, limit: u32) -> Result<QueryBuilder<Sqlite>, StoreError> {
    let mut select = QueryBuilder::new(WHOLE_COMMANDS);
    select.push("WHERE c.status IN ('queued', 'held') AND c.deliver_by < ").push_bind(int(now.0)?);
    select.push(" ORDER BY c.deliver_by LIMIT ").push_bind(i64::from(limit.min(limits::LIST_MAX)));
    Ok(select)
}

impl Reader {
    pub(crate) async fn commands_list(
        &self,
        filter: CommandListFilter,
        page: ListPage,
    ) -> Result<Listed<CommandLine>, StoreError> {
        let rows = self.rows("listing commands", commands(&filter, &page)?.build()).await?;
        listed(rows, &page, |row| {
            let mut fields = Fields::of(row, "the commands");
            let number = fields.number()?;
            let (command, operation, host, host_name) = (fields.id()?, fields.id()?, fields.id()?, fields.word()?);
            let (action, action_version, app) = (fields.word()?, fields.small()?, fields.word_maybe()?);
            let (dry_run, status) = (fields.get()?, fields.word()?);
            let message = self.message(int(number)?, fields.get()?)?;
            let requested_by: UserName = fields.word()?;
            let (proposed_at, settled_at) = (fields.time()?, fields.time_maybe()?);
            let line = CommandLine {
                command,
                operation,
                host,
                host_name,
                action,
                action_version,
                app,
                dry_run,
                status,
                message,
                requested_by,
                proposed_at,
                settled_at,
            };
            Ok((number_key(proposed_at.0, number), line))
        })
    }

    fn message(&self, number: i64, sealed: Option<&[u8]>) -> Result<String, StoreError> {
        let message = sealed.map(|sealed| self.cipher.open(Place::COMMAND_MESSAGE, number, sealed)).transpose()?;
        String::from_utf8(message.unwrap_or_default())
            .map_err(|_| StoreError::Corrupt(format!("the message of command number {number} is no text")))
    }

    pub(crate) async fn commands_overdue(&self, now: UnixMs, limit: u32) -> Result<Vec<Command>, StoreError> {
        self.whole(overdue(now, limit)?, "").await
    }

    pub(crate) async fn operations_list(
        &self,
        filter: OperationFilter,
        page: ListPage,
    ) -> Result<Listed<OperationLine>, StoreError> {
        let rows = self.rows("listing operations", operations(&filter, &page)?.build()).await?;
        let mut listed = listed(rows, &page, |row| {
            let mut fields = Fields::of(row, "the operations");
            let number = fields.number()?;
            let line = OperationLine {
                operation: fields.id()?,
                kind: operation_kind(fields.get()?)?,
                requested_by: fields.word()?,
                created_at: fields.time()?,
                dry_run: fields.get()?,
                selector: fields.get()?,
                commands: Vec::new(),
            };
            Ok((number_key(line.created_at.0, number), line))
        })?;
        let numbers = listed.items.iter().map(|(key, _)| int(key.row)).collect::<Result<Vec<i64>, _>>()?;
        let mut counts = self.command_counts(&numbers).await?;
        for (number, (_, line)) in numbers.iter().zip(&mut listed.items) {
            line.commands = counts.remove(number).unwrap_or_default();
        }
        Ok(listed)
    }

    async fn command_counts(&self, operations: &[i64]) -> Result<HashMap<i64, Vec<(CommandStatus, u64)>>, StoreError> {
        let mut counts: HashMap<i64, Vec<(CommandStatus, u64)>> = HashMap::new();
        for piece in pieces(operations) {
            let mut select =
                QueryBuilder::<Sqlite>::new("SELECT operation, status, count(*) FROM commands WHERE operation IN (");
            let mut list = select.separated(", ");
            for operation in piece {
                list.push_bind(*operation);
            }
            select.push(") GROUP BY operation, status");
            for row in self.rows("counting commands", select.build()).await? {
                let mut fields = Fields::of(&row, "the commands");
                let (operation, status) = (fields.get()?, fields.word()?);
                counts.entry(operation).or_default().push((status, fields.number()?));
            }
        }
        Ok(counts)
    }

    pub(crate) async fn audit_list(
        &self,
        filter: AuditFilter,
        sort: AuditSort,
        page: ListPage,
    ) -> Result<Listed<AuditLine>, StoreError> {
        let rows = self.rows("listing the audit log", audit(&filter, sort, &page)?.build()).await?;
        listed(rows, &page, |row: &SqliteRow| {
            let mut fields = Fields::of(row, "the audit log");
            let (index, time, kind) = (fields.number()?, fields.time()?, fields.small()?);
            let kind = u16::try_from(kind).ok().and_then(AuditKind::from_number).ok_or_else(|| {
                StoreError::Corrupt(format!("audit entry {index} is of kind {kind}, which this program does not know"))
            })?;
            let (actor, subject, record_sha256) = (fields.get()?, fields.get()?, fields.hash()?);
            let key = match sort {
                AuditSort::Time => number_key(time.0, index),
                AuditSort::Index => number_key(index, index),
            };
            Ok((key, AuditLine { index, time, kind, actor, subject, record_sha256 }))
        })
    }

    pub(crate) async fn audit_heads_after(&self, size: u64, limit: u32) -> Result<Vec<HeadLine>, StoreError> {
        let select = sqlx::query("SELECT size, envelope FROM audit_heads WHERE size > $1 ORDER BY size LIMIT $2")
            .bind(int(size)?)
            .bind(i64::from(limit.min(limits::AUDIT_ROWS_MAX)));
        let rows = self.rows("reading the audit heads", select).await?;
        let head = |row: &SqliteRow| {
            let mut fields = Fields::of(row, "the audit heads");
            Ok(HeadLine { size: fields.number()?, envelope: fields.get()? })
        };
        rows.iter().map(head).collect()
    }
}
