//! Fresh randomness from the operating system.

use ids::{Id, IdKind, UnixMs};
use rand::{TryRng as _, rngs::SysRng};

/// Fills `bytes`. A machine without randomness cannot run a control plane: nothing that would be
/// signed next could be trusted, so the process ends.
pub(crate) fn fill(bytes: &mut [u8]) {
    if SysRng.try_fill_bytes(bytes).is_err() {
        tracing::error!("the operating system gives no randomness; ending");
        std::process::abort();
    }
}

/// Fresh bytes.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// A fresh id.
pub(crate) fn id<K: IdKind>(now: UnixMs) -> Id<K> {
    Id::new_v7(now, bytes())
}
