//! The audit log: a page of it, or all of it with what proves it.

use std::sync::Arc;

use api::{AuditEntry, AuditExportEntry, Page, Timestamp};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use data_encoding::BASE64;
use envelope::audit::AuditKind;
use fleet::{
    list::{AuditFilter, AuditLine, AuditSort, HostFilter, HostSort, ListKey, ListPage},
    model::AuditRow,
    ports::{StoreError, Write},
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    access::{self, Actor},
    input::Query,
    limits,
    list::{List, ListQuery, Sorted},
    problem::ApiError,
    records,
    state::Shared,
    view,
};

pub(super) const LIST: List = List { name: "audit", sorts: &["-time", "index"] };

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// From this place in the log on.
    first: Option<u64>,
    /// A kind of entry, such as `sign-in`.
    kind: Option<String>,
    /// Who did it.
    actor: Option<String>,
    /// From then on.
    since: Option<Timestamp>,
    /// Before then.
    until: Option<Timestamp>,
    limit: Option<u32>,
    after: Option<String>,
    sort: Option<String>,
}

impl Filter {
    /// What was asked for, as far as it goes together.
    fn read(self) -> Result<(AuditFilter, AuditSort, Sorted), ApiError> {
        let sort = self.sort.or_else(|| self.first.map(|_| "index".to_owned()));
        let sorted = LIST.read(ListQuery { limit: self.limit, after: self.after, sort })?;
        let order = if sorted.field == "index" { AuditSort::Index } else { AuditSort::Time };
        let filtered = self.kind.is_some() || self.actor.is_some() || self.since.is_some() || self.until.is_some();
        match order {
            AuditSort::Index if filtered => {
                return Err(ApiError::field("sort", "kind, actor, since and until go with `time` or `-time` only"));
            }
            AuditSort::Time if self.first.is_some() => {
                return Err(ApiError::field("first", "goes with `index` or `-index` only"));
            }
            _ => {}
        }
        if self.first.is_some_and(|first| i64::try_from(first).is_err()) {
            return Err(ApiError::field("first", "no log is that long"));
        }
        let kind = |word: String| {
            let known = AuditKind::ALL.iter().find(|kind| kind.as_str() == word);
            known.copied().ok_or_else(|| ApiError::field("kind", no_kind(&word)))
        };
        let filter = AuditFilter {
            first: self.first,
            kind: self.kind.map(kind).transpose()?,
            actor: self.actor,
            since: self.since.map(|time| time.0),
            until: self.until.map(|time| time.0),
        };
        Ok((filter, order, sorted))
    }
}

fn no_kind(word: &str) -> String {
    let known: Vec<&str> = AuditKind::ALL.iter().map(|kind| kind.as_str()).collect();
    format!("no entry is of the kind {word:?}; there are {}", known.join(", "))
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    let (filter, order, sorted) = filter.read()?;
    let listed = shared.store.audit_list(filter, order, sorted.page.clone()).await?;
    Ok(Json(sorted.answer(listed, |line: AuditLine| AuditEntry {
        index: line.index,
        time: line.time.into(),
        kind: line.kind.as_str().to_owned(),
        actor: line.actor,
        subject: line.subject,
        record_sha256: line.record_sha256.to_string(),
    })))
}

fn export_entry(row: AuditRow) -> AuditExportEntry {
    AuditExportEntry {
        index: row.index,
        time_ms: row.time.0,
        kind: u32::from(row.kind.number()),
        actor: row.actor,
        subject: row.subject,
        record_sha256: row.record_sha256.to_string(),
        record: row.record.map(|record| BASE64.encode(&record)),
    }
}

fn base64_list<'a>(envelopes: impl IntoIterator<Item = &'a [u8]>) -> Value {
    envelopes.into_iter().map(|envelope| Value::String(BASE64.encode(envelope))).collect()
}

/// Where an export stands.
struct Export {
    shared: Arc<Shared>,
    /// Entries that exist; later ones are another export's.
    size: u64,
    stage: Stage,
}

enum Stage {
    Begin,
    /// Heads of more than so many leaves are to come.
    Heads(u64),
    /// Receipts of the hosts behind this place are to come; all of them when absent.
    Receipts(Option<ListKey>),
    /// Entries from this one on are to come.
    Entries(u64),
    Ended,
}

