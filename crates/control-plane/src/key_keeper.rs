//! Changes of this control plane's own keys: what the people's side asks for, and the steps that follow from root metadata
//! and from what hosts have taken. What is to be done next is decided in [`fleet::keys`]; here it is done.

use std::sync::Arc;

use envelope::{
    audit::AuditKind,
    messages::StandingOrder,
    root::{OnlineKey, OnlineRole, StagedKeys, TrustedRoot, listed},
    signer_port::{HeldKey, Later, SignError, Signer},
};
use fleet::{
    keys::{ChangeState, HeldOnlineKey, KeyChange, KeyChangeMove, Reached, Step, next_step},
    ports::{AuditEntry, AuditRecord, Notifier as _, Store as _, StoreError, Write},
    recovery::RecoveryStage,
};
use ids::UnixMs;
use serde_json::json;
use signer::RemoteSigner;
use store::SqliteStore;
use tokio::{
    sync::{Mutex, Notify, OwnedMutexGuard},
    time::sleep,
};

use crate::{
    agents::Agents,
    limits,
    online_keys::{KeyChangeError, OnlineKeys},
    signer_process::in_time,
};

/// Why a step of a change was not taken; it is tried again.
#[derive(Debug, thiserror::Error)]
enum NotDone {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Sign(#[from] SignError),
    #[error("{0}")]
    Key(#[from] KeyChangeError),
}

/// See the head of this file.
pub(crate) struct KeyKeeper {
    pub(crate) agents: Arc<Agents>,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) signer: Arc<RemoteSigner>,
    /// One at a time changes keys or root metadata.
    turn: Arc<Mutex<()>>,
    news: Notify,
}

impl KeyKeeper {
    pub(crate) fn new(agents: Arc<Agents>, store: Arc<SqliteStore>, signer: Arc<RemoteSigner>) -> Self {
        Self { agents, store, signer, turn: Arc::default(), news: Notify::new() }
    }

    fn keys(&self) -> &Arc<OnlineKeys> {
        &self.agents.keys
    }

    /// Takes every step that can be taken, until aborted.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut roots = self.agents.roots();
        loop {
            let is_open = {
                let _turn = self.turn.clone().lock_owned().await;
                self.look_once().await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "a change of a key does not go on; trying again");
                    true
                })
            };
            tokio::select! {
                changed = roots.changed() => if changed.is_err() { return },
                () = self.news.notified() => {}
                // Hosts take root metadata one by one, and a signer comes back; nobody tells of either.
                () = sleep(limits::KEY_LOOK_INTERVAL), if is_open => {}
            }
        }
    }

    /// Whether any change is open afterwards.
    async fn look_once(&self) -> Result<bool, NotDone> {
        if self.agents.stage(&self.agents.root()) == RecoveryStage::Gathering {
            // What a backup knows of changes is old: new root metadata comes first.
            return Ok(true);
        }
        let changes = self.store.key_changes().await?;
        let mut is_open = false;
        for mut change in changes.into_iter().filter(|change| !change.state.is_end()) {
            while let Some(step) = self.next_step(&change).await? {
                self.take(&change, step).await?;
                let moved = self.moved(&change, step, self.agents.now());
                change.root_version = moved.root_version.or(change.root_version);
                self.store.write(Write::KeyChangeMove(Box::new(moved))).await?;
                tracing::info!(
                    role = %change.keys.role, state = step.leads_to().as_str(), "a change of a key went on"
                );
                change.state = step.leads_to();
            }
            is_open |= !change.state.is_end();
        }
        Ok(is_open)
    }

    async fn next_step(&self, change: &KeyChange) -> Result<Option<Step>, NotDone> {
        let root = self.agents.root();
        let waits = change.state == ChangeState::Published;
        let reached = match change.root_version.filter(|_| waits) {
            Some(version) => {
                let hub = &self.agents.hub;
                Reached::of(&self.store.hosts().await?, version, |host| hub.connected(host).is_some())
            }
            None => Reached::default(),
        };
        Ok(next_step(change, root.current(), &reached))
    }

    /// Does what the step is, which may have been done before.
    async fn take(&self, change: &KeyChange, step: Step) -> Result<(), NotDone> {
        let staged = change.keys;
        if staged.role == OnlineRole::Command {
            return self.take_of_signer(&staged, step).await;
        }
        let keys = self.keys().clone();
        let taken = tokio::task::spawn_blocking(move || match step {
            Step::Publish => Ok(()),
            Step::Activate => keys.activate(&staged),
            Step::Retire => keys.retire(&staged),
            Step::Abort => keys.abort(&staged),
        });
        match taken.await {
            Ok(taken) => Ok(taken?),
            Err(error) => Err(NotDone::Store(StoreError::Unavailable(format!("a step was cut short: {error}")))),
        }
    }

    async fn take_of_signer(&self, staged: &StagedKeys, step: Step) -> Result<(), NotDone> {
        match step {
            Step::Publish => {}
            Step::Activate => {
                in_time(hand_over(&*self.signer, &self.agents.root())).await?;
                in_time(self.signer.activate_key(staged.new.id())).await?;
            }
            Step::Retire => {
                in_time(hand_over(&*self.signer, &self.agents.root())).await?;
                in_time(self.signer.drop_key(staged.old.id())).await?;
            }
            Step::Abort => {
                let held = in_time(self.signer.keys()).await?.keys;
                let fresh = held.iter().find(|key| OnlineKey::from(key.public) == staged.fresh);
                // What took a stolen key's place may be the key in use, which nobody gave up.
                if fresh.is_some_and(|key| !key.is_active && !key.is_listed) {
                    in_time(self.signer.drop_key(staged.fresh.id())).await?;
                }
            }
        }
        Ok(())
    }

    fn moved(&self, change: &KeyChange, step: Step, now: UnixMs) -> KeyChangeMove {
        let (keys, to) = (&change.keys, step.leads_to());
        let version = self.agents.root().version();
        let record = json!({
            "role": keys.role.as_str(), "old": keys.old.to_string(), "new": keys.new.to_string(),
            "fresh": keys.fresh.to_string(), "emergency": keys.is_emergency, "state": to.as_str(),
            "root_version": version,
        });
        let audit = AuditEntry {
            time: now,
            kind: AuditKind::KeyChange,
            actor: "control-plane".to_owned(),
            subject: format!("{}: {}", keys.new.named(keys.role), to.as_str()),
            record: AuditRecord::Inline(record.to_string().into_bytes()),
        };
        KeyChangeMove {
            role: keys.role,
            new: keys.new,
            from: change.state,
            to,
            root_version: (step == Step::Publish).then_some(version),
            activated_at: (step == Step::Activate).then_some(now),
            is_anyway: false,
            at: now,
            audit,
        }
    }

    async fn held_keys(&self) -> Result<Vec<HeldOnlineKey>, NotDone> {
        let held = in_time(self.signer.keys()).await?.keys;
        let mut all: Vec<_> = held.iter().map(held_command).collect();
        let plain = |role, key, is_in_use| HeldOnlineKey { role, key, is_in_use, is_void: false, made_at: None };
        for role in [OnlineRole::Session, OnlineRole::Tls] {
            all.extend(self.keys().in_use(role).map(|key| plain(role, key, true)));
        }
        let named = self.agents.root().current().audit_key;
        let audit = self.keys().audit(named).map(|key| plain(OnlineRole::Audit, key.public().into(), true));
        all.extend(audit);
        all.extend(self.keys().tls_next().ok().map(|key| plain(OnlineRole::Tls, key, false)));
        Ok(all)
    }

    /// Which keys a change is about, the fresh one made and durable. `stolen` is a command key to be shut out.
    async fn staged(&self, role: OnlineRole, stolen: Option<OnlineKey>) -> Result<StagedKeys, NotDone> {
        let is_emergency = stolen.is_some();
        if role == OnlineRole::Command {
            let held = in_time(self.signer.keys()).await?.keys;
            let active = held.iter().find(|key| key.is_active).map(|key| OnlineKey::from(key.public));
            let old = stolen.or(active).ok_or_else(|| {
                SignError::Unavailable(
                    "the signer has no active command key; `serverflow-control-plane doctor` says more".to_owned(),
                )
            })?;
            let new = match held.iter().filter(|_| is_emergency).find(|key| takes_over(key, old)) {
                Some(key) => key.public,
                None => in_time(self.signer.prepare_key()).await?,
            };
            let new = OnlineKey::from(new);
            return Ok(StagedKeys { role, old, new, fresh: new, is_emergency });
        }
        let keys = self.keys().clone();
        let staged = tokio::task::spawn_blocking(move || {
            let in_use = keys.in_use(role).unwrap_or(OnlineKey([0; 32]));
            let next = if role == OnlineRole::Tls { Some(keys.tls_next()?) } else { None };
            let fresh = keys.prepare(role)?;
            Ok::<_, KeyChangeError>(StagedKeys { role, old: in_use, new: next.unwrap_or(fresh), fresh, is_emergency })
        });
        match staged.await {
            Ok(staged) => Ok(staged?),
            Err(error) => Err(NotDone::Store(StoreError::Unavailable(format!("a key was not made: {error}")))),
        }
    }
}

