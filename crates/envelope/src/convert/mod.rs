//! The messages and their protobuf twins: one file per stage of the protocol.
//!
//! Each conversion from protobuf destructures its twin completely, so a field added to the schema
//! and forgotten here does not compile.

mod authority;
mod command;
mod enrolment;
mod report;
mod root;
mod rotation;
mod session;

use ids::{AuditLogId, ReportSequence, Sha256};

use crate::{
    decode::{DecodeError, array, id, required},
    messages::{LogPosition, ReportPosition},
    proto,
};

fn log_position_to(position: &LogPosition) -> proto::LogPosition {
    proto::LogPosition {
        log: position.log.as_bytes().to_vec(),
        size: position.size,
        root: position.root.as_bytes().to_vec(),
    }
}

fn log_position_from(field: &'static str, position: proto::LogPosition) -> Result<LogPosition, DecodeError> {
    let proto::LogPosition { log, size, root } = position;
    let log: AuditLogId = id(field, &log)?;
    Ok(LogPosition { log, size, root: Sha256(array(field, &root)?) })
}

fn report_position_to(position: &ReportPosition) -> proto::ReportPosition {
    proto::ReportPosition { sequence: position.sequence.0, sha256: position.sha256.as_bytes().to_vec() }
}

/// Sequence 0 goes with the hash before the first report, and with no other.
fn report_position_from(
    field: &'static str,
    position: Option<proto::ReportPosition>,
) -> Result<ReportPosition, DecodeError> {
    let proto::ReportPosition { sequence, sha256 } = required(field, position)?;
    let position = ReportPosition { sequence: ReportSequence(sequence), sha256: Sha256(array(field, &sha256)?) };
    crate::decode::in_range(field, (position.sequence.0 == 0) == (position.sha256 == Sha256::ZERO))?;
    Ok(position)
}
