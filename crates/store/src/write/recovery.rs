//! Recovery copies: secrets of a deploy, sealed to the fleet's owner. Ciphertexts through and through, so the data
//! key has no part in them.

use envelope::recovery::{RecoveryCopy, WrappedKey};
use fleet::ports::Written;
use ids::OperationId;

use super::{Transaction, unknown};
use crate::{fault::Failure, rows::named_encode};

/// With the operation, whose number it has.
pub(super) fn insert(t: &mut Transaction<'_>, operation: i64, copy: &RecoveryCopy) {
    let values = named_encode(copy.values.iter().map(|value| (value.name.as_str(), value.bytes.as_slice())));
    let keys = encoded(&copy.keys);
    t.later("INSERT INTO recovery_copies (operation, wrapped_keys, sealed_values) ").push_values(
        [(keys, values)],
        |mut row, (keys, values)| {
            row.push_bind(operation).push_bind(keys).push_bind(values);
        },
    );
}

pub(super) async fn rewrap(
    t: &mut Transaction<'_>,
    operation: OperationId,
    keys: &[WrappedKey],
) -> Result<Written, Failure> {
    let update = sqlx::query(
        "UPDATE recovery_copies SET wrapped_keys = $1 \
         WHERE operation = (SELECT number FROM operations WHERE id = $2)",
    )
    .bind(encoded(keys))
    .bind(operation.as_bytes().to_vec());
    if t.run("sealing a recovery copy to other keys", update).await? == 0 {
        return Err(unknown("a recovery copy of operation", operation));
    }
    Ok(Written::Done)
}

/// Each wrapped key behind the recovery key it is for.
fn encoded(keys: &[WrappedKey]) -> Vec<u8> {
    let named: Vec<_> = keys.iter().map(|key| (key.recovery_key.to_string(), &key.bytes)).collect();
    named_encode(named.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())))
}
