//! Reports, and heads of the audit log.

use ids::{HostEpoch, ReportSequence, Sequence, Sha256, UnixMs};

use super::{log_position_from, log_position_to};
use crate::{
    decode::{Convert, DecodeError, array, at_most, id, in_range, required},
    limits,
    messages::{AuditHead, Report, ReportStatus},
    proto,
};

impl ReportStatus {
    /// Every status, in the order of its numbers.
    pub const ALL: [Self; 8] = [
        Self::Succeeded,
        Self::Failed,
        Self::RolledBack,
        Self::Cancelled,
        Self::Rejected,
        Self::Expired,
        Self::Revoked,
        Self::Unknown,
    ];
}

fn status_to(status: ReportStatus) -> proto::ReportStatus {
    match status {
        ReportStatus::Succeeded => proto::ReportStatus::Succeeded,
        ReportStatus::Failed => proto::ReportStatus::Failed,
        ReportStatus::RolledBack => proto::ReportStatus::RolledBack,
        ReportStatus::Cancelled => proto::ReportStatus::Cancelled,
        ReportStatus::Rejected => proto::ReportStatus::Rejected,
        ReportStatus::Expired => proto::ReportStatus::Expired,
        ReportStatus::Revoked => proto::ReportStatus::Revoked,
        ReportStatus::Unknown => proto::ReportStatus::Unknown,
    }
}

fn status_from(number: i32) -> Result<ReportStatus, DecodeError> {
    ReportStatus::ALL
        .into_iter()
        .find(|status| status_to(*status) as i32 == number)
        .ok_or(DecodeError::OutOfRange { field: "report.status" })
}

impl Convert for Report {
    const MESSAGE: &'static str = "report";
    type Proto = proto::Report;

    fn to_proto(&self) -> Self::Proto {
        proto::Report {
            fleet: self.fleet.as_bytes().to_vec(),
            host: self.host.as_bytes().to_vec(),
            host_epoch: self.host_epoch.0,
            command: self.command.as_bytes().to_vec(),
            command_sha256: self.command_sha256.as_bytes().to_vec(),
            command_sequence: self.command_sequence.0,
            sequence: self.sequence.0,
            previous: self.previous.as_bytes().to_vec(),
            audit_head: self.audit_head.as_ref().map(log_position_to),
            status: status_to(self.status) as i32,
            finished_at: self.finished_at.0,
            result: self.result.clone(),
            output_sha256: self.output_sha256.as_bytes().to_vec(),
            output_truncated: self.output_truncated,
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::Report {
            fleet,
            host,
            host_epoch,
            command,
            command_sha256,
            command_sequence,
            sequence,
            previous,
            audit_head,
            status,
            finished_at,
            result,
            output_sha256,
            output_truncated,
        } = proto;
        at_most("report.result", result.len(), limits::RESULT_BYTES_MAX)?;
        in_range("report.result", core::str::from_utf8(&result).is_ok())?;
        in_range("report.sequence", sequence > 0)?;
        let previous = Sha256(array("report.previous", &previous)?);
        in_range("report.previous", (sequence == 1) == (previous == Sha256::ZERO))?;
        Ok(Self {
            fleet: id("report.fleet", &fleet)?,
            host: id("report.host", &host)?,
            host_epoch: HostEpoch(host_epoch),
            command: id("report.command", &command)?,
            command_sha256: Sha256(array("report.command_sha256", &command_sha256)?),
            command_sequence: Sequence(command_sequence),
            sequence: ReportSequence(sequence),
            previous,
            audit_head: audit_head.map(|head| log_position_from("report.audit_head", head)).transpose()?,
            status: status_from(status)?,
            finished_at: UnixMs(finished_at),
            result,
            output_sha256: Sha256(array("report.output_sha256", &output_sha256)?),
            output_truncated,
        })
    }
}

impl Convert for AuditHead {
    const MESSAGE: &'static str = "audit head";
    type Proto = proto::AuditHead;

    fn to_proto(&self) -> Self::Proto {
        proto::AuditHead {
            fleet: self.fleet.as_bytes().to_vec(),
            position: Some(log_position_to(&self.position)),
            time: self.time.0,
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::AuditHead { fleet, position, time } = proto;
        Ok(Self {
            fleet: id("audit-head.fleet", &fleet)?,
            position: log_position_from("audit-head.position", required("audit-head.position", position)?)?,
            time: UnixMs(time),
        })
    }
}
