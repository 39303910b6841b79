//! Recovery copies: the secrets of a deploy, sealed to the fleet's owner. They are stored and handed out here, and
//! opened nowhere but where the owner's key is.

use std::sync::Arc;

use api::{
    RecoveryCopy as Shown, RecoveryRewrapRequest, ReleaseDetail, SealedValue as SealedShown, WrappedKey as KeyShown,
};
use axum::{Json, extract::State};
use compose::Composed;
use data_encoding::BASE64;
use envelope::{
    messages::{RootMetadata, SealedValue, SealingKeyBytes},
    recovery::{RecoveryContext, RecoveryCopy, WrappedKey, check_wrapped, recovery_copy},
};
use fleet::{
    model::{Operation, OperationKind},
    operation::DeployTiming,
    ports::Write,
};
use ids::{AppName, DurationMs, OperationId};
use rand::{TryRng as _, rand_core::UnwrapErr, rngs::SysRng};
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::{
    access::{self, Actor},
    input::{JsonBody, PathParameter},
    problem::{ApiError, Kind},
    records,
    routes::operations,
    state::Shared,
};

/// A copy as a client sends it: sealed to the recovery keys in force, all of them and no other.
pub(super) fn read(shared: &Shared, shown: Shown) -> Result<RecoveryCopy, ApiError> {
    let keys = wrapped(shared, "recovery.keys", shown.keys)?;
    let mut values = Vec::with_capacity(shown.values.len());
    for (index, SealedShown { name, sealed }) in shown.values.into_iter().enumerate() {
        let bytes = base64(&format!("recovery.values[{index}].sealed"), &sealed)?;
        values.push(SealedValue { name, bytes });
    }
    Ok(RecoveryCopy { keys, values })
}

fn base64(field: &str, text: &str) -> Result<Vec<u8>, ApiError> {
    let why = |error| ApiError::field(field, format!("not base64 (RFC 4648 section 4): {error}"));
    BASE64.decode(text.as_bytes()).map_err(why)
}

fn wrapped(shared: &Shared, field: &str, shown: Vec<KeyShown>) -> Result<Vec<WrappedKey>, ApiError> {
    let mut keys = Vec::with_capacity(shown.len());
    for (index, KeyShown { recovery_key, sealed }) in shown.into_iter().enumerate() {
        let place = |part: &str| format!("{field}[{index}].{part}");
        let recovery_key = recovery_key
            .parse::<SealingKeyBytes>()
            .map_err(|error| ApiError::field(place("recovery_key"), error.to_string()))?;
        keys.push(WrappedKey { recovery_key, bytes: base64(&place("sealed"), &sealed)? });
    }
    check_wrapped(&keys).map_err(|error| ApiError::field(field, error.to_string()))?;
    let root = shared.root();
    let in_force = &root.current().recovery_keys;
    let is_listed = |key: &WrappedKey| in_force.contains(&key.recovery_key);
    if keys.len() != in_force.len() || !keys.iter().all(is_listed) {
        let message = "these are not the owner recovery keys of the root metadata in force; read it again with \
                       `GET /api/v1/fleet/root`, and seal to all of them";
        return Err(ApiError::field(field, message));
    }
    Ok(keys)
}

/// A copy of what was sealed here.
pub(super) fn made(
    root: &RootMetadata,
    version: OperationId,
    composed: &Composed,
) -> Result<Option<RecoveryCopy>, ApiError> {
    if composed.secrets.is_empty() || root.recovery_keys.is_empty() {
        return Ok(None);
    }
    let failed = |why: String| ApiError::new(Kind::Internal, format!("nothing was sealed to the owner: {why}"));
    let mut seed = Zeroizing::new([0; 32]);
    SysRng.try_fill_bytes(seed.as_mut_slice()).map_err(|error| failed(error.to_string()))?;
    let context = RecoveryContext { fleet: root.fleet, app: composed.spec.app.as_str(), version };
    let secrets = composed.secrets.iter().map(|(name, text)| (name.0.as_str(), text.as_bytes()));
    // Without randomness nothing may be sealed, and `UnwrapErr` then ends this request.
    let copy = recovery_copy(&root.recovery_keys, &context, secrets, &seed, &mut UnwrapErr(SysRng));
    copy.map(Some).map_err(|error| failed(error.to_string()))
}

