//! Secrets are sealed here, before they leave this machine: each to each host, bound to fleet, host,
//! app, name and operation, so that what is sealed opens at one place only.

use std::collections::BTreeMap;

use actions::spec::SecretName;
use api::{HostDetail, RecoveryCopy, SealedValue};
use data_encoding::BASE64;
use envelope::{
    key_chain::HostKeys,
    limits,
    messages::SealingKeyBytes,
    recovery::{RecoveryContext, recovery_copy},
    seal::{SealContext, seal},
};
use ids::{AppName, HostName, OperationId};
use rand::{rand_core::UnwrapErr, rngs::SysRng};
use zeroize::Zeroizing;

use crate::{
    exit::{Failure, Kind},
    owner,
    roots::Roots,
};

/// What is sealed, and for what.
pub(crate) struct Sealing<'a> {
    pub(crate) roots: &'a Roots,
    pub(crate) app: &'a AppName,
    pub(crate) operation: OperationId,
    pub(crate) secrets: &'a BTreeMap<SecretName, Zeroizing<String>>,
}

impl Sealing<'_> {
    /// Every secret sealed to every host, by host.
    pub(crate) fn to_hosts(&self, hosts: &[HostDetail]) -> Result<BTreeMap<HostName, Vec<SealedValue>>, Failure> {
        if self.secrets.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.check_sizes()?;
        hosts.iter().map(|host| Ok((host.summary.name.clone(), self.to_host(host)?))).collect()
    }

    /// Every secret sealed to the owner, if the fleet has a recovery key.
    pub(crate) fn to_owner(&self) -> Result<Option<RecoveryCopy>, Failure> {
        if self.secrets.is_empty() || self.roots.recovery_keys.is_empty() {
            return Ok(None);
        }
        let context = RecoveryContext { fleet: self.roots.fleet, app: self.app.as_str(), version: self.operation };
        let secrets = self.secrets.iter().map(|(name, text)| (name.0.as_str(), text.as_bytes()));
        let seed = keyfile::random().map_err(|_| Failure::randomness())?;
        // Without randomness nothing may be sealed, and `UnwrapErr` then ends the program.
        let copy = recovery_copy(&self.roots.recovery_keys, &context, secrets, &seed, &mut UnwrapErr(SysRng));
        let copy = copy.map_err(|error| Failure::invalid(format!("for the fleet's owner: {error}")))?;
        Ok(Some(owner::shown(&copy)))
    }

    /// They must fit into one order; the host would refuse them later.
    fn check_sizes(&self) -> Result<(), Failure> {
        let (count, most) = (self.secrets.len(), limits::SEALED_COUNT_MAX);
        if count > most {
            let why = format!("the app has {count} sealed values; {most} is the most");
            return Err(Failure::invalid(why).hint("split the app, or put some of them into the image"));
        }
        let total: usize = self.secrets.values().map(|text| text.len() + limits::SEAL_OVERHEAD_BYTES).sum();
        let most = limits::SEALED_TOTAL_BYTES_MAX;
        if total > most {
            let why = format!("the app's sealed values have {total} bytes; {most} is the most");
            return Err(Failure::invalid(why).hint("put large files into the image"));
        }
        Ok(())
    }

    fn to_host(&self, host: &HostDetail) -> Result<Vec<SealedValue>, Failure> {
        let key = sealing_key(host, self.roots)?;
        let seal_one = |(name, text): (&SecretName, &Zeroizing<String>)| {
            let context = SealContext {
                fleet: self.roots.fleet,
                host: host.summary.id,
                app: self.app.as_str(),
                name: &name.0,
                version: self.operation,
            };
            // Without randomness nothing may be sealed, and `UnwrapErr` then ends the program.
            let sealed = seal(&key, &context, text.as_bytes(), &mut UnwrapErr(SysRng))
                .map_err(|e| Failure::invalid(format!("for host {}: {e}", host.summary.name)))?;
            Ok(SealedValue { name: name.0.clone(), sealed: BASE64.encode(&sealed) })
        };
        self.secrets.iter().map(seal_one).collect()
    }
}