/// One JSON document ([`api::AuditExport`]), written as it is read, so that neither end's memory
/// grows with the log. A fault in the middle cuts the connection: a document that ends is whole.
pub(super) async fn export(State(shared): State<Arc<Shared>>, Actor(actor): Actor) -> Result<Response, ApiError> {
    // The size first: heads signed later are left out, so every entry that a head covers is there.
    let size = shared.figures.audit_size();
    // Its own entry is the next export's, so that a log at rest is covered by its heads to the end.
    let audit = records::audit_exported(&actor, size, shared.now());
    access::write(&shared, &actor, Write::Audit(audit)).await?;
    let export = Export { shared, size, stage: Stage::Begin };
    let pieces = stream::try_unfold(export, |mut export| async move {
        let piece = export.piece().await.inspect_err(|error| {
            tracing::error!(%error, "an export of the audit log was cut");
        })?;
        Ok::<_, StoreError>(piece.map(|piece| (piece, export)))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"serverflow-audit.json\""),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

impl Export {
    async fn piece(&mut self) -> Result<Option<Bytes>, StoreError> {
        let (text, next) = match core::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Begin => {
                let chain = self.shared.store.root_chain().await?;
                let chain = base64_list(chain.iter().map(Vec::as_slice));
                (format!("{{\"root_chain\":{chain},\"heads\":["), Stage::Heads(0))
            }
            Stage::Heads(after) => self.heads(after).await?,
            Stage::Receipts(after) => self.receipts(after).await?,
            Stage::Entries(first) => self.entries(first).await?,
            Stage::Ended => return Ok(None),
        };
        self.stage = next;
        Ok(Some(text.into()))
    }

    async fn heads(&self, after: u64) -> Result<(String, Stage), StoreError> {
        let mut heads = self.shared.store.audit_heads_after(after, limits::EXPORT_ROWS).await?;
        heads.retain(|head| head.size <= self.size);
        let Some(last) = heads.last() else { return Ok(("],\"receipts\":[".to_owned(), Stage::Receipts(None))) };
        let last = last.size;
        let text = joined(after == 0, heads.iter().map(|head| Value::String(BASE64.encode(&head.envelope))));
        Ok((text, Stage::Heads(last)))
    }

    /// In the order of enrolment, which no renaming changes.
    async fn receipts(&self, after: Option<ListKey>) -> Result<(String, Stage), StoreError> {
        let is_first = after.is_none();
        let page = ListPage { descending: false, after, limit: limits::EXPORT_ROWS };
        let hosts = self.shared.store.hosts_list(HostFilter::default(), HostSort::EnrolledAt, page).await?;
        let Some((last, _)) = hosts.items.last() else { return Ok(("],\"entries\":[".to_owned(), Stage::Entries(0))) };
        let last = last.clone();
        let text = joined(is_first, hosts.items.iter().map(|(_, host)| Value::String(BASE64.encode(&host.receipt))));
        Ok((text, Stage::Receipts(Some(last))))
    }

    async fn entries(&self, first: u64) -> Result<(String, Stage), StoreError> {
        let left = u32::try_from(self.size - first).unwrap_or(u32::MAX).min(limits::EXPORT_ROWS);
        let rows = if left == 0 { Vec::new() } else { self.shared.store.audit(first, left).await? };
        let Some(last) = rows.last() else {
            if first < self.size {
                let size = self.size;
                return Err(StoreError::Corrupt(format!("the audit log has {size} entries, but none from {first} on")));
            }
            return Ok(("]}".to_owned(), Stage::Ended));
        };
        let next = last.index + 1;
        let text = joined(first == 0, rows.into_iter().map(|row| view::value(&export_entry(row))));
        Ok((text, Stage::Entries(next)))
    }
}

/// Items of a JSON array that is written piece by piece.
fn joined(is_first: bool, items: impl Iterator<Item = Value>) -> String {
    let mut text = String::new();
    for (index, item) in items.enumerate() {
        if index > 0 || !is_first {
            text.push(',');
        }
        text.push_str(&item.to_string());
    }
    text
}
