//! Who may speak for the fleet: its chain of root metadata, verified here from a root key that this
//! machine knows, so that a control plane cannot bring keys of its own. The key is the one of
//! `login --root` or `SERVERFLOW_ROOT`; else the one seen at the first sign-in, which was trusted then and
//! is held to from then on.

use api::FleetRoot;
use data_encoding::BASE64;
use envelope::{
    VerifyingKey,
    keys::role,
    messages::{EnrolReceipt, PublicKeyBytes, RootMetadata, SealingKeyBytes},
    root::TrustedRoot,
    verify,
};
use ids::FleetId;

use crate::{
    client::Client,
    exit::{Failure, Kind},
    files, limits,
    output::Output,
    session_file::variable,
};

/// A verified chain.
pub(crate) struct Roots {
    pub(crate) fleet: FleetId,
    /// Every session key that was ever in force: a receipt stays what it was when keys change.
    session_keys: Vec<VerifyingKey<role::Session>>,
    /// The owner recovery keys in force: every secret is sealed to them as well.
    pub(crate) recovery_keys: Vec<SealingKeyBytes>,
    /// Every command key that was ever in force.
    pub(crate) command_keys: Vec<VerifyingKey<role::Command>>,
    /// The version in force.
    pub(crate) root: TrustedRoot,
}

/// The chain as the control plane gives it, not verified yet.
pub(crate) async fn fetch(client: &Client) -> Result<Vec<Vec<u8>>, Failure> {
    let root: FleetRoot = client.get(&["fleet", "root"]).await?;
    let decoded: Result<Vec<_>, _> = root.root_chain.iter().map(|text| BASE64.decode(text.as_bytes())).collect();
    decoded.map_err(|_| refused("it is not base64"))
}

/// The chain, verified from the key that is known; without one, from the key that it names itself, which
/// is said.
pub(crate) async fn known(client: &Client, output: &Output) -> Result<Roots, Failure> {
    let (chain, key) = begun(client, output).await?;
    verified(&chain, key)
}

/// The same, only from a key that is known: for what somebody stands for with their own signature.
pub(crate) async fn vouched(client: &Client) -> Result<Roots, Failure> {
    let key = known_key(client)?.ok_or_else(|| {
        Failure::new(
            Kind::NotAllowed,
            "no root key is known here, so nothing that the control plane shows can be verified",
        )
        .hint("name the root key's file with SERVERFLOW_ROOT, or sign in with `serverflow login URL --root FILE`")
    })?;
    verified(&fetch(client).await?, key)
}

/// The same, as the version in force with its chain.
pub(crate) async fn trusted(client: &Client, output: &Output) -> Result<TrustedRoot, Failure> {
    let (chain, key) = begun(client, output).await?;
    followed(&chain, key, |_| {})
}

/// The chain, and the key with which it must begin.
async fn begun(client: &Client, output: &Output) -> Result<(Vec<Vec<u8>>, PublicKeyBytes), Failure> {
    let chain = fetch(client).await?;
    let key = match known_key(client)? {
        Some(key) => key,
        None => {
            output.progress(
                "note: no root key is known here, so the control plane's own word is taken for whose keys these are; \
                 name the root key's file with SERVERFLOW_ROOT",
            );
            first_key(&chain)?
        }
    };
    Ok((chain, key))
}

fn known_key(client: &Client) -> Result<Option<PublicKeyBytes>, Failure> {
    match variable("SERVERFLOW_ROOT") {
        Some(file) => read_key(file.as_ref()).map(Some),
        None => Ok(client.root()),
    }
}

/// A file with the root's public key.
pub(crate) fn read_key(path: &std::path::Path) -> Result<PublicKeyBytes, Failure> {
    let text = files::read_text(path, limits::ROOT_FILE_BYTES_MAX)?;
    text.trim().parse().map_err(|_| {
        Failure::invalid(format!("{} holds no public key: expected 64 hexadecimal digits", path.display()))
    })
}

/// The first root key of the first version that signed it.
pub(crate) fn first_key(chain: &[Vec<u8>]) -> Result<PublicKeyBytes, Failure> {
    let first = chain.first().ok_or_else(|| refused("it is empty"))?;
    let root = TrustedRoot::from_stored(std::slice::from_ref(first)).map_err(|error| refused(&error.to_string()))?;
    let keys = &root.current().root_keys;
    let signed = keys.iter().find(|key| TrustedRoot::pin_key(first, **key).is_ok());
    signed.copied().ok_or_else(|| refused("none of its root keys signed its first version"))
}

/// Verifies a chain from a root key on.
pub(crate) fn verified(chain: &[Vec<u8>], key: PublicKeyBytes) -> Result<Roots, Failure> {
    let (mut session_keys, mut command_keys) = (Vec::new(), Vec::new());
    let root = followed(chain, key, |root| {
        session_keys.extend_from_slice(root.session_keys());
        command_keys.extend_from_slice(root.command_keys());
    })?;
    let RootMetadata { fleet, recovery_keys, .. } = root.current();
    Ok(Roots { fleet: *fleet, recovery_keys: recovery_keys.clone(), session_keys, command_keys, root })
}