/// The key that secrets for a host are sealed to.
fn sealing_key(host: &HostDetail, roots: &Roots) -> Result<SealingKeyBytes, Failure> {
    let wrong = |what: &str| {
        let name = &host.summary.name;
        Failure::new(
            Kind::NotWell,
            format!("the control plane gave a {what} of host {name} that is none, so nothing was sealed to it"),
        )
        .hint("look at it with `serverflow host show`, and enrol the host anew if it stays so")
    };
    let bytes = BASE64.decode(host.sealing_key.as_bytes()).ok();
    let key = bytes.and_then(|bytes| bytes.try_into().ok()).map(SealingKeyBytes).ok_or_else(|| wrong("sealing key"))?;
    envelope::keys::check_sealing_key(&key).map_err(|_| wrong("sealing key"))?;
    // The receipt, signed by a key that the root named, says which key the host made. Without it, whoever
    // answers here could have secrets sealed to a key of their own.
    let receipt = BASE64.decode(host.receipt.as_bytes()).map_err(|_| wrong("enrolment receipt"))?;
    let receipt = roots.receipt(&receipt).map_err(|why| wrong(&format!("enrolment receipt ({why})")))?;
    let mut keys = HostKeys::enrolled(&receipt);
    for rotation in &host.key_changes {
        let rotation = BASE64.decode(rotation.as_bytes()).map_err(|_| wrong("rotation of keys"))?;
        keys.follow(&rotation).map_err(|why| wrong(&format!("rotation of keys ({why})")))?;
    }
    if keys.host != host.summary.id || keys.sealing_key != key {
        return Err(wrong("sealing key that its enrolment receipt and the rotations since do not name, or a receipt"));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use envelope::{
        keys::{SigningKey, role},
        messages::{KeyOffer, KeyRotation},
        seal::SealingSecretKey,
    };
    use ids::{Challenge, HostEpoch, HostId, TlsExporter};
    use serde_json::json;

    use super::*;
    use crate::{roots::tests as roots, sample};

    fn host(name: &str, number: u8, key: &SealingKeyBytes) -> HostDetail {
        let receipt = roots::receipt(sample::id(number).parse().unwrap(), *key, 1);
        serde_json::from_value(json!({
            "id": sample::id(number), "name": name, "status": "connected", "roles": [], "agent_version": "0.1.0",
            "last_seen": null, "enrolled_at": "2023-11-13T22:13:20.000Z", "host_epoch": 1, "identity_key": "",
            "sealing_key": BASE64.encode(&key.0), "receipt": BASE64.encode(&receipt), "root_version": 1,
            "highest_sequence": 0, "acknowledged_sequence": 0, "last_report_sequence": 0, "actions": [], "apps": [],
        }))
        .unwrap()
    }

    fn secrets() -> BTreeMap<SecretName, Zeroizing<String>> {
        let secret = |name: &str, text: &str| (SecretName(name.to_owned()), Zeroizing::new(text.to_owned()));
        BTreeMap::from([secret("web/environment/A", "one"), secret("web/environment/B", "")])
    }

    #[test]
    fn each_host_opens_its_own_values_in_their_own_place_and_nothing_else() {
        let keys = [SealingSecretKey::from_bytes(&[1; 32]), SealingSecretKey::from_bytes(&[2; 32])];
        let hosts = [host("a", 1, &keys[0].public()), host("b", 2, &keys[1].public())];
        let (fleet, roots) = (roots::fleet(), roots::roots());
        let operation: OperationId = sample::id(8).parse().unwrap();
        let app: AppName = "shop".parse().unwrap();
        let secrets = secrets();
        let sealed = Sealing { roots: &roots, app: &app, operation, secrets: &secrets }.to_hosts(&hosts).unwrap();
        let context = |host: &HostDetail, name: &'static str| SealContext {
            fleet,
            host: host.summary.id,
            app: "shop",
            name,
            version: operation,
        };
        for (key, host) in keys.iter().zip(&hosts) {
            let values = &sealed[&host.summary.name];
            assert_eq!(values.len(), 2);
            for (value, (name, text)) in values.iter().zip([("web/environment/A", "one"), ("web/environment/B", "")]) {
                assert_eq!(value.name, name);
                let bytes = BASE64.decode(value.sealed.as_bytes()).unwrap();
                assert_eq!(key.open(&context(host, name), &bytes).unwrap().as_slice(), text.as_bytes());
                let elsewhere = SealContext { host: HostId::from_bytes([9; 16]), ..context(host, name) };
                assert!(key.open(&elsewhere, &bytes).is_err());
                let later = SealContext { version: sample::id(6).parse().unwrap(), ..context(host, name) };
                assert!(key.open(&later, &bytes).is_err());
            }
        }
        let of_b = BASE64.decode(sealed[&hosts[1].summary.name][0].sealed.as_bytes()).unwrap();
        assert!(keys[0].open(&context(&hosts[1], "web/environment/A"), &of_b).is_err());
    }

    #[test]
    fn a_key_made_by_a_rotation_is_believed_for_both_keys_signatures() {
        let roots = roots::roots();
        let [first, second, third] = [1, 2, 3].map(|seed| SealingSecretKey::from_bytes(&[seed; 32]).public());
        let signers = [5, 6, 7].map(|seed| SigningKey::<role::Agent>::from_seed(&[seed; 32]));
        let rotation = |old: usize, new: usize, epoch: u64, sealing_key| {
            let host = sample::id(1).parse().unwrap();
            let offer = KeyOffer {
                identity_key: signers[new].public(),
                fleet: roots::fleet(),
                host,
                host_epoch: HostEpoch(epoch),
                old_identity_key: signers[old].public(),
                sealing_key,
                control_nonce: Challenge([1; 32]),
                exporter: TlsExporter([2; 32]),
            };
            let offer = signers[new].sign(&offer).into_envelope();
            let rotation = KeyRotation { fleet: roots::fleet(), host, offer };
            BASE64.encode(&signers[old].sign(&rotation).into_envelope())
        };
        let shown = |key: &SealingKeyBytes, key_changes: Vec<String>| {
            let mut host = host("a", 1, &first);
            host.sealing_key = BASE64.encode(&key.0);
            HostDetail { key_changes, ..host }
        };
        let chain = vec![rotation(0, 1, 2, second), rotation(1, 2, 3, third)];
        assert_eq!(sealing_key(&shown(&third, chain.clone()), &roots).unwrap(), third);
        for (key, changes) in [
            (third, vec![]),
            (second, chain.clone()),
            (third, vec![chain[1].clone()]),
            (third, vec![chain[1].clone(), chain[0].clone()]),
            (third, vec![rotation(2, 1, 2, third)]),
            (third, vec![rotation(0, 1, 3, third)]),
        ] {
            assert!(sealing_key(&shown(&key, changes), &roots).is_err());
        }
    }

    #[test]
    fn a_key_that_is_none_or_not_the_receipts_is_refused() {
        let roots = roots::roots();
        let key = SealingSecretKey::from_bytes(&[1; 32]).public();
        let other = SealingSecretKey::from_bytes(&[2; 32]).public();
        assert!(sealing_key(&host("a", 1, &key), &roots).is_ok());
        let zero = SealingKeyBytes([0; 32]);
        assert!(sealing_key(&host("a", 1, &zero), &roots).is_err(), "a key of small order");
        let mut swapped = host("a", 1, &key);
        swapped.sealing_key = BASE64.encode(&other.0);
        assert!(sealing_key(&swapped, &roots).is_err(), "another key than the receipt's");
        let mut another = host("a", 1, &key);
        another.receipt = host("b", 2, &key).receipt;
        assert!(sealing_key(&another, &roots).is_err(), "another host's receipt");
        let mut unsigned = host("a", 1, &key);
        unsigned.receipt = BASE64.encode(&roots::receipt(unsigned.summary.id, key, 9));
        assert!(sealing_key(&unsigned, &roots).is_err(), "a receipt that no key of the root's signed");
        let mut broken = host("a", 1, &key);
        broken.sealing_key = "not base64".to_owned();
        assert!(sealing_key(&broken, &roots).is_err());
    }
}
