//! New root metadata from a person: may this control plane go on under it, and who is told.

use std::sync::Arc;

use envelope::{
    keys::key_id,
    messages::RootMetadata,
    root::{OnlineRole, TrustedRoot, listed},
    signer_port::{HeldKey, Later},
};
use fleet::{
    ports::{Notifier as _, StoreError},
    recovery::Recovery,
    standing::StandingRecord,
};
use tokio::time::timeout;

use crate::{agents::Agents, key_keeper::hand_over, limits, signer_process::in_time};

/// What the people's side asks when it is handed root metadata.
pub(crate) struct RootKeeper(pub(crate) Arc<Agents>);

impl RootKeeper {
    /// The command key in use, if `next` drops it and no other that the signer holds takes its place with it.
    async fn command_lost(&self, next: &RootMetadata) -> Result<Option<String>, String> {
        let asked = in_time(self.0.signer.keys()).await;
        let held = asked.map_err(|error| {
            format!("it is not known which command key is in use: {error}. Wait for the signer, and try again")
        })?;
        let stays = |key: &&HeldKey| next.command_keys.contains(&key.public);
        // One that has no active key signs nothing anyway.
        let dropped = held.keys.iter().find(|key| key.is_active).filter(|key| !stays(key));
        // A stolen key goes at once, and what it signed with it; any other only when nothing of it is left.
        let is_shut_out = next.epoch > self.0.root().current().epoch;
        let is_replaced = held.keys.iter().any(|key| !key.is_void && stays(&key));
        Ok(dropped.filter(|_| !(is_shut_out && is_replaced)).map(|key| key.key_id().to_string()))
    }

    async fn lost(&self, next: &RootMetadata) -> Option<String> {
        let keys = &self.0.keys;
        let command = match self.command_lost(next).await {
            Ok(command) => command,
            Err(why) => return Some(why),
        };
        let dropped = |role| keys.in_use(role).filter(|key| !listed(next, role).contains(key));
        let audit = keys.audit(next.audit_key).is_none();
        let lost = [
            dropped(OnlineRole::Session).map(|key| ("session key", key.id().to_string())),
            command.map(|key| ("command key", key)),
            audit.then(|| ("audit key", key_id(&self.0.root().current().audit_key).to_string())),
            dropped(OnlineRole::Tls).map(|key| ("pin of the TLS key", key.to_string())),
        ];
        let (what, which) = lost.into_iter().flatten().next()?;
        Some(format!(
            "this version drops the {what} {which}, which this control plane uses: every agent would turn it away. Change it \
             with `serverflow key rotate`, which lists another one first; a stolen command key goes with `serverflow key revoke`"
        ))
    }
}

impl RootKeeper {
    /// Standing orders on hosts that are connected, under a command key that `next` drops: they are being signed anew, which
    /// takes moments. One whose host is away does not keep a key; nor does a stolen one stay for any.
    async fn standing(&self, next: &RootMetadata) -> Result<Option<String>, StoreError> {
        let (root, now) = (self.0.root(), self.0.now());
        let current = root.current();
        let dropped = current.command_keys.iter().filter(|key| !next.command_keys.contains(key));
        let dropped: Vec<_> = dropped.map(key_id).collect();
        if dropped.is_empty() || next.epoch > current.epoch {
            return Ok(None);
        }
        let records = self.0.store.standing_orders(None).await?;
        let hosts = if records.is_empty() { Vec::new() } else { self.0.store.hosts().await? };
        let waits = |record: &&StandingRecord| {
            let host = hosts.iter().find(|host| host.id == record.host);
            host.is_some_and(|host| {
                let is_connected = self.0.hub.connected(host.id).is_some();
                is_connected && dropped.iter().any(|key| record.waits_under(*key, host, now))
            })
        };
        let mut names: Vec<_> = records.iter().filter(waits).map(|record| record.host_name.to_string()).collect();
        names.dedup();
        Ok((!names.is_empty()).then(|| {
            format!(
                "this version drops a command key that standing orders on {} still rest on; they are signed anew by themselves \
                 once another key is in use. Look with `serverflow standing list`, and try again",
                names.join(", ")
            )
        }))
    }

    async fn hindrance(&self, next: &RootMetadata) -> Option<String> {
        if let Some(why) = self.lost(next).await {
            return Some(why);
        }
        self.standing(next)
            .await
            .unwrap_or_else(|error| Some(format!("it is not known what rests on the keys: {error}")))
    }
}