/// A deploy that was made, or why there is none.
async fn deployed(shared: &Shared, id: OperationId) -> Result<Operation, ApiError> {
    let operation = shared.store.operation(id).await?.ok_or_else(|| operations::not_found(id))?;
    if operation.kind != OperationKind::Deploy || operation.dry_run {
        let detail = format!("operation {id} deployed nothing; see `serverflow app show APP` for an app's release");
        return Err(ApiError::new(Kind::OperationNotFound, detail));
    }
    Ok(operation)
}

fn parts(operation: &Operation) -> Result<(DeployTiming, &RawValue, AppName), ApiError> {
    #[derive(Deserialize)]
    struct Named {
        app: AppName,
    }
    let damaged = |error| ApiError::new(Kind::Internal, format!("operation {} cannot be read: {error}", operation.id));
    let (timing, spec) = DeployTiming::of_detail(&operation.detail).map_err(damaged)?;
    let Named { app } = serde_json::from_str(spec.get()).map_err(damaged)?;
    Ok((timing, spec, app))
}

pub(super) async fn release(
    State(shared): State<Arc<Shared>>,
    PathParameter(id): PathParameter<OperationId>,
) -> Result<Json<ReleaseDetail>, ApiError> {
    let operation = deployed(&shared, id).await?;
    Ok(Json(detail(&operation, shared.store.recovery_copy(id).await?)?))
}

fn detail(operation: &Operation, copy: Option<RecoveryCopy>) -> Result<ReleaseDetail, ApiError> {
    let id = operation.id;
    let (timing, spec, app) = parts(operation)?;
    let seconds = |span: Option<DurationMs>| span.map(|span| span.0 / 1000);
    let spec = serde_json::from_str(spec.get());
    Ok(ReleaseDetail {
        operation_id: id,
        app,
        spec: spec.map_err(|_| ApiError::new(Kind::Internal, format!("operation {id} cannot be read")))?,
        healthy_within_seconds: seconds(timing.healthy_within),
        min_healthy_seconds: seconds(timing.min_healthy),
        recovery: copy.map(shown),
    })
}

fn shown(copy: RecoveryCopy) -> Shown {
    let key = |WrappedKey { recovery_key, bytes }: WrappedKey| KeyShown {
        recovery_key: recovery_key.to_string(),
        sealed: BASE64.encode(&bytes),
    };
    let value = |SealedValue { name, bytes }: SealedValue| SealedShown { name, sealed: BASE64.encode(&bytes) };
    Shown { keys: copy.keys.into_iter().map(key).collect(), values: copy.values.into_iter().map(value).collect() }
}

/// Whoever has a recovery key has sealed the copy's own key to the recovery keys of today.
pub(super) async fn rewrap(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(id): PathParameter<OperationId>,
    JsonBody(RecoveryRewrapRequest { keys }): JsonBody<RecoveryRewrapRequest>,
) -> Result<Json<ReleaseDetail>, ApiError> {
    let operation = deployed(&shared, id).await?;
    let (_, _, app) = parts(&operation)?;
    let none = || {
        let detail = format!("the secrets of operation {id} were not sealed to the owner; deploy {app} again");
        ApiError::new(Kind::OperationNotFound, detail)
    };
    let copy = shared.store.recovery_copy(id).await?.ok_or_else(none)?;
    let keys = wrapped(&shared, "keys", keys)?;
    let audit = records::secrets_rewrapped(id, &app, &keys, &actor, shared.now());
    let write = Write::RecoveryRewrap { operation: id, keys: keys.clone(), audit };
    access::write(&shared, &actor, write).await?;
    Ok(Json(detail(&operation, Some(RecoveryCopy { keys, ..copy }))?))
}
