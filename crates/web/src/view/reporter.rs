//! Whose word a report is: the identity key that its host has on record, or had in the epoch that the report names.

use envelope::{
    Verified, VerifyingKey,
    keys::role,
    messages::{PublicKeyBytes, Report},
    verify,
};
use fleet::{
    model::Host,
    ports::{Store, StoreError},
};
use ids::{HostEpoch, HostName};

/// A host as the one who signs reports.
pub(crate) struct Reporter {
    name: HostName,
    keys: Vec<(HostEpoch, PublicKeyBytes)>,
}

impl Reporter {
    /// Those of its keys that are stored.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn of(store: &dyn Store, host: Host) -> Result<Self, StoreError> {
        let mut keys = vec![(host.host_epoch, host.identity_key)];
        if host.host_epoch > HostEpoch(1) {
            let former = store.host_former_keys(host.id).await?;
            keys.extend(former.into_iter().map(|key| (key.host_epoch, key.identity_key)));
        }
        Ok(Self { name: host.name, keys })
    }

    /// The report, if it is by the key of its own epoch.
    pub(crate) fn verified(&self, envelope: &[u8]) -> Option<Verified<Report>> {
        let key_of = |key: &PublicKeyBytes| VerifyingKey::<role::Agent>::try_from(*key).ok();
        let keys: Vec<_> = self.keys.iter().filter_map(|(_, key)| key_of(key)).collect();
        let host = &self.name;
        let report = match verify::<Report>(envelope, &keys) {
            Ok(report) => report,
            Err(error) => {
                tracing::error!(%host, %error, "a stored report does not verify");
                return None;
            }
        };
        let own = self.keys.iter().find(|(epoch, _)| *epoch == report.host_epoch).and_then(|(_, key)| key_of(key));
        if own.is_some_and(|key| key.key_id() == report.key_id()) {
            return Some(report);
        }
        tracing::error!(%host, "a stored report is by another key than its host had in that epoch");
        None
    }
}
