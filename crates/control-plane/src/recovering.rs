//! Hosts that dial a control plane which was restored from a backup: each is heard before anything is said to it, and each is
//! taken up where it stands, once, before its first session.

use fleet::{
    dispatch::{Established, HeadSeen, Recovering},
    ports::{StoreError, Write},
    recovery::{self, Heard, RecoveryHost, RecoveryStage, RecoveryWrite},
};

use crate::agents::Agents;

const GATHERING: &str = "this control plane was restored from a backup, and root metadata of after that is not in force yet; dial again later";
const AHEAD: &str =
    "this host has seen more of the audit log than root metadata says there was before the restore; dial again later";
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
    let is_held = agents.stage(&agents.root()) != RecoveryStage::Over;
    let host = agents.store.recovery_hosts(Some(established.authenticated.host)).await?.pop();
    Ok(Recovering { is_held, host })
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
