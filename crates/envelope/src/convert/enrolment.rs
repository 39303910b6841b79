//! Enrolment: hello, proof, request for a lost receipt, receipt.

use ids::{Challenge, HostEpoch, Role, RootVersion, Sha256, TlsExporter, UnixMs};

use crate::{
    decode::{Convert, DecodeError, array, at_most, id, name, public_key, sealing_key},
    limits,
    messages::{EnrolHello, EnrolProof, EnrolReceipt, ReceiptRequest},
    proto,
};

impl Convert for EnrolHello {
    const MESSAGE: &'static str = "enrolment hello";
    type Proto = proto::EnrolHello;

    fn to_proto(&self) -> Self::Proto {
        proto::EnrolHello {
            fleet: self.fleet.as_bytes().to_vec(),
            token: self.token.as_bytes().to_vec(),
            agent_nonce: self.agent_nonce.as_bytes().to_vec(),
            control_nonce: self.control_nonce.as_bytes().to_vec(),
            exporter: self.exporter.as_bytes().to_vec(),
            root_version: self.root_version.0,
            time: self.time.0,
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::EnrolHello { fleet, token, agent_nonce, control_nonce, exporter, root_version, time } = proto;
        Ok(Self {
            fleet: id("enrol-hello.fleet", &fleet)?,
            token: id("enrol-hello.token", &token)?,
            agent_nonce: Challenge(array("enrol-hello.agent_nonce", &agent_nonce)?),
            control_nonce: Challenge(array("enrol-hello.control_nonce", &control_nonce)?),
            exporter: TlsExporter(array("enrol-hello.exporter", &exporter)?),
            root_version: RootVersion(root_version),
            time: UnixMs(time),
        })
    }
}

impl Convert for EnrolProof {
    const MESSAGE: &'static str = "enrolment proof";
    type Proto = proto::EnrolProof;

    fn to_proto(&self) -> Self::Proto {
        proto::EnrolProof {
            identity_key: self.identity_key.0.to_vec(),
            fleet: self.fleet.as_bytes().to_vec(),
            token: self.token.as_bytes().to_vec(),
            sealing_key: self.sealing_key.0.to_vec(),
            agent_nonce: self.agent_nonce.as_bytes().to_vec(),
            control_nonce: self.control_nonce.as_bytes().to_vec(),
            exporter: self.exporter.as_bytes().to_vec(),
            hello_sha256: self.hello_sha256.as_bytes().to_vec(),
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::EnrolProof {
            identity_key,
            fleet,
            token,
            sealing_key: sealing,
            agent_nonce,
            control_nonce,
            exporter,
            hello_sha256,
        } = proto;
        Ok(Self {
            fleet: id("enrol-proof.fleet", &fleet)?,
            token: id("enrol-proof.token", &token)?,
            identity_key: public_key("enrol-proof.identity_key", &identity_key)?,
            sealing_key: sealing_key("enrol-proof.sealing_key", &sealing)?,
            agent_nonce: Challenge(array("enrol-proof.agent_nonce", &agent_nonce)?),
            control_nonce: Challenge(array("enrol-proof.control_nonce", &control_nonce)?),
            exporter: TlsExporter(array("enrol-proof.exporter", &exporter)?),
            hello_sha256: Sha256(array("enrol-proof.hello_sha256", &hello_sha256)?),
        })
    }
}

impl Convert for ReceiptRequest {
    const MESSAGE: &'static str = "receipt request";
    type Proto = proto::ReceiptRequest;

    fn to_proto(&self) -> Self::Proto {
        proto::ReceiptRequest {
            identity_key: self.identity_key.0.to_vec(),
            fleet: self.fleet.as_bytes().to_vec(),
            token: self.token.as_bytes().to_vec(),
            agent_nonce: self.agent_nonce.as_bytes().to_vec(),
            control_nonce: self.control_nonce.as_bytes().to_vec(),
            exporter: self.exporter.as_bytes().to_vec(),
            hello_sha256: self.hello_sha256.as_bytes().to_vec(),
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::ReceiptRequest { identity_key, fleet, token, agent_nonce, control_nonce, exporter, hello_sha256 } =
            proto;
        Ok(Self {
            fleet: id("receipt-request.fleet", &fleet)?,
            token: id("receipt-request.token", &token)?,
            identity_key: public_key("receipt-request.identity_key", &identity_key)?,
            agent_nonce: Challenge(array("receipt-request.agent_nonce", &agent_nonce)?),
            control_nonce: Challenge(array("receipt-request.control_nonce", &control_nonce)?),
            exporter: TlsExporter(array("receipt-request.exporter", &exporter)?),
            hello_sha256: Sha256(array("receipt-request.hello_sha256", &hello_sha256)?),
        })
    }
}

fn role_to(role: Role) -> proto::Role {
    match role {
        Role::App => proto::Role::App,
        Role::Database => proto::Role::Database,
        Role::Backup => proto::Role::Backup,
        Role::Dns => proto::Role::Dns,
        Role::Mail => proto::Role::Mail,
        Role::Proxy => proto::Role::Proxy,
    }
}

fn role_from(number: i32) -> Result<Role, DecodeError> {
    Role::ALL
        .into_iter()
        .find(|role| role_to(*role) as i32 == number)
        .ok_or(DecodeError::OutOfRange { field: "enrol-receipt.roles" })
}

fn roles_from(numbers: &[i32]) -> Result<Vec<Role>, DecodeError> {
    at_most("enrol-receipt.roles", numbers.len(), limits::ROLES_COUNT_MAX)?;
    let mut roles = Vec::with_capacity(numbers.len());
    for &number in numbers {
        let role = role_from(number)?;
        if roles.contains(&role) {
            return Err(DecodeError::Unordered { field: "enrol-receipt.roles" });
        }
        roles.push(role);
    }
    Ok(roles)
}

impl Convert for EnrolReceipt {
    const MESSAGE: &'static str = "enrolment receipt";
    type Proto = proto::EnrolReceipt;

    fn to_proto(&self) -> Self::Proto {
        proto::EnrolReceipt {
            fleet: self.fleet.as_bytes().to_vec(),
            host: self.host.as_bytes().to_vec(),
            host_epoch: self.host_epoch.0,
            name: self.name.to_string(),
            roles: self.roles.iter().map(|&role| role_to(role) as i32).collect(),
            token: self.token.as_bytes().to_vec(),
            identity_key: self.identity_key.0.to_vec(),
            sealing_key: self.sealing_key.0.to_vec(),
            time: self.time.0,
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::EnrolReceipt {
            fleet,
            host,
            host_epoch,
            name: host_name,
            roles,
            token,
            identity_key,
            sealing_key: sealing,
            time,
        } = proto;
        Ok(Self {
            fleet: id("enrol-receipt.fleet", &fleet)?,
            host: id("enrol-receipt.host", &host)?,
            host_epoch: HostEpoch(host_epoch),
            name: name("enrol-receipt.name", &host_name)?,
            roles: roles_from(&roles)?,
            token: id("enrol-receipt.token", &token)?,
            identity_key: public_key("enrol-receipt.identity_key", &identity_key)?,
            sealing_key: sealing_key("enrol-receipt.sealing_key", &sealing)?,
            time: UnixMs(time),
        })
    }
}
