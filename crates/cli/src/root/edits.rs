//! From flags to changes, in the order in which they are made: what is added comes before what is dropped.

use envelope::root::{Edit, FILE_BYTES_MAX, RootKeys};

use super::files::unusable;
use crate::{
    arguments::{Propose, RootRecovery},
    exit::Failure,
    files,
};

pub(super) fn of(asked: &Propose) -> Result<Vec<Edit>, Failure> {
    let mut edits = Vec::new();
    if let Some(path) = &asked.root_keys {
        let RootKeys { threshold, keys } =
            RootKeys::read(&files::read(path, FILE_BYTES_MAX)?).map_err(|error| unusable(path, &error))?;
        edits.push(Edit::RootKeys { keys, threshold });
    }
    edits.extend(asked.add_approver.iter().copied().map(Edit::AddApprover));
    edits.extend(asked.drop_approver.iter().copied().map(Edit::DropApprover));
    edits.extend(asked.approvals_change.map(Edit::ApprovalsChange));
    edits.extend(asked.approvals_destructive.map(Edit::ApprovalsDestructive));
    edits.extend(asked.add_recovery_key.iter().copied().map(Edit::AddRecoveryKey));
    edits.extend(asked.drop_recovery_key.iter().copied().map(Edit::DropRecoveryKey));
    if !asked.address.is_empty() {
        edits.push(Edit::Addresses(asked.address.clone()));
    }
    recovery(&asked.recovery, &mut edits);
    Ok(edits)
}

fn recovery(asked: &RootRecovery, edits: &mut Vec<Edit>) {
    edits.extend(asked.add_command_key.iter().copied().map(Edit::AddCommandKey));
    edits.extend(asked.drop_command_key.iter().copied().map(Edit::DropCommandKey));
    edits.extend(asked.add_session_key.iter().copied().map(Edit::AddSessionKey));
    edits.extend(asked.drop_session_key.iter().copied().map(Edit::DropSessionKey));
    edits.extend(asked.audit_key.map(Edit::AuditKey));
    edits.extend(asked.add_tls_pin.iter().copied().map(Edit::AddTlsPin));
    edits.extend(asked.drop_tls_pin.iter().copied().map(Edit::DropTlsPin));
    if asked.raise_epoch {
        edits.push(Edit::RaiseEpoch);
    }
}
