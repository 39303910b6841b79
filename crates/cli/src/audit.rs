//! `audit …`

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
};

use api::{AuditEntry, AuditExportEntry};
use data_encoding::BASE64;
use envelope::{
    audit::AuditKind,
    audit_verify::{self, AuditVerdict, ExportedEntry},
    messages::PublicKeyBytes,
};
use ids::{Sha256, UnixMs};
use serde::{Deserialize, Serialize};

use crate::{
    arguments::{Audit, Entries},
    client::Client,
    clock,
    exit::{Ended, Failure, Kind},
    files, limits,
    list::{self, part},
    output::{Output, Paint},
    session_file::Place,
    spans::relative,
    table::{Table, fields},
};

pub(crate) async fn run(output: &Output, place: Place<'_>, verb: Audit) -> Result<Ended, Failure> {
    match verb {
        Audit::List(asked) => list(output, &Client::signed_in(place)?, asked).await,
        Audit::Verify { file, root } => verify(output, place, root, file.as_deref()).await,
        Audit::Export { file } => export(output, &Client::signed_in(place)?, &file).await,
    }
}

/// The newest are asked for, and shown in the order of the log, unless another order is asked for.
async fn list(output: &Output, client: &Client, asked: Entries) -> Result<Ended, Failure> {
    let sort = asked.extent.sort();
    let is_latest_first = asked.first.is_none() && sort.is_none();
    let query = [
        part("first", asked.first.as_ref()),
        part("kind", asked.kind.as_ref()),
        part("actor", asked.actor.as_ref()),
        sort,
    ];
    let query: Vec<_> = query.into_iter().flatten().chain(asked.period.query()).collect();
    let mut entries: Vec<AuditEntry> = list::items(client, &["audit"], &query, asked.extent.most()).await?;
    if is_latest_first {
        entries.reverse();
    }
    output.result(&entries, |entries, paint| list_words(entries, clock::now(), paint))?;
    Ok(Ended::Well)
}

fn list_words(entries: &[AuditEntry], now: UnixMs, paint: Paint) -> String {
    let mut table = Table::new(["INDEX", "TIME", "KIND", "ACTOR", "SUBJECT"]);
    for entry in entries {
        table.row([
            entry.index.into(),
            relative(now, entry.time.0).into(),
            entry.kind.as_str().into(),
            entry.actor.as_str().into(),
            entry.subject.as_str().into(),
        ]);
    }
    table.render(paint, "no such entries")
}

/// What `audit export --json` prints.
#[derive(Serialize)]
struct Exported<'a> {
    file: &'a Path,
    bytes: u64,
}

async fn export(output: &Output, client: &Client, file: &Path) -> Result<Ended, Failure> {
    if file.as_os_str() == "-" {
        client.download(&["audit", "export"], &mut std::io::stdout().lock()).await?;
        return Ok(Ended::Well);
    }
    let failed = |error: std::io::Error| Failure::file("write", file, &error);
    // Before the log is fetched, so that a name that is taken is known at once.
    if file.try_exists().map_err(failed)? {
        return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
    }
    // Beside it first: what has the name is whole, whatever happens on the way.
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(beside);
    let mut opened = OpenOptions::new().write(true).create_new(true).open(&beside).map_err(failed)?;
    let written = client.download(&["audit", "export"], &mut opened).await.and_then(|bytes| {
        // A link is not made over a file that has come meanwhile.
        let placed = opened.sync_all().and_then(|()| std::fs::hard_link(&beside, file));
        placed.map_err(failed).map(|()| bytes)
    });
    let _ = std::fs::remove_file(&beside);
    let bytes = written?;
    output.result(&Exported { file, bytes }, |_, _| {
        format!(
            "{} written ({bytes} bytes); verify it with `serverflow audit verify {} --root root.pub`, where root.pub is the \
             file with the root's public key\n",
            file.display(),
            file.display()
        )
    })?;
    Ok(Ended::Well)
}

