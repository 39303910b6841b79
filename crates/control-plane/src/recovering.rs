//! Hosts that dial a control plane which was restored from a backup: each is heard before anything is said to it, and each is
//! taken up where it stands, once, before its first session. One that is not known by the key that it speaks with shows who it
//! is, is noted, and gets no session before somebody has taken it back.

use envelope::messages::AgentHello;
use fleet::{
    dispatch::{Established, HeadSeen, Recovering},
    model::{Host, HostStanding},
    ports::{HostChange, Notifier as _, StoreError, Write},
    recovery::{self, Claim, Heard, NotNoted, RecoveryHost, RecoveryStage, RecoveryWrite},
};
use session::{
    control::{Identity, KeysOnRecord, Presented},
    frames::RefusalCode,
};

use crate::agents::Agents;

const GATHERING: &str = "this control plane was restored from a backup, and root metadata of after that is not in force yet; dial again later";
const AHEAD: &str =
    "this host has seen more of the audit log than root metadata says there was before the restore; dial again later";
const NOTED: &str = "this control plane was restored from a backup and knows this host by what it brought alone; an owner has to take it back with `serverflow recovery take`. Dial again later";
const OUTRANKED: &str = "other keys stand as this host's, and an owner has to decide which are; see `serverflow recovery status`. Dial again later";
const REFUSED: &str = "an owner has refused to take this host back with these keys; enrol the machine anew";
const UNSTORED: &str = "the control plane's database cannot be used now; dial again later";

/// Why a host that has proved who it is gets no session now, if it gets none.
pub(crate) async fn turned_away(agents: &Agents, established: &Established) -> Option<String> {
    if !agents.was_restored() {
        return None;
    }
    match judge(agents, established).await {
        Ok(reason) => reason.map(ToOwned::to_owned),
        Err(error) => {
            tracing::warn!(%error, "what a host said after the restore could not be stored");
            Some(UNSTORED.to_owned())
        }
    }
}

/// What the last restore means for a session that begins now.
pub(crate) async fn of(agents: &Agents, established: &Established) -> Result<Recovering, StoreError> {
    if !agents.was_restored() {
        return Ok(Recovering::default());
    }
    // With a claim to later keys of this host its present ones may be a thief's by now.
    let claims = agents.store.recovery_claims(Some(established.authenticated.host)).await?;
    let is_held = agents.stage(&agents.root()) != RecoveryStage::Over || claims.iter().any(Claim::is_open);
    let host = agents.store.recovery_hosts(Some(established.authenticated.host)).await?.pop();
    Ok(Recovering { is_held, host })
}

/// What a host has to show that is not known by the key that it speaks with. Nothing that never was restored forgets hosts.
pub(crate) fn credentials_wanted(agents: &Agents, hello: &AgentHello, host: Option<&Host>) -> Option<Identity> {
    if !agents.was_restored() {
        return None;
    }
    match host {
        None => Some(Identity::Wanted(None)),
        Some(host) if matches!(host.standing, HostStanding::Revoked { .. }) => None,
        Some(host) if hello.host_epoch > host.host_epoch => {
            let (host_epoch, identity_key) = (host.host_epoch, host.identity_key);
            Some(Identity::Wanted(Some(KeysOnRecord { host_epoch, identity_key })))
        }
        Some(_) => None,
    }
}

/// What a host is told that has shown who it is by what it brought; `None` for any other.
pub(crate) async fn known_by_credentials(agents: &Agents, established: &Established) -> Option<(RefusalCode, String)> {
    let presented = established.authenticated.presented.as_deref()?;
    let heard = Heard::of(&established.authenticated.hello, agents.now());
    let (code, message) = match claim(agents, presented, heard).await {
        Ok(()) => (RefusalCode::Unavailable, NOTED),
        Err(Unnoted::Judged(NotNoted::Refused)) => (RefusalCode::HostRefused, REFUSED),
        Err(Unnoted::Judged(NotNoted::Outranked)) => (RefusalCode::Unavailable, OUTRANKED),
        Err(Unnoted::Store(error)) => {
            tracing::warn!(%error, "what a host brought could not be stored");
            (RefusalCode::Unavailable, UNSTORED)
        }
    };
    Some((code, message.to_owned()))
}

/// Why what a host brought is not noted.
enum Unnoted {
    Judged(NotNoted),
    Store(StoreError),
}

async fn claim(agents: &Agents, presented: &Presented, heard: Heard) -> Result<(), Unnoted> {
    let host = presented.host;
    let known = agents.store.recovery_claims(Some(host)).await.map_err(Unnoted::Store)?.pop();
    let write = recovery::claimed(presented.clone(), heard, known.as_ref()).map_err(Unnoted::Judged)?;
    if let Some(write) = write {
        agents.store.write(Write::Recovery(Box::new(write))).await.map_err(Unnoted::Store)?;
        // Whoever speaks as this host now begins anew, and gets no orders.
        agents.hub.host_changed(host, HostChange::Renamed);
    }
    Ok(())
}

async fn judge(agents: &Agents, established: &Established) -> Result<Option<&'static str>, StoreError> {
    let heard = Heard::of(&established.authenticated.hello, agents.now());
    let stage = agents.stage(&established.root);
    let known = agents.store.recovery_hosts(Some(established.authenticated.host)).await?.pop();
    let Some(host) = known.filter(|host| host.adopted_at.is_none()) else {
        return Ok((stage == RecoveryStage::Gathering).then_some(GATHERING));
    };
    let turned_away = match (stage, &established.head) {
        (RecoveryStage::Gathering, _) => Some(GATHERING),
        // Root metadata has to name what it has seen: a person sees so in the list, and proposes once more.
        (_, HeadSeen::Foreign(_)) => Some(AHEAD),
        _ => None,
    };
    match turned_away {
        Some(_) => note(agents, &host, heard).await?,
        None => adopt(agents, &host, heard).await?,
    }
    Ok(turned_away)
}

async fn note(agents: &Agents, host: &RecoveryHost, heard: Heard) -> Result<(), StoreError> {
    if host.heard.as_ref().is_some_and(|before| before.is_same(&heard)) {
        return Ok(());
    }
    written(agents, RecoveryWrite::Heard { host: host.host, heard }).await
}

/// From here on its numbers go on above its highest. One that is farther ahead than any control plane can have led it is no
/// matter of the restore, and is judged like any other.
async fn adopt(agents: &Agents, host: &RecoveryHost, heard: Heard) -> Result<(), StoreError> {
    if heard.high.0.saturating_sub(host.allocated.0) > envelope::limits::SEQUENCE_JUMP_MAX {
        return Ok(());
    }
    written(agents, recovery::adopted(host, heard)).await
}

/// Another stream of the same host may have been first.
async fn written(agents: &Agents, write: RecoveryWrite) -> Result<(), StoreError> {
    match agents.store.write(Write::Recovery(Box::new(write))).await {
        Ok(_) | Err(StoreError::Conflict(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
