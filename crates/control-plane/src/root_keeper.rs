//! New root metadata from a person: may this control plane go on under it, and who is told.

use std::sync::Arc;

use envelope::{keys::key_id, messages::RootMetadata, root::TrustedRoot};

use fleet::recovery::Recovery;
use signer::Standing;
use tokio::sync::watch;

use crate::{agents::Agents, keys::Held};

/// What the people's side asks when it is handed root metadata.
pub(crate) struct RootKeeper {
    pub(crate) agents: Arc<Agents>,
    pub(crate) held: Held,
    /// How the signer stands, which says which command key is in use.
    pub(crate) signer: watch::Receiver<Standing>,
}

impl web::RootKeeper for RootKeeper {
    fn hindered_by(&self, next: &RootMetadata) -> Option<String> {
        let Held { session, audit, tls } = &self.held;
        let active = match &*self.signer.borrow() {
            Standing::Here(keys) => keys.keys.iter().find(|key| key.is_active).map(|key| key.public),
            Standing::Away { .. } => {
                let why = "the signer does not answer, so it is not known which command key is in use. Wait for it, and try again";
                return Some(why.to_owned());
            }
        };
        // One that has no active key signs nothing anyway.
        let dropped = active.filter(|command| !next.command_keys.contains(command));
        let lost = [
            (!next.session_keys.contains(session)).then(|| ("session key", key_id(session).to_string())),
            dropped.map(|command| ("command key", key_id(&command).to_string())),
            (next.audit_key != *audit).then(|| ("audit key", key_id(audit).to_string())),
            (!next.tls_pins.contains(tls)).then(|| ("pin of the TLS key", tls.to_string())),
        ];
        let (what, which) = lost.into_iter().flatten().next()?;
        Some(format!(
            "this version drops the {what} {which}, which this control plane uses: every agent would turn it away. Let it \
             use another key that root metadata lists, and then drop this one"
        ))
    }

    fn in_force(&self, root: Arc<TrustedRoot>) {
        tracing::info!(version = %root.version(), "new root metadata is in force; sessions begin anew");
        self.agents.root_advance(root);
    }

    fn recovered(&self, recovery: Recovery) {
        tracing::info!("which hosts are revoked was confirmed: orders go out again");
        self.agents.recovery_set(Some(recovery));
    }
}

#[cfg(test)]
mod tests {
    use envelope::{
        root::{Edit, next_version},
        signer_port::Signer as _,
    };
    use fleet::ports::Store as _;
    use ids::Sha256;
    use web::RootKeeper as _;

    use super::*;
    use crate::{files::Files, init, keys};

    /// A fleet as `init` makes it, with its keys.
    async fn keeper(directory: &std::path::Path) -> (RootKeeper, RootMetadata) {
        let files = Files::new(&init::tests::made(directory).await);
        let keys = keys::load(&files).expect("its keys");
        let held = keys.held();
        let config = store::StoreConfig { path: files.database(), data_key: keys.data.clone() };
        let store = Arc::new(store::SqliteStore::open(config).await.expect("its database"));
        let root = TrustedRoot::from_stored(&store.root_chain().await.expect("a chain")).expect("it verifies");
        let current = root.current().clone();
        let signer = Arc::new(crate::signer_process::open(files.signer(), None).expect("a signer"));
        let (_, standing) = watch::channel(Standing::Here(signer.keys().await.expect("its keys")));
        let agents = Agents::new(Arc::new(root), store, signer, keys.session, crate::hub::Hub::new());
        (RootKeeper { agents: Arc::new(agents), held, signer: standing }, current)
    }

    #[tokio::test]
    async fn a_key_in_use_must_stay_and_any_other_may_go() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (keeper, current) = keeper(directory.path()).await;
        let key = |n| envelope::keys::SigningKey::<envelope::keys::role::Root>::from_seed(&[n; 32]).public();
        let judged = |edits: &[Edit]| {
            let next = next_version(&current, edits, current.issued).expect("a next version");
            keeper.hindered_by(&next)
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
            let why = judged(&edits).expect(what);
            assert!(why.contains(&format!("drops the {what}")), "{why}");
        }
        assert_eq!(judged(&[]), None, "only renewed");
        assert_eq!(judged(&[new_pin, Edit::DropTlsPin(next), Edit::AddCommandKey(key(4)), Edit::RaiseEpoch]), None);
    }
}
