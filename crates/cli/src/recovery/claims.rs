//! Hosts that a restored control plane does not know by the keys that they speak with: who is taken back, and who is not.

use api::{RecoveryClaim, RecoveryClaimRef, RecoveryClaimsRequest, RecoveryStatus};
use ids::UnixMs;

use super::{listed, status};
use crate::{
    arguments::Claims,
    client::Client,
    exit::{Ended, Failure},
    output::{Output, Paint},
    prompt,
    spans::relative,
    table::{Cell, Table},
};

/// What becomes of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Take,
    Refuse,
}

pub(super) async fn decided(
    output: &Output,
    client: &Client,
    asked: &Claims,
    decision: Decision,
) -> Result<Ended, Failure> {
    let status = status(client).await?;
    let chosen = chosen(&status, asked)?;
    let names: Vec<&str> = chosen.iter().map(|claim| claim.name.as_str()).collect();
    if !asked.yes {
        let shown = RecoveryStatus { claims: chosen.iter().copied().cloned().collect(), ..status.clone() };
        output.progress(table(&shown, crate::clock::now(), Paint(false)).trim_end());
        let names = listed(&names);
        let question = match decision {
            Decision::Take => format!("None of these was revoked after the backup was made: {names}. Take them back"),
            Decision::Refuse => format!("Refuse {names} for good"),
        };
        let answer = prompt::line(&format!("{question}? Type yes: "), "repeat the command with --yes")?;
        if !answer.eq_ignore_ascii_case("yes") {
            return Err(Failure::invalid("nothing was decided"));
        }
    }
    let refs: Vec<_> = chosen.iter().map(|claim| reference(claim)).collect();
    let request = match decision {
        Decision::Take => RecoveryClaimsRequest { take: refs, refuse: Vec::new() },
        Decision::Refuse => RecoveryClaimsRequest { take: Vec::new(), refuse: refs },
    };
    let after: RecoveryStatus = client.post(&["recovery", "claims"], &request).await?;
    output.result(&after, |after, _| {
        let (what, waiting) = match decision {
            Decision::Take => ("taken back; they come by themselves within a minute", after.claims.len()),
            Decision::Refuse => ("refused", after.claims.len()),
        };
        format!("{} {what}. {waiting} more to decide on.\n", listed(&names))
    })?;
    Ok(Ended::Well)
}

fn reference(claim: &RecoveryClaim) -> RecoveryClaimRef {
    RecoveryClaimRef { host_id: claim.host_id, key_id: claim.key_id.clone() }
}

/// Those that were asked for, each once. A name that two of them have says nothing.
fn chosen<'a>(status: &'a RecoveryStatus, asked: &Claims) -> Result<Vec<&'a RecoveryClaim>, Failure> {
    if asked.all {
        if status.claims.is_empty() {
            return Err(Failure::invalid("no host waits to be taken back or refused"));
        }
        return Ok(status.claims.iter().collect());
    }
    let mut chosen: Vec<&RecoveryClaim> = Vec::new();
    for wanted in &asked.hosts {
        let is_it = |claim: &&RecoveryClaim| claim.name.as_str() == wanted || claim.host_id.to_string() == *wanted;
        let found: Vec<_> = status.claims.iter().filter(is_it).collect();
        let claim = match found.as_slice() {
            [claim] => *claim,
            [] => {
                let why = format!("host {wanted} does not wait to be taken back or refused");
                return Err(Failure::invalid(why).hint("`serverflow recovery status` lists those that do"));
            }
            several => {
                let ids = listed(&several.iter().map(|claim| claim.host_id).collect::<Vec<_>>());
                return Err(Failure::invalid(format!("several hosts are called {wanted}"))
                    .hint(format!("name one by its id: {ids}")));
            }
        };
        if !chosen.contains(&claim) {
            chosen.push(claim);
        }
    }
    Ok(chosen)
}

/// Nothing when there is none.
pub(super) fn table(status: &RecoveryStatus, now: UnixMs, paint: Paint) -> String {
    if status.claims.is_empty() {
        return String::new();
    }
    let mut claims = Table::new(["NOT KNOWN BY ITS KEY", "ENROLLED", "HEARD", "KEY", "ID", "REMARK"]);
    for claim in &status.claims {
        claims.row([
            claim.name.as_str().into(),
            Cell::from(relative(now, claim.enrolled_at.0)),
            relative(now, claim.heard_at.0).into(),
            claim.key_id.as_str().into(),
            claim.host_id.to_string().into(),
            remark(claim).into(),
        ]);
    }
    format!("\n{}", claims.render(paint, ""))
}

fn remark(claim: &RecoveryClaim) -> String {
    let keys = match claim.known_host_epoch {
        None => "enrolled after the backup was made".to_owned(),
        Some(known) => format!("the backup has its keys {known}, it speaks with keys {}", claim.host_epoch),
    };
    let said = [
        (!claim.is_receipted, "no receipt of this fleet stands beside a change of its keys"),
        (claim.is_by_dropped_key, "vouched for by a session key that was dropped since"),
        (claim.is_ahead, "has seen more of the audit log than root metadata says"),
    ];
    let said = said.iter().filter(|(is_so, _)| *is_so).map(|(_, words)| (*words).to_owned());
    core::iter::once(keys).chain(said).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> RecoveryStatus {
        let claim = |n: u8, name: &str, known: Option<u64>| {
            let mut claim = json!({
                "host_id": crate::sample::id(n), "name": name, "host_epoch": 2, "key_id": format!("{n:032x}"),
                "enrolled_at": "2026-03-01T12:00:00Z", "first_heard_at": "2026-03-01T12:00:00Z",
                "heard_at": "2026-03-01T12:00:00Z", "is_receipted": known.is_none(), "is_by_dropped_key": false,
                "is_ahead": false,
            });
            if let Some(known) = known {
                claim["known_host_epoch"] = json!(known);
            }
            claim
        };
        serde_json::from_value(json!({
            "stage": "confirming", "hosts": [], "revoked": [],
            "claims": [claim(1, "web-1", None), claim(2, "web-1", None), claim(3, "db-1", Some(1))],
        }))
        .expect("a status")
    }

    fn asked(hosts: &[&str], all: bool) -> Claims {
        Claims { hosts: hosts.iter().map(|host| (*host).to_owned()).collect(), all, yes: true }
    }

    #[test]
    fn a_name_that_two_have_needs_an_id() {
        let status = status();
        let ids = |asked: &Claims| {
            chosen(&status, asked).map(|claims| claims.iter().map(|it| it.host_id.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(ids(&asked(&["db-1", "db-1"], false)).expect("it waits"), [crate::sample::id(3)]);
        assert!(ids(&asked(&["web-1"], false)).is_err());
        assert_eq!(ids(&asked(&[&crate::sample::id(2)], false)).expect("by its id"), [crate::sample::id(2)]);
        assert!(ids(&asked(&["web-9"], false)).is_err());
        assert_eq!(ids(&asked(&[], true)).expect("all").len(), 3);
        assert!(chosen(&RecoveryStatus { claims: Vec::new(), ..status.clone() }, &asked(&[], true)).is_err());
    }

    #[test]
    fn what_speaks_against_a_host_stands_beside_it() {
        let words = table(&status(), UnixMs(1_800_000_000_000), Paint(false));
        assert!(words.contains("enrolled after the backup") && words.contains("no receipt of this fleet"), "{words}");
        assert!(words.contains("the backup has its keys 1, it speaks with keys 2"), "{words}");
        assert_eq!(table(&RecoveryStatus { claims: Vec::new(), ..status() }, UnixMs(1), Paint(false)), "");
    }
}