impl web::RootKeeper for RootKeeper {
    fn hindered_by<'a>(&'a self, next: &'a RootMetadata) -> Later<'a, Option<String>> {
        Box::pin(self.hindrance(next))
    }

    fn in_force(&self, root: Arc<TrustedRoot>) -> Later<'_, ()> {
        Box::pin(async move {
            // Sessions that begin anew are opened by the signer's own judgement; and what was dropped is to sign nothing more.
            match timeout(limits::SIGNER_ROOT_TIMEOUT, hand_over(&*self.0.signer, &root)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the signer did not take root metadata yet; it is tried again")
                }
                Err(_) => tracing::warn!("the signer did not take root metadata in time; it is tried again"),
            }
            tracing::info!(version = %root.version(), "new root metadata is in force; sessions begin anew");
            self.0.root_advance(root);
        })
    }

    fn recovered(&self, recovery: Recovery) {
        tracing::info!("which hosts are revoked was confirmed: orders go out again");
        self.0.recovery_set(Some(recovery));
    }
}

#[cfg(test)]
mod tests {
    use envelope::root::{Edit, next_version};
    use fleet::ports::Store as _;
    use ids::Sha256;
    use web::RootKeeper as _;

    use super::*;
    use crate::{files::Files, init, keys, online_keys::OnlineKeys};

    /// A fleet as `init` makes it, with its keys.
    async fn keeper(directory: &std::path::Path) -> (RootKeeper, RootMetadata) {
        let files = Files::new(&init::tests::made(directory).await);
        let keys = keys::load(&files).expect("its keys");
        let data = keys.data.clone();
        let config = store::StoreConfig { path: files.database(), data_key: data };
        let store = Arc::new(store::SqliteStore::open(config).await.expect("its database"));
        let root = TrustedRoot::from_stored(&store.root_chain().await.expect("a chain")).expect("it verifies");
        let current = root.current().clone();
        let signer = Arc::new(crate::signer_process::open(files.signer(), None).expect("a signer"));
        let online = Arc::new(OnlineKeys::new(files.clone(), keys).expect("a certificate"));
        let agents = Agents::new(Arc::new(root), store, signer, online, crate::hub::Hub::new());
        (RootKeeper(Arc::new(agents)), current)
    }

    #[tokio::test]
    async fn a_key_in_use_must_stay_and_any_other_may_go() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (keeper, current) = keeper(directory.path()).await;
        let key = |n| envelope::keys::SigningKey::<envelope::keys::role::Root>::from_seed(&[n; 32]).public();
        let judged = async |edits: &[Edit]| {
            let next = next_version(&current, edits, current.issued).expect("a next version");
            keeper.hindered_by(&next).await
        };
        let [session, command] = [current.session_keys[0], current.command_keys[0]];
        let (now, next) = (current.tls_pins[0], current.tls_pins[1]);
        let new_pin = Edit::AddTlsPin(Sha256([7; 32]));
        for (what, edits) in [
            ("session key", vec![Edit::AddSessionKey(key(1)), Edit::DropSessionKey(session)]),
            ("command key", vec![Edit::AddCommandKey(key(2)), Edit::DropCommandKey(command)]),
            ("audit key", vec![Edit::AuditKey(key(3))]),
            ("pin of the TLS key", vec![new_pin.clone(), Edit::DropTlsPin(now)]),
        ] {
            let why = judged(&edits).await.expect(what);
            assert!(why.contains(&format!("drops the {what}")), "{why}");
        }
        assert_eq!(judged(&[]).await, None, "only renewed");
        assert_eq!(
            judged(&[new_pin, Edit::DropTlsPin(next), Edit::AddCommandKey(key(4)), Edit::RaiseEpoch]).await,
            None
        );
        let why = judged(&[Edit::AddCommandKey(key(2)), Edit::DropCommandKey(command), Edit::RaiseEpoch]).await;
        assert!(why.is_some(), "nobody here holds the other one");
        let other = keeper.0.signer.prepare_key().await.expect("another one");
        let replaced = [Edit::AddCommandKey(other), Edit::DropCommandKey(command)];
        assert!(judged(&replaced).await.is_some(), "what it signed would still count");
        assert_eq!(judged(&[&replaced[..], &[Edit::RaiseEpoch]].concat()).await, None);
    }
}
