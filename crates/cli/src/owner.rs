//! The owner's recovery key, and the secrets it opens: on this machine and nowhere else.

use std::{collections::BTreeMap, path::Path};

use actions::spec::SecretName;
use api::{RecoveryCopy as Shown, ReleaseDetail, SealedValue as SealedShown, WrappedKey as KeyShown};
use data_encoding::BASE64;
use envelope::{
    messages::SealedValue,
    recovery::{OpenedSecrets, RecoveryContext, RecoveryCopy, RecoveryError, WrappedKey},
    seal::SealingSecretKey,
};
use ids::FleetId;
use keyfile::KeyKind;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{
    arguments::OwnerKey,
    exit::{Failure, Kind},
    password, prompt, root,
};

/// Opens the file of an owner recovery key.
pub(crate) fn key(asked: &OwnerKey) -> Result<SealingSecretKey, Failure> {
    let path = asked.recovery_key.as_deref().ok_or_else(|| {
        Failure::invalid("the secrets are sealed to the fleet's owner, and no recovery key was given")
            .hint("name its file with --recovery-key FILE")
    })?;
    let passphrase = match &asked.passphrase_file {
        Some(file) => password::of_file(file)?,
        None => prompt::password(&format!("Passphrase of {}: ", path.display()))
            .map_err(|failure| failure.hint("give its file with --passphrase-file FILE, or `-` for standard input"))?,
    };
    read(path, &passphrase)
}

fn read(path: &Path, passphrase: &str) -> Result<SealingSecretKey, Failure> {
    let seed = keyfile::read_seed_encrypted(path, KeyKind::X25519, passphrase)
        .map_err(|error| Failure::invalid(root::with_sources(&error)))?;
    Ok(SealingSecretKey::from_bytes(&seed))
}

/// A copy as requests have it.
pub(crate) fn shown(copy: &RecoveryCopy) -> Shown {
    let value = |value: &SealedValue| SealedShown { name: value.name.clone(), sealed: BASE64.encode(&value.bytes) };
    Shown { keys: keys_shown(&copy.keys), values: copy.values.iter().map(value).collect() }
}

pub(crate) fn keys_shown(keys: &[WrappedKey]) -> Vec<KeyShown> {
    let key =
        |key: &WrappedKey| KeyShown { recovery_key: key.recovery_key.to_string(), sealed: BASE64.encode(&key.bytes) };
    keys.iter().map(key).collect()
}

/// What a release keeps for the owner, as the control plane gives it.
pub(crate) fn copy_of(release: &ReleaseDetail) -> Result<Option<RecoveryCopy>, Failure> {
    let Some(Shown { keys, values }) = &release.recovery else { return Ok(None) };
    let damaged = || {
        let why = format!("the control plane gave a recovery copy of {} that is none", release.app);
        Failure::new(Kind::NotWell, why).hint("deploy the app from its Compose files instead")
    };
    let bytes = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| damaged());
    let wrapped = |key: &KeyShown| {
        let recovery_key = key.recovery_key.parse().map_err(|_| damaged())?;
        Ok::<_, Failure>(WrappedKey { recovery_key, bytes: bytes(&key.sealed)? })
    };
    let value =
        |value: &SealedShown| Ok::<_, Failure>(SealedValue { name: value.name.clone(), bytes: bytes(&value.sealed)? });
    let copy = RecoveryCopy {
        keys: keys.iter().map(wrapped).collect::<Result<_, _>>()?,
        values: values.iter().map(value).collect::<Result<_, _>>()?,
    };
    copy.check().map_err(|_| damaged())?;
    Ok(Some(copy))
}

/// Whether a specification names values that are sealed.
pub(crate) fn has_secrets(spec: &Value) -> bool {
    match spec {
        Value::Object(members) => {
            members.len() == 1 && members.get("sealed").is_some_and(Value::is_string)
                || members.values().any(has_secrets)
        }
        Value::Array(items) => items.iter().any(has_secrets),
        _ => false,
    }
}

/// Where a release's copy belongs.
pub(crate) fn context(fleet: FleetId, release: &ReleaseDetail) -> RecoveryContext<'_> {
    RecoveryContext { fleet, app: release.app.as_str(), version: release.operation_id }
}

/// The secrets in a copy, by name.
pub(crate) fn secrets(
    copy: &RecoveryCopy,
    key: &SealingSecretKey,
    context: &RecoveryContext<'_>,
) -> Result<BTreeMap<SecretName, Zeroizing<String>>, Failure> {
    let opened: OpenedSecrets = copy.open(key, context).map_err(|error| refused(&error, context.app))?;
    let text = |(name, bytes): (String, Zeroizing<Vec<u8>>)| {
        let text = core::str::from_utf8(&bytes).map_err(|_| {
            Failure::new(
                Kind::NotWell,
                format!("{name} of {} is no text, so it was not sealed by this program", context.app),
            )
        })?;
        Ok((SecretName(name), Zeroizing::new(text.to_owned())))
    };
    opened.into_iter().map(text).collect()
}

/// Why a copy was not opened, and what to do.
pub(crate) fn refused(error: &RecoveryError, app: &str) -> Failure {
    let failure = Failure::invalid(format!("{app}: {error}"));
    match error {
        RecoveryError::NotSealedTo(_) => failure.hint(
            "give a recovery key that root metadata named when the app was deployed, or deploy it from its Compose files",
        ),
        _ => failure.hint("deploy the app from its Compose files instead"),
    }
}

#[cfg(test)]
mod tests {
    use envelope::recovery::recovery_copy;
    use rand::{rand_core::UnwrapErr, rngs::SysRng};
    use serde_json::json;

    use super::*;
    use crate::sample;

    #[test]
    fn what_is_shown_is_read_back_and_opens() {
        let owner = SealingSecretKey::from_bytes(&[1; 32]);
        let fleet: FleetId = sample::id(8).parse().unwrap();
        let mut release = ReleaseDetail {
            operation_id: sample::id(3).parse().unwrap(),
            app: "shop".parse().unwrap(),
            spec: json!({}),
            healthy_within_seconds: None,
            min_healthy_seconds: None,
            recovery: None,
        };
        assert_eq!(copy_of(&release).unwrap(), None);
        let secrets_of = [("web/environment/A", &b"hunter2"[..]), ("web/environment/B", &[0xff][..])];
        let made = |count: usize| {
            let given = secrets_of[..count].iter().copied();
            let (seed, context) = (Zeroizing::new([5; 32]), context(fleet, &release));
            recovery_copy(&[owner.public()], &context, given, &seed, &mut UnwrapErr(SysRng)).unwrap()
        };
        let (good, no_text) = (made(1), made(2));
        release.recovery = Some(shown(&good));
        assert_eq!(copy_of(&release).unwrap(), Some(good.clone()));
        let opened = secrets(&good, &owner, &context(fleet, &release)).unwrap();
        assert_eq!(opened[&SecretName("web/environment/A".to_owned())].as_str(), "hunter2");
        let stranger = secrets(&good, &SealingSecretKey::from_bytes(&[2; 32]), &context(fleet, &release)).unwrap_err();
        assert!(stranger.lines().contains("was deployed"), "{}", stranger.lines());
        assert!(secrets(&no_text, &owner, &context(fleet, &release)).is_err());
        release.recovery.as_mut().unwrap().keys[0].sealed = "!".to_owned();
        assert!(copy_of(&release).is_err());
    }
}
