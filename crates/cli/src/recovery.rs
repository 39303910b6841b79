//! `recovery …`: from a control plane that was restored from a backup to one that orders again. The control plane says how far it
//! is; what comes next is said here.

mod claims;

use api::{RecoveryConfirmRequest, RecoveryHost, RecoveryStatus};
use envelope::{
    messages::{LogPosition, RootMetadata},
    root::Edit,
};
use ids::{AuditLogId, UnixMs};
use rand::{TryRng as _, rngs::SysRng};

use crate::{
    arguments::{Confirm, Recovery},
    client::Client,
    clock,
    exit::{Ended, Failure},
    output::{Output, Paint, clean_line},
    prompt,
    spans::relative,
    table::{Cell, Table, fields},
};

use self::claims::Decision;

const GATHERING: &str = "gathering";
const CONFIRMING: &str = "confirming";
const NONE: &str = "none";

pub(crate) async fn run(output: &Output, client: &Client, verb: Recovery) -> Result<Ended, Failure> {
    match verb {
        Recovery::Status => {
            let status = status(client).await?;
            output.result(&status, |status, paint| status_words(status, clock::now(), paint))?;
            Ok(Ended::Well)
        }
        Recovery::Confirm(confirm) => confirmed(output, client, &confirm).await,
        Recovery::Take(asked) => claims::decided(output, client, &asked, Decision::Take).await,
        Recovery::Refuse(asked) => claims::decided(output, client, &asked, Decision::Refuse).await,
    }
}

async fn status(client: &Client) -> Result<RecoveryStatus, Failure> {
    client.get(&["recovery"]).await
}

async fn confirmed(output: &Output, client: &Client, asked: &Confirm) -> Result<Ended, Failure> {
    let status = status(client).await?;
    if !asked.yes {
        output.progress(status_words(&status, clock::now(), Paint(false)).trim_end());
        let question = match asked.revoked.as_slice() {
            [] => "No host was revoked after the backup was made, and orders go out again".to_owned(),
            names => format!("Revoke {} for good, no other host was revoked, and orders go out again", listed(names)),
        };
        let answer = prompt::line(&format!("{question}? Type yes: "), "repeat the command with --yes")?;
        if !answer.eq_ignore_ascii_case("yes") {
            return Err(Failure::invalid("nothing was confirmed"));
        }
    }
    let request = RecoveryConfirmRequest { revoke: asked.revoked.clone() };
    let status: RecoveryStatus = client.post(&["recovery", "confirm"], &request).await?;
    output.result(&status, |status, _| {
        let revoked = status.revoked.len();
        format!("Confirmed: {revoked} hosts are revoked. Orders go out again.\n")
    })?;
    Ok(Ended::Well)
}

