//! Recovery copies, as they were stored.

use envelope::{
    messages::SealedValue,
    recovery::{RecoveryCopy, WrappedKey},
};
use fleet::ports::StoreError;
use ids::OperationId;

use crate::{rows::Fields, sqlite::Reader};

impl Reader {
    pub(crate) async fn recovery_copy(&self, id: OperationId) -> Result<Option<RecoveryCopy>, StoreError> {
        let select = sqlx::query(
            "SELECT wrapped_keys, sealed_values FROM recovery_copies \
             WHERE operation = (SELECT number FROM operations WHERE id = $1)",
        )
        .bind(id.as_bytes().to_vec());
        let Some(row) = self.row("reading a recovery copy", select).await? else { return Ok(None) };
        let mut fields = Fields::of(&row, "the recovery copies");
        let keys: Option<Vec<WrappedKey>> = fields.named()?.into_iter().map(wrapped).collect();
        let keys =
            keys.ok_or_else(|| StoreError::Corrupt(format!("the recovery copy of operation {id} is damaged")))?;
        let value = |(name, bytes)| SealedValue { name, bytes };
        Ok(Some(RecoveryCopy { keys, values: fields.named()?.into_iter().map(value).collect() }))
    }
}

fn wrapped((name, bytes): (String, Vec<u8>)) -> Option<WrappedKey> {
    Some(WrappedKey { recovery_key: name.parse().ok()?, bytes })
}