async fn verify(
    output: &Output,
    place: Place<'_>,
    root: Option<PathBuf>,
    file: Option<&Path>,
) -> Result<Ended, Failure> {
    let root_key = root_key(root)?;
    let keep = match file {
        Some(_) => "Keep this export",
        None => "Keep an export (`serverflow audit export FILE`)",
    };
    let no_export =
        |e: serde_json::Error| Failure::new(Kind::NotWell, format!("this is no export of an audit log: {e}"));
    let export = match file {
        // Taken in as it is read: the text of a long log is several times as large as what it says.
        Some(file) => serde_json::from_reader(files::open(file, limits::EXPORT_BYTES_MAX)?).map_err(no_export)?,
        None => {
            let client = Client::signed_in(place)?;
            output.progress(format_args!("fetching the audit log from {}", client.address()));
            serde_json::from_slice(&client.get_bytes(&["audit", "export"]).await?).map_err(no_export)?
        }
    };
    let verified = read_export(export)
        .and_then(|export| audit_verify::verify_export(&export, root_key).map_err(|fault| with_sources(&fault)));
    let document = match &verified {
        Ok(verdict) => VerdictDocument::verified(verdict),
        Err(fault) => VerdictDocument { verified: false, fault: Some(fault), ..VerdictDocument::default() },
    };
    output.result(&document, |_, paint| match &verified {
        Ok(verdict) => verdict_words(verdict, clock::now(), paint),
        Err(fault) => format!(
            "{}: {fault}\n{keep} and the root key's file: they are the evidence. If that file is another fleet's, \
             verify with the right one.\n",
            paint.on(anstyle::AnsiColor::Red.on_default().bold(), "NOT VERIFIED")
        ),
    })?;
    Ok(Ended::well_if(verified.is_ok()))
}

/// An error with what caused it, on one line.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

/// The root's public key: what everything is verified from.
fn root_key(root: Option<PathBuf>) -> Result<PublicKeyBytes, Failure> {
    let path = root.filter(|path| !path.as_os_str().is_empty()).ok_or_else(|| {
        Failure::invalid("the root's public key is needed, since nothing else may be trusted")
            .hint("name its file with --root FILE or SERVERFLOW_ROOT; `serverflow-control-plane init` wrote it")
    })?;
    let text = files::read_text(&path, limits::ROOT_FILE_BYTES_MAX)?;
    text.trim().parse().map_err(|_| {
        Failure::invalid(format!("{} holds no public key: expected 64 hexadecimal digits", path.display()))
    })
}

/// An [`api::AuditExport`] whose entries are taken in one by one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Export {
    root_chain: Vec<String>,
    heads: Vec<String>,
    receipts: Vec<String>,
    entries: Vec<Entry>,
}

/// An entry as it is verified, or why it cannot be read.
#[derive(Deserialize)]
#[serde(from = "AuditExportEntry")]
struct Entry(Result<ExportedEntry, String>);

impl From<AuditExportEntry> for Entry {
    fn from(entry: AuditExportEntry) -> Self {
        Self(read_entry(entry))
    }
}

/// From the form it travels in to the one that is verified. What cannot be read does not verify.
fn read_export(export: Export) -> Result<audit_verify::AuditExport, String> {
    Ok(audit_verify::AuditExport {
        root_chain: envelopes("root_chain", &export.root_chain)?,
        heads: envelopes("heads", &export.heads)?,
        receipts: envelopes("receipts", &export.receipts)?,
        entries: export.entries.into_iter().map(|entry| entry.0).collect::<Result<_, _>>()?,
    })
}

fn envelopes(what: &str, texts: &[String]) -> Result<Vec<Vec<u8>>, String> {
    let one = |(at, text): (usize, &String)| {
        BASE64.decode(text.as_bytes()).map_err(|e| format!("{what}[{at}] is not base64: {e}"))
    };
    texts.iter().enumerate().map(one).collect()
}