/// Hands over what the signer does not have yet, so that it does not have to wait for whoever does that otherwise.
pub(crate) async fn hand_over(signer: &dyn Signer, root: &TrustedRoot) -> Result<(), SignError> {
    let held = signer.keys().await?.root.map_or(ids::RootVersion(0), |(version, _)| version);
    if held < root.version() {
        signer.advance_root(root.chain_above(held)).await?;
    }
    Ok(())
}

fn held_command(key: &HeldKey) -> HeldOnlineKey {
    HeldOnlineKey {
        role: OnlineRole::Command,
        key: key.public.into(),
        is_in_use: key.is_active && key.is_listed,
        is_void: key.is_void,
        made_at: Some(key.created_at),
    }
}

/// Whether that key can sign at once when `old` is shut out.
fn takes_over(key: &HeldKey, old: OnlineKey) -> bool {
    key.is_listed && !key.is_void && OnlineKey::from(key.public) != old
}

impl web::KeyKeeper for KeyKeeper {
    fn turn(&self) -> Later<'_, OwnedMutexGuard<()>> {
        Box::pin(self.turn.clone().lock_owned())
    }

    fn held(&self) -> Later<'_, Result<Vec<HeldOnlineKey>, String>> {
        Box::pin(async { self.held_keys().await.map_err(|error| error.to_string()) })
    }

    fn prepare(&self, role: OnlineRole, stolen: Option<OnlineKey>) -> Later<'_, Result<StagedKeys, String>> {
        Box::pin(async move {
            let staged = self.staged(role, stolen).await.map_err(|error| error.to_string())?;
            let root = self.agents.root();
            let listed = listed(root.current(), role);
            if listed.contains(&staged.old) && (role != OnlineRole::Tls || listed.contains(&staged.new)) {
                return Ok(staged);
            }
            Err(format!(
                "root metadata version {} does not list the {} in use and the one that comes next; run `serverflow-control-plane doctor`",
                root.version(),
                role.words()
            ))
        })
    }

    fn sign_standing(&self, order: StandingOrder) -> Later<'_, Result<Vec<u8>, SignError>> {
        Box::pin(in_time(self.signer.sign_standing(order)))
    }

    fn look(&self) {
        self.news.notify_one();
    }
}
