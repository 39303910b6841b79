//! Approvals and standing orders.

use ids::{DurationMs, Epoch, HostEpoch, Revision, Sha256, UnixMs};

use super::command::{sealed_from, sealed_to};
use crate::{
    decode::{Convert, DecodeError, array, at_most, id, in_range, name, required, text},
    limits,
    messages::{Approval, Standing, StandingOrder},
    proto,
};

impl Convert for Approval {
    const MESSAGE: &'static str = "approval";
    type Proto = proto::Approval;

    fn to_proto(&self) -> Self::Proto {
        proto::Approval {
            fleet: self.fleet.as_bytes().to_vec(),
            host: self.host.as_bytes().to_vec(),
            host_epoch: self.host_epoch.0,
            operation: self.operation.as_bytes().to_vec(),
            action: self.action.to_string(),
            action_version: self.action_version,
            parameters_sha256: self.parameters_sha256.as_bytes().to_vec(),
            sealed: sealed_to(&self.sealed),
            plan_sha256: self.plan_sha256.as_bytes().to_vec(),
            bind_plan: self.bind_plan,
            approved_at: self.approved_at.0,
            expires: self.expires.0,
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::Approval {
            fleet,
            host,
            host_epoch,
            operation,
            action,
            action_version,
            parameters_sha256,
            sealed,
            plan_sha256,
            bind_plan,
            approved_at,
            expires,
        } = proto;
        let latest = UnixMs(approved_at).plus(limits::APPROVAL_LIFETIME_MAX);
        in_range("approval.expires", approved_at < expires && UnixMs(expires) <= latest)?;
        Ok(Self {
            fleet: id("approval.fleet", &fleet)?,
            host: id("approval.host", &host)?,
            host_epoch: HostEpoch(host_epoch),
            operation: id("approval.operation", &operation)?,
            action: name("approval.action", &action)?,
            action_version,
            parameters_sha256: Sha256(array("approval.parameters_sha256", &parameters_sha256)?),
            sealed: sealed_from("approval.sealed", "approval.sealed.name", sealed)?,
            plan_sha256: Sha256(array("approval.plan_sha256", &plan_sha256)?),
            bind_plan,
            approved_at: UnixMs(approved_at),
            expires: UnixMs(expires),
        })
    }
}

impl Standing {
    /// SHA-256 of its encoding: of all that signing it anew does not change.
    #[must_use]
    pub fn sha256(&self) -> Sha256 {
        ids::sha256(&Convert::to_bytes(self))
    }
}

impl Convert for Standing {
    const MESSAGE: &'static str = "content of a standing order";
    type Proto = proto::Standing;

    fn to_proto(&self) -> Self::Proto {
        proto::Standing {
            fleet: self.fleet.as_bytes().to_vec(),
            host: self.host.as_bytes().to_vec(),
            order: self.order.as_bytes().to_vec(),
            operation: self.operation.as_bytes().to_vec(),
            action: self.action.to_string(),
            action_version: self.action_version,
            schema_sha256: self.schema_sha256.as_bytes().to_vec(),
            parameters: self.parameters.clone(),
            sealed: sealed_to(&self.sealed),
            schedule: self.schedule.clone(),
            zone: self.zone.clone(),
            valid_until: self.valid_until.0,
            alone_for_ms: self.alone_for.0,
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::Standing {
            fleet,
            host,
            order,
            operation,
            action,
            action_version,
            schema_sha256,
            parameters,
            sealed,
            schedule,
            zone,
            valid_until,
            alone_for_ms,
        } = proto;
        at_most("standing.parameters", parameters.len(), limits::PARAMETERS_BYTES_MAX)?;
        in_range("standing.parameters", core::str::from_utf8(&parameters).is_ok())?;
        text("standing.schedule", &schedule, limits::SCHEDULE_BYTES_MAX)?;
        text("standing.zone", &zone, limits::ZONE_BYTES_MAX)?;
        in_range("standing.alone_for_ms", alone_for_ms <= limits::ALONE_FOR_MAX.0)?;
        Ok(Self {
            fleet: id("standing.fleet", &fleet)?,
            host: id("standing.host", &host)?,
            order: id("standing.order", &order)?,
            operation: id("standing.operation", &operation)?,
            action: name("standing.action", &action)?,
            action_version,
            schema_sha256: Sha256(array("standing.schema_sha256", &schema_sha256)?),
            parameters,
            sealed: sealed_from("standing.sealed", "standing.sealed.name", sealed)?,
            schedule,
            zone,
            valid_until: UnixMs(valid_until),
            alone_for: DurationMs(alone_for_ms),
        })
    }
}

impl Convert for StandingOrder {
    const MESSAGE: &'static str = "standing order";
    type Proto = proto::StandingOrder;

    fn to_proto(&self) -> Self::Proto {
        proto::StandingOrder {
            standing: Some(self.standing.to_proto()),
            host_epoch: self.host_epoch.0,
            epoch: self.epoch.0,
            revision: self.revision.0,
            issued: self.issued.0,
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::StandingOrder { standing, host_epoch, epoch, revision, issued } = proto;
        in_range("standing-order.revision", revision > 0)?;
        let standing = Standing::from_proto(required("standing-order.standing", standing)?)?;
        let latest = UnixMs(issued).plus(limits::STANDING_LIFETIME_MAX);
        in_range("standing.valid_until", issued < standing.valid_until.0 && standing.valid_until <= latest)?;
        Ok(Self {
            standing,
            host_epoch: HostEpoch(host_epoch),
            epoch: Epoch(epoch),
            revision: Revision(revision),
            issued: UnixMs(issued),
        })
    }
}
