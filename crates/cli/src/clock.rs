//! This program's clock and randomness: the one place that reads them.

use std::time::{SystemTime, UNIX_EPOCH};

use ids::{OperationId, UnixMs};
use rand::{TryRng as _, rngs::SysRng};

use crate::exit::Failure;

/// Now, as this machine has it.
pub(crate) fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A fresh operation id. It is chosen here so that a request that is sent again is the same request.
pub(crate) fn operation_id() -> Result<OperationId, Failure> {
    let mut random = [0; 10];
    SysRng.try_fill_bytes(&mut random).map_err(|_| Failure::randomness())?;
    Ok(OperationId::new_v7(now(), random))
}
