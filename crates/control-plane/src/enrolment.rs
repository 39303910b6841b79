//! One enrolment's stream: a join token becomes a host, or nothing happens.

use std::sync::Arc;

use envelope::{audit::AuditKind, messages::ReportPosition};
use fleet::{
    model::{Host, HostStanding, JoinTokenRecord},
    ports::{AuditEntry, AuditRecord, StoreError, Write},
};
use ids::{Challenge, DurationMs, HostEpoch, HostId, RootVersion, Sequence, TokenId, UnixMs, sha256};
use session::{
    control::{Enrolment, EnrolmentError, EnrolmentStep, ReceiptWanted, Redemption, token_refused},
    frames::{ControlFrame, RefusalCode},
};
use tokio::time::timeout;

use crate::{
    agents::{Agents, Stream, StreamError},
    limits, random,
};

/// How long after its enrolment a host may ask for its receipt again.
const RECEIPT_AGAIN_MAX: DurationMs = DurationMs::from_days(1);

/// Why an enrolment came to nothing.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Enrolment(#[from] EnrolmentError),
    #[error("{0}")]
    Stream(#[from] StreamError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the join token is not valid")]
    Token,
}

/// Serves one stream to its end.
pub(crate) async fn run(agents: Arc<Agents>, mut stream: Stream) {
    let (peer, mut named) = (stream.info.peer, None);
    let refused = match timeout(limits::ENROLMENT_TIMEOUT, enrol(&agents, &mut stream, &mut named)).await {
        Ok(Ok(())) => return,
        Ok(Err(refused)) => refused,
        Err(_) => Refused::Stream(StreamError::Stuck),
    };
    match named {
        Some(token) if !matches!(refused, Refused::Stream(_)) => agents.enrolment_refused(token),
        _ => agents.stranger_refused(),
    }
    tracing::info!(%peer, error = %refused, "an enrolment was refused");
    let frame = match refused {
        Refused::Enrolment(error) => error.frame(),
        Refused::Token | Refused::Store(StoreError::TokenRefused) => token_refused(),
        Refused::Store(StoreError::Conflict(message)) => {
            ControlFrame::Refused { reason: RefusalCode::HostRefused, message }
        }
        Refused::Store(_) => {
            let message = "the control plane cannot enrol hosts now; try again later".to_owned();
            ControlFrame::Refused { reason: RefusalCode::Unavailable, message }
        }
        Refused::Stream(_) => return,
    };
    let _ = stream.send(frame).await;
}

/// `named`: the join token it is about, as soon as there is one of that id.
async fn enrol(agents: &Agents, stream: &mut Stream, named: &mut Option<TokenId>) -> Result<(), Refused> {
    let root = agents.root();
    let mut machine = Enrolment::new(agents.fleet, stream.info.exporter);
    loop {
        match machine.receive(stream.receive().await?)? {
            EnrolmentStep::LookUp(token) => {
                let record = agents.store.join_token(token).await?.ok_or(Refused::Token)?;
                *named = Some(token);
                // A stranger who guesses ids learns nothing, and makes the session key sign nothing.
                if !may_answer(agents, &record).await? {
                    return Err(Refused::Token);
                }
                let nonce = Challenge(random::bytes());
                for frame in machine.answer(&root, &agents.keys.session(), nonce, agents.now())? {
                    stream.send(frame).await?;
                }
            }
            EnrolmentStep::Redeem(redemption) => {
                let receipt = redeem(agents, &redemption, root.version()).await?;
                stream.send(ControlFrame::EnrolReceipt(receipt)).await?;
                return Ok(());
            }
            EnrolmentStep::ReceiptWanted(wanted) => {
                let receipt = receipt_again(agents, wanted).await?;
                stream.send(ControlFrame::EnrolReceipt(receipt)).await?;
                return Ok(());
            }
        }
    }
}

/// Whether the token can still be used, or was used so recently that its receipt may be asked for again.
async fn may_answer(agents: &Agents, record: &JoinTokenRecord) -> Result<bool, Refused> {
    let now = agents.now();
    match record.spent_by {
        None => Ok(now <= record.expires),
        Some(host) => Ok(enrolled_recently(agents, host, now).await?.is_some()),
    }
}

async fn enrolled_recently(agents: &Agents, host: HostId, now: UnixMs) -> Result<Option<Host>, Refused> {
    let host = agents.store.host(host).await?;
    Ok(host.filter(|host| {
        matches!(host.standing, HostStanding::Active) && now <= host.enrolled_at.plus(RECEIPT_AGAIN_MAX)
    }))
}

async fn redeem(agents: &Agents, redemption: &Redemption, root_version: RootVersion) -> Result<Vec<u8>, Refused> {
    let now = agents.now();
    let record = agents.store.join_token(redemption.token).await?.ok_or(Refused::Token)?;
    let id: HostId = random::id(now);
    let receipt = redemption.receipt(id, record.host_name.clone(), record.roles.clone(), now);
    let receipt = agents.keys.session().sign(&receipt).into_envelope();
    let host = Host {
        id,
        name: record.host_name.clone(),
        roles: record.roles,
        labels: Default::default(),
        identity_key: redemption.identity_key,
        sealing_key: redemption.sealing_key,
        host_epoch: HostEpoch(1),
        standing: HostStanding::Active,
        quarantine: Default::default(),
        clock_skew_ms: None,
        allocated: Sequence(0),
        acknowledged: Sequence(0),
        last_report: ReportPosition::START,
        audit_head: None,
        boots: Vec::new(),
        actions: Vec::new(),
        agent_version: String::new(),
        root_version,
        enrolled_at: now,
        last_seen: None,
        receipt: receipt.clone(),
    };
    let audit = AuditEntry {
        time: now,
        kind: AuditKind::Enrolment,
        actor: format!("join token {}", redemption.token),
        subject: format!("host {} ({id})", record.host_name),
        record: AuditRecord::Inline(
            serde_json::json!({
                "host": id,
                "name": record.host_name,
                "token": redemption.token,
                "receipt_sha256": sha256(&receipt),
            })
            .to_string()
            .into_bytes(),
        ),
    };
    let secret_sha256 = sha256(redemption.secret.0.as_slice());
    let write = Write::Enrol { token: redemption.token, secret_sha256, now, host: Box::new(host), audit };
    agents.store.write(write).await?;
    tracing::info!(host = %id, name = %record.host_name, "a host was enrolled");
    Ok(receipt)
}

async fn receipt_again(agents: &Agents, wanted: ReceiptWanted) -> Result<Vec<u8>, Refused> {
    let record = agents.store.join_token(wanted.token).await?.ok_or(Refused::Token)?;
    let host = record.spent_by.ok_or(Refused::Token)?;
    let host = enrolled_recently(agents, host, agents.now()).await?.ok_or(Refused::Token)?;
    if host.identity_key != wanted.identity_key {
        return Err(Refused::Token);
    }
    Ok(host.receipt)
}
