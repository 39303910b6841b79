//! The audit log: a page of it, or all of it with what proves it.

use std::sync::Arc;

use api::{AuditEntry, AuditExportEntry};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use data_encoding::BASE64;
use fleet::{
    model::AuditRow,
    ports::{StoreError, Write},
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    access::Actor,
    input::{Query, list_limit},
    limits,
    problem::ApiError,
    records,
    state::Shared,
    view,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    first: Option<u64>,
    limit: Option<u32>,
}

/// From `first` on; without it, the last ones.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(page): Query<Page>,
) -> Result<Json<Vec<AuditEntry>>, ApiError> {
    let limit = list_limit(page.limit)?;
    let first = page.first.unwrap_or_else(|| shared.figures.audit_size().saturating_sub(u64::from(limit)));
    if i64::try_from(first).is_err() {
        return Err(ApiError::field("first", "no log is that long"));
    }
    let rows = shared.store.audit(first, limit).await?;
    let shown = rows.into_iter().map(|row| AuditEntry {
        index: row.index,
        time: row.time.into(),
        kind: row.kind.as_str().to_owned(),
        actor: row.actor,
        subject: row.subject,
        record_sha256: row.record_sha256.to_string(),
    });
    Ok(Json(shown.collect()))
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
    next: u64,
    /// Entries that existed when it began; later ones are another export's.
    size: u64,
    stage: Stage,
}

enum Stage {
    Head(Bytes),
    Entries,
    Ended,
}

/// One JSON document ([`api::AuditExport`]), written as it is read, so that neither end's memory
/// grows with the log. A fault in the middle cuts the connection: a document that ends is whole.
pub(super) async fn export(State(shared): State<Arc<Shared>>, Actor(actor): Actor) -> Result<Response, ApiError> {
    // Heads first: every entry they cover exists by then.
    let heads = shared.store.audit_heads(false).await?;
    let size = shared.figures.audit_size();
    let hosts = shared.store.hosts().await?;
    let head = format!(
        "{{\"root_chain\":{},\"heads\":{},\"receipts\":{},\"entries\":[",
        base64_list(shared.store.root_chain().await?.iter().map(Vec::as_slice)),
        base64_list(heads.iter().map(Vec::as_slice)),
        base64_list(hosts.iter().map(|host| host.receipt.as_slice())),
    );
    // Its own entry is the next export's, so that a log at rest is covered by its heads to the end.
    shared.store.write(Write::Audit(records::audit_exported(&actor, size, shared.now()))).await?;
    let export = Export { shared, next: 0, size, stage: Stage::Head(head.into()) };
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
        match core::mem::replace(&mut self.stage, Stage::Entries) {
            Stage::Head(head) => return Ok(Some(head)),
            Stage::Ended => {
                self.stage = Stage::Ended;
                return Ok(None);
            }
            Stage::Entries => {}
        }
        let left = u32::try_from(self.size - self.next).unwrap_or(u32::MAX).min(limits::EXPORT_ROWS);
        let rows = if left == 0 { Vec::new() } else { self.shared.store.audit(self.next, left).await? };
        let Some(last) = rows.last() else {
            if self.next < self.size {
                let (next, size) = (self.next, self.size);
                return Err(StoreError::Corrupt(format!("the audit log has {size} entries, but none from {next} on")));
            }
            self.stage = Stage::Ended;
            return Ok(Some(Bytes::from_static(b"]}")));
        };
        let mut piece = String::new();
        let after = last.index + 1;
        for row in rows {
            if row.index > 0 {
                piece.push(',');
            }
            piece.push_str(&view::value(&export_entry(row)).to_string());
        }
        self.next = after;
        Ok(Some(piece.into()))
    }
}