fn read_entry(entry: AuditExportEntry) -> Result<ExportedEntry, String> {
    let index = entry.index;
    let wrong = |what: String| format!("entry {index} cannot be read: {what}");
    let number = entry.kind;
    let kind = u16::try_from(number).ok().and_then(AuditKind::from_number);
    let kind = kind.ok_or_else(|| wrong(format!("its kind {number} is unknown to this version")))?;
    let record_sha256: Sha256 =
        entry.record_sha256.parse().map_err(|_| wrong("its hash is not 64 hexadecimal digits".to_owned()))?;
    let record = entry.record.map(|text| BASE64.decode(text.as_bytes())).transpose();
    let record = record.map_err(|e| wrong(format!("its record is not base64: {e}")))?;
    Ok(ExportedEntry {
        index,
        time: UnixMs(entry.time_ms),
        kind,
        actor: entry.actor,
        subject: entry.subject,
        record_sha256,
        record,
    })
}

/// What `audit verify --json` prints.
#[derive(Default, Serialize)]
struct VerdictDocument<'a> {
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    holds: Option<Holds>,
}

#[derive(Serialize)]
struct Holds {
    fleet_id: String,
    log_id: String,
    root_version: u64,
    leaves: u64,
    leaves_signed: u64,
    signed_at: api::Timestamp,
    leaves_without_record: u64,
    hosts: u64,
    commands: u64,
    reports: u64,
    report_gaps: u64,
    alarms: u64,
    approvals: u64,
    outstanding: Vec<OutstandingDocument>,
}

#[derive(Serialize)]
struct OutstandingDocument {
    command_id: String,
    host_id: String,
    deliver_by: api::Timestamp,
    index: u64,
}

impl VerdictDocument<'_> {
    fn verified(verdict: &AuditVerdict) -> Self {
        let outstanding = verdict.outstanding.iter().map(|order| OutstandingDocument {
            command_id: order.command.to_string(),
            host_id: order.host.to_string(),
            deliver_by: order.deliver_by.into(),
            index: order.index,
        });
        Self {
            verified: true,
            fault: None,
            holds: Some(Holds {
                fleet_id: verdict.fleet.to_string(),
                log_id: verdict.log.to_string(),
                root_version: verdict.root_version.0,
                leaves: verdict.entries,
                leaves_signed: verdict.signed,
                signed_at: verdict.signed_at.into(),
                leaves_without_record: verdict.without_record,
                hosts: verdict.hosts,
                commands: verdict.orders,
                reports: verdict.reports,
                report_gaps: verdict.gaps,
                alarms: verdict.alarms,
                approvals: verdict.approvals,
                outstanding: outstanding.collect(),
            }),
        }
    }
}

fn verdict_words(verdict: &AuditVerdict, now: UnixMs, paint: Paint) -> String {
    let unsigned = verdict.entries.saturating_sub(verdict.signed);
    let mut rows = vec![
        ("fleet", verdict.fleet.to_string()),
        ("log", verdict.log.to_string()),
        ("root metadata", format!("version {}", verdict.root_version.0)),
        ("leaves", format!("{} covered by the head signed {}", verdict.signed, relative(now, verdict.signed_at))),
        ("enrolled hosts", verdict.hosts.to_string()),
        ("signed approvals", verdict.approvals.to_string()),
        ("signed commands", verdict.orders.to_string()),
        ("signed reports", verdict.reports.to_string()),
    ];
    if unsigned > 0 {
        rows.push(("not signed yet", format!("{unsigned} newer leaves; the next head covers them")));
    }
    if verdict.without_record > 0 {
        rows.push(("pruned", format!("{} leaves without their record", verdict.without_record)));
    }
    if verdict.gaps > 0 {
        rows.push(("report gaps", format!("{}, as the log itself records", verdict.gaps)));
    }
    if verdict.alarms > 0 {
        rows.push(("alarms", format!("{}, as the log itself records; see `serverflow audit list`", verdict.alarms)));
    }
    rows.push((
        "outstanding",
        match verdict.outstanding.len() {
            0 => "none: every command whose time has passed has its report".to_owned(),
            count => format!("{count} commands without a report"),
        },
    ));
    let green = anstyle::AnsiColor::Green.on_default().bold();
    let mut text = format!("{}: the audit log is whole, from the root key on\n\n", paint.on(green, "VERIFIED"));
    text.push_str(&fields(paint, &rows));
    for order in &verdict.outstanding {
        text.push_str(&format!("  command {} to host {} (leaf {})\n", order.command, order.host, order.index));
    }
    text
}