fn listed<T: ToString>(names: &[T]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Hosts that nobody has heard. One that speaks with later keys than the backup has was.
fn unheard(status: &RecoveryStatus) -> Vec<&str> {
    let has_spoken = |host: &RecoveryHost| {
        host.heard_at.is_some() || status.claims.iter().any(|claim| claim.host_id == host.host_id)
    };
    status.hosts.iter().filter(|host| !has_spoken(host)).map(|host| host.name.as_str()).collect()
}

fn host_row(host: &RecoveryHost, now: UnixMs) -> [Cell; 4] {
    let heard = host.heard_at.map_or_else(|| "not yet".to_owned(), |at| relative(now, at.0));
    let lost = host.orders_lost.map_or_else(String::new, |orders| orders.to_string());
    let state = match (host.is_ahead, host.is_taken_up) {
        (true, _) => "has seen more of the audit log than root metadata says",
        (false, true) => "taken up",
        (false, false) => "",
    };
    [host.name.as_str().into(), heard.into(), lost.into(), state.into()]
}

fn status_words(status: &RecoveryStatus, now: UnixMs, paint: Paint) -> String {
    let (Some(restored), Some(made)) = (status.restored_at, status.backup_made_at) else {
        return "This control plane was never restored from a backup.\n".to_owned();
    };
    let when = |at: api::Timestamp| format!("{} ({at})", relative(now, at.0));
    let heard = status.hosts.len() - unheard(status).len();
    let mut rows = vec![
        ("restored", when(restored)),
        ("backup of", when(made)),
        ("stage", status.stage.clone()),
        ("hosts heard", format!("{heard} of {}", status.hosts.len())),
    ];
    if let Some(log) = &status.log_before {
        rows.push(("old audit log", format!("{} entries at least ({})", log.size, log.log)));
    }
    let mut text = fields(paint, &rows);
    let mut hosts = Table::new(["HOST", "HEARD", "ORDERS SINCE", "STATE"]);
    status.hosts.iter().for_each(|host| hosts.row(host_row(host, now)));
    text.push_str(&format!("\n{}", hosts.render(paint, "The backup knows no host.")));
    text.push_str(&claims::table(status, now, paint));
    let mut revoked = Table::new(["REVOKED HOST", "WHEN", "ID"]);
    for host in &status.revoked {
        revoked.row([
            host.name.as_str().into(),
            Cell::from(relative(now, host.revoked_at.0)),
            host.host_id.to_string().into(),
        ]);
    }
    text.push_str(&format!("\n{}", revoked.render(paint, "No host is revoked.")));
    text.push_str(&format!("\n{}\n", next_words(status)));
    text
}

fn next_words(status: &RecoveryStatus) -> String {
    let ahead = status.hosts.iter().any(|host| host.is_ahead) || status.claims.iter().any(|claim| claim.is_ahead);
    match status.stage.as_str() {
        GATHERING => {
            "Next: wait until all hosts that still exist were heard, then\n  serverflow root propose --restored\n\
             has the root keys void what was signed before, and say where the audit log stood."
                .to_owned()
        }
        _ if ahead => {
            "Next: a host was heard that has seen more of the audit log than root metadata says. It gets no orders before\n  \
             serverflow root propose --restored\nhas been done once more."
                .to_owned()
        }
        _ if !status.claims.is_empty() => "Next: hosts that the backup does not know by the keys that they speak with get nothing before you \
             decide on each. One that was revoked after the backup was made is refused:\n  serverflow recovery take NAME … | \
             serverflow recovery refuse NAME …"
            .to_owned(),
        CONFIRMING => "Next: nothing is ordered before you say which hosts are revoked. One that was revoked after the backup was \
                       made is not on the list above:\n  serverflow recovery confirm --revoked NAME … | --none"
            .to_owned(),
        _ => "The recovery is over: orders go out.".to_owned(),
    }
}

/// What root metadata has to say after a restore; asks when hosts are missing. The earliest time it may be issued at comes with it.
pub(crate) async fn edits(
    output: &Output,
    client: &Client,
    current: &RootMetadata,
    yes: bool,
) -> Result<(Vec<Edit>, UnixMs), Failure> {
    let status = status(client).await?;
    let (Some(log), Some(restored)) = (&status.log_before, status.restored_at) else {
        return Err(Failure::invalid("this control plane was never restored from a backup"));
    };
    debug_assert_ne!(status.stage, NONE);
    let unheard = unheard(&status);
    let total = status.hosts.len();
    output.progress(format_args!(
        "{} of {total} hosts were heard since the restore; the audit log before it had {} entries at least",
        total - unheard.len(),
        log.size
    ));
    if !unheard.is_empty() && !yes {
        output.progress(format_args!("not heard: {}", clean_line(&listed(&unheard))));
        let question =
            "One of them may have seen more of the log, and would then get no orders before this is done again. Go on";
        let answer =
            prompt::line(&format!("{question}? Type yes: "), "wait for them, or repeat the command with --yes")?;
        if !answer.eq_ignore_ascii_case("yes") {
            return Err(Failure::invalid("nothing was proposed"));
        }
    }
    let before = LogPosition { log: log.log, size: log.size, root: log.root };
    if status.stage != GATHERING {
        return Ok((vec![Edit::RestoredLog { before, log: current.audit_log }], restored.0));
    }
    let mut random = [0; 10];
    SysRng.try_fill_bytes(&mut random).map_err(|_| Failure::randomness())?;
    let log = AuditLogId::new_v7(clock::now(), random);
    Ok((vec![Edit::RaiseEpoch, Edit::RestoredLog { before, log }], restored.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(stage: &str) -> RecoveryStatus {
        serde_json::from_value(serde_json::json!({
            "stage": stage, "restored_at": "2026-03-01T12:00:00Z", "backup_made_at": "2026-03-01T00:00:00Z",
            "log_before": { "log": crate::sample::id(6), "size": 40, "root": "00".repeat(32) },
            "hosts": [
                { "host_id": crate::sample::id(1), "name": "a", "heard_at": "2026-03-01T12:01:00Z", "orders_lost": 3,
                  "is_ahead": false, "is_taken_up": false },
                { "host_id": crate::sample::id(2), "name": "b", "is_ahead": false, "is_taken_up": false },
            ],
            "revoked": [{ "host_id": crate::sample::id(3), "name": "c", "revoked_at": "2026-02-01T00:00:00Z" }],
        }))
        .expect("a status")
    }

    #[test]
    fn each_stage_says_what_comes_next() {
        let words = |status: &RecoveryStatus| status_words(status, UnixMs(1_800_000_000_000), Paint(false));
        let gathering = words(&status(GATHERING));
        assert!(gathering.contains("1 of 2") && gathering.contains("root propose --restored"), "{gathering}");
        assert!(words(&status(CONFIRMING)).contains("recovery confirm --revoked NAME"));
        assert!(words(&status("over")).contains("orders go out"));
        let mut ahead = status("over");
        ahead.hosts[0].is_ahead = true;
        assert!(words(&ahead).contains("once more"));
        let never = RecoveryStatus { restored_at: None, stage: NONE.to_owned(), ..status(NONE) };
        assert!(words(&never).contains("never restored"));
    }
}
