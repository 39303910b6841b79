//! Orders and commands.

use ids::{DurationMs, Epoch, HostEpoch, Nonce, Sequence, Sha256, UnixMs};

use crate::{
    decode::{Convert, DecodeError, array, at_most, id, in_range, name, required, strictly_ascending, text},
    limits,
    messages::{Command, Order, SealedRef},
    proto,
};

impl Order {
    /// SHA-256 of the order's encoding: of all that sealing does not change.
    #[must_use]
    pub fn sha256(&self) -> Sha256 {
        ids::sha256(&self.encode())
    }

    /// Its encoding: what the hash is of.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Convert::to_bytes(self)
    }

    /// An order from its encoding, which by itself proves nothing.
    ///
    /// # Errors
    /// When the bytes are not the one encoding of an acceptable order.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Convert::from_bytes(bytes)
    }
}

impl Command {
    /// The last moment at which it may start, once accepted.
    #[must_use]
    pub const fn start_by(&self) -> UnixMs {
        self.issued.plus(DurationMs(self.order.start_within_ms))
    }
}

impl Convert for Order {
    const MESSAGE: &'static str = "order";
    type Proto = proto::Order;

    fn to_proto(&self) -> Self::Proto {
        proto::Order {
            fleet: self.fleet.as_bytes().to_vec(),
            host: self.host.as_bytes().to_vec(),
            command: self.command.as_bytes().to_vec(),
            operation: self.operation.as_bytes().to_vec(),
            proposed_at: self.proposed_at.0,
            deliver_by: self.deliver_by.0,
            start_within_ms: self.start_within_ms,
            action: self.action.to_string(),
            action_version: self.action_version,
            schema_sha256: self.schema_sha256.as_bytes().to_vec(),
            parameters: self.parameters.clone(),
            sealed: sealed_to(&self.sealed),
            requester: self.requester.map(|key| key.as_bytes().to_vec()),
            dry_run: self.dry_run,
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::Order {
            fleet,
            host,
            command,
            operation,
            proposed_at,
            deliver_by,
            start_within_ms,
            action,
            action_version,
            schema_sha256,
            parameters,
            sealed,
            requester,
            dry_run,
        } = proto;
        at_most("order.parameters", parameters.len(), limits::PARAMETERS_BYTES_MAX)?;
        in_range("order.parameters", core::str::from_utf8(&parameters).is_ok())?;
        in_range("order.start_within_ms", start_within_ms <= limits::START_WITHIN_MAX.0)?;
        in_range("order.deliver_by", proposed_at <= deliver_by)?;
        Ok(Self {
            fleet: id("order.fleet", &fleet)?,
            host: id("order.host", &host)?,
            command: id("order.command", &command)?,
            operation: id("order.operation", &operation)?,
            proposed_at: UnixMs(proposed_at),
            deliver_by: UnixMs(deliver_by),
            start_within_ms,
            action: name("order.action", &action)?,
            action_version,
            schema_sha256: Sha256(array("order.schema_sha256", &schema_sha256)?),
            parameters,
            sealed: sealed_from("order.sealed", "order.sealed.name", sealed)?,
            requester: requester.map(|key| id("order.requester", &key)).transpose()?,
            dry_run,
        })
    }
}

pub(super) fn sealed_to(list: &[SealedRef]) -> Vec<proto::SealedRef> {
    let to =
        |value: &SealedRef| proto::SealedRef { name: value.name.clone(), sha256: value.sha256.as_bytes().to_vec() };
    list.iter().map(to).collect()
}

/// The fields' names are for errors.
pub(super) fn sealed_from(
    list_field: &'static str,
    name_field: &'static str,
    list: Vec<proto::SealedRef>,
) -> Result<Vec<SealedRef>, DecodeError> {
    at_most(list_field, list.len(), limits::SEALED_COUNT_MAX)?;
    let mut sealed = Vec::with_capacity(list.len());
    for proto::SealedRef { name, sha256 } in list {
        text(name_field, &name, limits::SEALED_NAME_BYTES_MAX)?;
        sealed.push(SealedRef { name, sha256: Sha256(array(list_field, &sha256)?) });
    }
    let names: Vec<&str> = sealed.iter().map(|value| value.name.as_str()).collect();
    strictly_ascending(list_field, &names)?;
    Ok(sealed)
}

impl Convert for Command {
    const MESSAGE: &'static str = "command";
    type Proto = proto::Command;

    fn to_proto(&self) -> Self::Proto {
        proto::Command {
            order: Some(self.order.to_proto()),
            host_epoch: self.host_epoch.0,
            epoch: self.epoch.0,
            sequence: self.sequence.0,
            nonce: self.nonce.as_bytes().to_vec(),
            issued: self.issued.0,
            not_before: self.not_before.0,
            expires: self.expires.0,
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::Command { order, host_epoch, epoch, sequence, nonce, issued, not_before, expires } = proto;
        in_range("command.sequence", sequence > 0)?;
        in_range("command.expires", not_before <= expires)?;
        Ok(Self {
            order: Order::from_proto(required("command.order", order)?)?,
            host_epoch: HostEpoch(host_epoch),
            epoch: Epoch(epoch),
            sequence: Sequence(sequence),
            nonce: Nonce(array("command.nonce", &nonce)?),
            issued: UnixMs(issued),
            not_before: UnixMs(not_before),
            expires: UnixMs(expires),
        })
    }
}