/// The same, showing each version.
fn followed(
    chain: &[Vec<u8>],
    key: PublicKeyBytes,
    mut each: impl FnMut(&TrustedRoot),
) -> Result<TrustedRoot, Failure> {
    let (first, rest) = chain.split_first().ok_or_else(|| refused("it is empty"))?;
    let mut root = TrustedRoot::pin_key(first, key).map_err(|error| {
        refused(&format!("it does not begin with the root key known here ({error})")).hint(
            "this may be another fleet, or somebody in its place: ask its owner. If the fleet was made anew, forget the \
             old one with `serverflow logout`, and sign in with --root FILE",
        )
    })?;
    each(&root);
    for envelope in rest {
        root.advance(envelope).map_err(|error| refused(&error.to_string()))?;
        each(&root);
    }
    Ok(root)
}

fn refused(why: &str) -> Failure {
    Failure::new(Kind::NotWell, format!("the fleet's root metadata does not verify: {why}"))
}

impl Roots {
    /// A host's enrolment receipt, verified.
    pub(crate) fn receipt(&self, envelope: &[u8]) -> Result<EnrolReceipt, String> {
        let receipt = verify::<EnrolReceipt>(envelope, &self.session_keys).map_err(|error| error.to_string())?;
        if receipt.fleet != self.fleet {
            return Err(format!("it is of another fleet, {}", receipt.fleet));
        }
        Ok((*receipt).clone())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use envelope::{
        keys::SigningKey,
        messages::{ApprovalThresholds, RootMetadata, SealingKeyBytes},
        root::sign_root,
    };
    use ids::{AuditLogId, DurationMs, Epoch, HostEpoch, HostId, RootVersion, Sha256, TokenId};

    use super::*;
    use crate::sample::{self, NOW};

    pub(crate) fn fleet() -> FleetId {
        sample::id(7).parse().unwrap()
    }

    fn chain_of(root: u8, versions: u64) -> Vec<Vec<u8>> {
        let key = SigningKey::<role::Root>::from_seed(&[root; 32]);
        let version = |version: u64| RootMetadata {
            version: RootVersion(version),
            issued: NOW,
            expires: NOW.plus(DurationMs::from_days(300)),
            fleet: fleet(),
            root_keys: vec![key.public()],
            root_threshold: 1,
            addresses: vec!["control.example:7443".to_owned()],
            recovery_keys: Vec::new(),
            // Another session key with each version.
            session_keys: vec![session_key(version).public()],
            command_keys: vec![SigningKey::<role::Command>::from_seed(&[3; 32]).public()],
            approver_keys: Vec::new(),
            approvals: ApprovalThresholds::default(),
            audit_key: SigningKey::<role::Audit>::from_seed(&[4; 32]).public(),
            audit_log: AuditLogId::from_bytes([6; 16]),
            restored_log: None,
            tls_pins: vec![Sha256([1; 32]), Sha256([2; 32])],
            protocol_min: 1,
            epoch: Epoch(1),
        };
        (1..=versions).map(|number| sign_root(&[&key], &version(number))).collect()
    }

    fn session_key(version: u64) -> SigningKey<role::Session> {
        SigningKey::from_seed(&[100 + u8::try_from(version).unwrap(); 32])
    }

    /// A chain of two versions, verified from its root key.
    pub(crate) fn roots() -> Roots {
        verified(&chain_of(1, 2), first_key(&chain_of(1, 2)).unwrap())
            .unwrap_or_else(|failure| panic!("{}", failure.lines()))
    }

    /// A receipt as the control plane of [`roots`] gave it while `version` was in force.
    pub(crate) fn receipt(host: HostId, sealing_key: SealingKeyBytes, version: u64) -> Vec<u8> {
        let receipt = EnrolReceipt {
            fleet: fleet(),
            host,
            host_epoch: HostEpoch(1),
            name: "first-name".parse().unwrap(),
            roles: Vec::new(),
            token: TokenId::from_bytes([8; 16]),
            identity_key: SigningKey::<role::Agent>::from_seed(&[5; 32]).public(),
            sealing_key,
            time: NOW,
        };
        session_key(version).sign(&receipt).into_envelope()
    }

    #[test]
    fn a_chain_verifies_from_its_own_root_key_and_from_no_other() {
        let mine = first_key(&chain_of(1, 2)).unwrap_or_else(|failure| panic!("{}", failure.lines()));
        assert!(verified(&chain_of(1, 3), mine).is_ok());
        for chain in [chain_of(2, 2), chain_of(1, 3).split_off(1), Vec::new(), vec![b"x".to_vec()]] {
            let failure = verified(&chain, mine).err().expect("refused");
            assert!(failure.lines().contains("does not verify"), "{}", failure.lines());
        }
        let mut forged = chain_of(1, 1);
        forged.extend(chain_of(2, 2).split_off(1));
        assert!(verified(&forged, mine).is_err(), "a version that the root did not sign");
        assert!(verified(&chain_of(2, 1), mine).err().expect("refused").lines().contains("somebody in its place"));
    }

    #[test]
    fn receipts_of_every_version_verify_and_those_of_others_do_not() {
        let (roots, host) = (roots(), HostId::from_bytes([1; 16]));
        let key = SealingKeyBytes([9; 32]);
        assert_eq!(roots.receipt(&receipt(host, key, 1)).unwrap().host, host);
        assert!(roots.receipt(&receipt(host, key, 2)).is_ok());
        assert!(roots.receipt(&receipt(host, key, 3)).is_err(), "a session key that the root does not name");
        let mut changed = receipt(host, key, 1);
        *changed.last_mut().unwrap() ^= 1;
        assert!(roots.receipt(&changed).is_err());
    }
}
