//! Keeps standing orders signed: when the command key, a host's keys or the fleet's epoch change, the same content is signed
//! anew and ordered from its host. What is due is decided in [`fleet::standing`]; here it is done.

use std::{collections::HashMap, sync::Arc};

use envelope::{
    VerifyingKey,
    messages::Report,
    signer_port::{SignError, Signer},
    standing::shown,
    verify,
};
use fleet::{
    model::{CommandFilter, Host},
    operation::{standing_order, standing_renew},
    ports::{HostChange, Notifier as _, StoreError, Write},
    recovery::RecoveryStage,
    standing::{StandingRecord, StandingState, Wanted, told_revision},
};
use ids::{CommandId, HostId, KeyId, Revision};
use signer::RemoteSigner;
use tokio::time::sleep;

use crate::{agents::Agents, limits, random, signer_process::in_time};

/// Why an order was not signed anew; it is tried again.
#[derive(Debug, thiserror::Error)]
enum NotDone {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Sign(#[from] SignError),
    #[error("{0}")]
    Order(#[from] fleet::operation::ProposeError),
    #[error("what is stored of it cannot be read: {0}")]
    Envelope(#[from] envelope::VerifyError),
    #[error("nothing that was signed of it is stored")]
    Missing,
}

/// See the head of this file.
pub(crate) struct StandingKeeper {
    pub(crate) agents: Arc<Agents>,
    pub(crate) signer: Arc<RemoteSigner>,
}

impl StandingKeeper {
    /// Looks until it is aborted.
    pub(crate) async fn run(self) {
        let mut roots = self.agents.roots();
        loop {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "standing orders could not be looked at; trying again");
            }
            tokio::select! {
                changed = roots.changed() => if changed.is_err() { return },
                // Keys of hosts change and commands end, and nobody tells of either here.
                () = sleep(limits::STANDING_LOOK_INTERVAL) => {}
            }
        }
    }

    async fn look(&self) -> Result<(), NotDone> {
        let root = self.agents.root();
        if self.agents.stage(&root) != RecoveryStage::Over {
            return Ok(());
        }
        let records = self.agents.store.standing_orders(None).await?;
        let is_candidate = |record: &&StandingRecord| record.state() == StandingState::Installed && !record.is_open();
        let records: Vec<&StandingRecord> = records.iter().filter(is_candidate).collect();
        if records.is_empty() {
            return Ok(());
        }
        let Some(key) = self.key().await? else { return Ok(()) };
        let hosts: HashMap<HostId, Host> =
            self.agents.store.hosts().await?.into_iter().map(|host| (host.id, host)).collect();
        for record in records {
            let Some(host) = hosts.get(&record.host) else { continue };
            if let Err(error) = self.renew_if_due(record, host, &Wanted::of(host, root.current(), key)).await {
                tracing::warn!(%error, standing_order = %record.order, host = %host.name, "a standing order is not signed anew yet");
            }
        }
        Ok(())
    }

    /// The command key in use.
    async fn key(&self) -> Result<Option<KeyId>, NotDone> {
        let held = in_time(self.signer.keys()).await?.keys;
        Ok(held.iter().find(|key| key.is_active && key.is_listed && !key.is_void).map(|key| key.key_id()))
    }

    async fn renew_if_due(&self, record: &StandingRecord, host: &Host, wanted: &Wanted) -> Result<(), NotDone> {
        if !record.is_outdated(wanted) {
            return Ok(());
        }
        let told = self.told(record, host).await?;
        if record.is_renewal_due(wanted, told, self.agents.now()) {
            self.renew(record, host, told.unwrap_or_default()).await?;
        }
        Ok(())
    }

    /// The highest revision that the host says it has taken, if it refused the last one for being below.
    async fn told(&self, record: &StandingRecord, host: &Host) -> Result<Option<Revision>, NotDone> {
        let Some(last) = record.steps.last().filter(|step| step.ended.is_some()) else { return Ok(None) };
        let filter = CommandFilter { operation: Some(last.operation), limit: 1, ..CommandFilter::default() };
        let Some(envelope) = self.agents.store.commands(filter).await?.pop().and_then(|command| command.report) else {
            return Ok(None);
        };
        let former = self.agents.store.host_former_keys(host.id).await?;
        let keys = former.iter().map(|former| former.identity_key).chain([host.identity_key]);
        let keys: Vec<_> = keys.filter_map(|key| VerifyingKey::try_from(key).ok()).collect();
        let Ok(report) = verify::<Report>(&envelope, &keys) else { return Ok(None) };
        let result: serde_json::Value = serde_json::from_slice(&report.result).unwrap_or_default();
        Ok(result.get("result").and_then(told_revision))
    }

    async fn renew(&self, record: &StandingRecord, host: &Host, told: Revision) -> Result<(), NotDone> {
        let store = &self.agents.store;
        let stored = store.standing_envelope(record.order).await?.ok_or(NotDone::Missing)?;
        let (_, before) = shown(&stored)?;
        let mut last = store.standing_revision(host.id).await?.max(told);
        let root = self.agents.root();
        let envelope = loop {
            let now = self.agents.now();
            let revision = last.next().ok_or(NotDone::Missing)?;
            let order = standing_order(before.standing.clone(), host, root.current().epoch, revision, now);
            match in_time(self.signer.sign_standing(order)).await {
                Ok(envelope) => break envelope,
                // Signed once and never stored: the signer knows of it.
                Err(SignError::SequenceTaken { high }) if high.0 > last.0 => last = Revision(high.0),
                Err(error) => return Err(error.into()),
            }
        };
        let now = self.agents.now();
        let mut ids = || -> CommandId { random::id(now) };
        let write: Write = standing_renew(record, envelope, random::id(now), host, now, &mut ids)?;
        store.write(write).await?;
        tracing::info!(standing_order = %record.order, host = %host.name, "a standing order is signed anew");
        self.agents.hub.host_changed(host.id, HostChange::Queue);
        Ok(())
    }
}
