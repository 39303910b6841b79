//! Root metadata from an agent, which need not have proved who it is: it may know none of the keys used here,
//! because this control plane is behind. All the authority it needs is in its signatures, so it is taken when
//! it follows what is held; what does not follow is nobody's, and counted with the strangers.

use std::sync::{Arc, atomic::Ordering};

use envelope::{
    audit::AuditKind,
    root::{RootError, TrustedRoot, changes},
};
use fleet::{
    model::{Host, HostStanding},
    ports::{AuditEntry, AuditRecord, StoreError, Write},
    recovery::RecoveryStage,
};
use ids::HostId;
use serde_json::json;
use session::frames::{RootsAnswer, RootsRequest};
use tonic::{Request, Response, Status};
use wire::v1;

use crate::{agents::Agents, limits, listener::ConnectionInfo};

/// Why it was not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("it does not verify: {0}")]
    Root(#[from] RootError),
    #[error("it could not be stored: {0}")]
    Store(#[from] StoreError),
}

/// Takes what follows the chain held here; the rest of `chain` is known already. Answers whether any was new.
async fn take(agents: &Agents, chain: &[Vec<u8>], from: &str, has_proved: bool) -> Result<bool, NotTaken> {
    let held = agents.root();
    let mut root = TrustedRoot::clone(&held);
    for envelope in chain {
        if root.holds(envelope) {
            continue;
        }
        let before = root.current().clone();
        let version = root.advance(envelope)?;
        let said: Vec<_> = changes(&before, root.current()).into_iter().map(|change| change.words).collect();
        let record = json!({
            "version": version, "payload_sha256": root.payload_sha256(), "changes": said, "sender_proved": has_proved,
        });
        let audit = AuditEntry {
            time: agents.now(),
            kind: AuditKind::RootChange,
            actor: format!("host:{from}"),
            subject: format!("root metadata version {version}"),
            record: AuditRecord::Inline(record.to_string().into_bytes()),
        };
        agents.store.write(Write::RootAdvance { version, envelope: envelope.clone(), audit }).await?;
        tracing::warn!(%version, host = from, "this control plane was behind: it took newer root metadata from a host");
        agents.root_advance(Arc::new(root.clone()));
    }
    Ok(root.version() > held.version())
}

/// A host that may be spoken with at all, by what it is called. One that is not known is, while a restored control plane gathers what
/// it forgot: hosts are among it.
async fn known(agents: &Agents, host: HostId) -> Result<Option<String>, StoreError> {
    let is_gathering = || agents.stage(&agents.root()) == RecoveryStage::Gathering;
    Ok(match agents.store.host(host).await? {
        Some(Host { standing: HostStanding::Revoked { .. }, .. }) => None,
        Some(host) => Some(host.name.to_string()),
        None => is_gathering().then(|| host.to_string()),
    })
}

/// What an agent brought in a handshake, whether it has proved who it is or not.
pub(crate) async fn take_from(agents: &Agents, host: HostId, chain: &[Vec<u8>], has_proved: bool) -> bool {
    let taken = match known(agents, host).await {
        Ok(Some(name)) => take(agents, chain, &name, has_proved).await,
        Ok(None) => Ok(false),
        Err(error) => Err(error.into()),
    };
    taken.unwrap_or_else(|error| {
        tracing::warn!(%host, %error, "root metadata that a host brought was not taken");
        false
    })
}

/// One exchange on a connection that carries nothing else.
pub(crate) async fn exchange(
    agents: &Agents,
    request: Request<v1::RootsRequest>,
) -> Result<Response<v1::RootsAnswer>, Status> {
    let info = request.extensions().get::<ConnectionInfo>().cloned();
    let info = info.ok_or_else(|| Status::internal("the connection is not known"))?;
    if info.roots_asked.fetch_add(1, Ordering::Relaxed) >= limits::ROOTS_EXCHANGES_MAX {
        return Err(Status::resource_exhausted("root metadata was exchanged on this connection; dial anew"));
    }
    let request: RootsRequest = request
        .into_inner()
        .try_into()
        .map_err(|error: wire::FrameError| Status::invalid_argument(error.to_string()))?;
    let unavailable = |error: StoreError| {
        tracing::warn!(%error, "a host that asks for root metadata could not be looked up");
        Status::unavailable("try again later")
    };
    let host =
        if request.fleet == agents.fleet { known(agents, request.host).await.map_err(unavailable)? } else { None };
    let Some(host) = host else {
        agents.stranger_refused();
        return Err(Status::permission_denied("this host is unknown here or was revoked"));
    };
    if !request.chain.is_empty() {
        match take(agents, &request.chain, &host, false).await {
            Ok(_) => {}
            Err(NotTaken::Root(error)) => {
                agents.stranger_refused();
                tracing::debug!(peer = %info.peer, %error, "root metadata of somebody unproved was not taken");
            }
            // Nobody's fault but the disk's, or that of another host which brought it at the same moment.
            Err(error @ NotTaken::Store(_)) => {
                tracing::warn!(host, %error, "root metadata that a host brought was not taken");
            }
        }
    }
    let root = agents.root();
    let mut chain = root.chain_above(request.root_version);
    chain.truncate(session::limits::ROOT_CHAIN_PER_CONNECTION_MAX);
    Ok(Response::new(RootsAnswer { root_version: root.version(), chain }.into()))
}
