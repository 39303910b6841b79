//! A session's handshake: hellos, proof, open.

use ids::{Challenge, Epoch, HostEpoch, RootVersion, Sequence, Sha256, TlsExporter, UnixMs};

use super::{log_position_from, log_position_to, report_position_from, report_position_to};
use crate::{
    decode::{Convert, DecodeError, array, at_most, id, in_range, strictly_ascending, text},
    limits,
    messages::{AgentHello, ControlHello, SessionOpen, SessionProof},
    proto,
};

impl AgentHello {
    /// The bytes that travel, and whose hash the control plane signs.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Convert::to_bytes(self)
    }

    /// Reads an agent's hello. It is not signed: the agent's proof vouches for it afterwards.
    ///
    /// # Errors
    /// When it is too large, malformed, not canonical, or breaks a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let max = limits::AGENT_HELLO_BYTES_MAX;
        if bytes.len() > max {
            return Err(DecodeError::TooLarge { message: Self::MESSAGE, length: bytes.len(), max });
        }
        Convert::from_bytes(bytes)
    }
}

impl Convert for AgentHello {
    const MESSAGE: &'static str = "agent hello";
    type Proto = proto::AgentHello;

    fn to_proto(&self) -> Self::Proto {
        proto::AgentHello {
            protocols: self.protocols.clone(),
            fleet: self.fleet.as_bytes().to_vec(),
            host: self.host.as_bytes().to_vec(),
            host_epoch: self.host_epoch.0,
            nonce: self.nonce.as_bytes().to_vec(),
            boot: self.boot.as_bytes().to_vec(),
            root_version: self.root_version.0,
            high: self.high.0,
            last_report: Some(report_position_to(&self.last_report)),
            audit_head: self.audit_head.as_ref().map(log_position_to),
            quarantine: self.quarantine.map(|id| id.as_bytes().to_vec()),
            agent_version: self.agent_version.clone(),
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::AgentHello {
            protocols,
            fleet,
            host,
            host_epoch,
            nonce,
            boot,
            root_version,
            high,
            last_report,
            audit_head,
            quarantine,
            agent_version,
        } = proto;
        at_most("agent-hello.protocols", protocols.len(), limits::PROTOCOLS_COUNT_MAX)?;
        in_range("agent-hello.protocols", !protocols.is_empty())?;
        strictly_ascending("agent-hello.protocols", &protocols)?;
        text("agent-hello.agent_version", &agent_version, limits::AGENT_VERSION_BYTES_MAX)?;
        Ok(Self {
            protocols,
            fleet: id("agent-hello.fleet", &fleet)?,
            host: id("agent-hello.host", &host)?,
            host_epoch: HostEpoch(host_epoch),
            nonce: Challenge(array("agent-hello.nonce", &nonce)?),
            boot: id("agent-hello.boot", &boot)?,
            root_version: RootVersion(root_version),
            high: Sequence(high),
            last_report: report_position_from("agent-hello.last_report", last_report)?,
            audit_head: audit_head.map(|head| log_position_from("agent-hello.audit_head", head)).transpose()?,
            quarantine: quarantine.map(|bytes| id("agent-hello.quarantine", &bytes)).transpose()?,
            agent_version,
        })
    }
}

impl Convert for ControlHello {
    const MESSAGE: &'static str = "control-plane hello";
    type Proto = proto::ControlHello;

    fn to_proto(&self) -> Self::Proto {
        proto::ControlHello {
            protocol: self.protocol,
            fleet: self.fleet.as_bytes().to_vec(),
            host: self.host.as_bytes().to_vec(),
            agent_nonce: self.agent_nonce.as_bytes().to_vec(),
            control_nonce: self.control_nonce.as_bytes().to_vec(),
            exporter: self.exporter.as_bytes().to_vec(),
            agent_hello_sha256: self.agent_hello_sha256.as_bytes().to_vec(),
            time: self.time.0,
            root_version: self.root_version.0,
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::ControlHello {
            protocol,
            fleet,
            host,
            agent_nonce,
            control_nonce,
            exporter,
            agent_hello_sha256,
            time,
            root_version,
        } = proto;
        Ok(Self {
            protocol,
            fleet: id("control-hello.fleet", &fleet)?,
            host: id("control-hello.host", &host)?,
            agent_nonce: Challenge(array("control-hello.agent_nonce", &agent_nonce)?),
            control_nonce: Challenge(array("control-hello.control_nonce", &control_nonce)?),
            exporter: TlsExporter(array("control-hello.exporter", &exporter)?),
            agent_hello_sha256: Sha256(array("control-hello.agent_hello_sha256", &agent_hello_sha256)?),
            time: UnixMs(time),
            root_version: RootVersion(root_version),
        })
    }
}

impl Convert for SessionProof {
    const MESSAGE: &'static str = "session proof";
    type Proto = proto::SessionProof;

    fn to_proto(&self) -> Self::Proto {
        proto::SessionProof {
            fleet: self.fleet.as_bytes().to_vec(),
            host: self.host.as_bytes().to_vec(),
            exporter: self.exporter.as_bytes().to_vec(),
            control_nonce: self.control_nonce.as_bytes().to_vec(),
            hello_sha256: self.hello_sha256.as_bytes().to_vec(),
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::SessionProof { fleet, host, exporter, control_nonce, hello_sha256 } = proto;
        Ok(Self {
            fleet: id("session-proof.fleet", &fleet)?,
            host: id("session-proof.host", &host)?,
            exporter: TlsExporter(array("session-proof.exporter", &exporter)?),
            control_nonce: Challenge(array("session-proof.control_nonce", &control_nonce)?),
            hello_sha256: Sha256(array("session-proof.hello_sha256", &hello_sha256)?),
        })
    }
}

impl Convert for SessionOpen {
    const MESSAGE: &'static str = "session-open";
    type Proto = proto::SessionOpen;

    fn to_proto(&self) -> Self::Proto {
        proto::SessionOpen {
            fleet: self.fleet.as_bytes().to_vec(),
            host: self.host.as_bytes().to_vec(),
            host_epoch: self.host_epoch.0,
            epoch: self.epoch.0,
            exporter: self.exporter.as_bytes().to_vec(),
            proof_sha256: self.proof_sha256.as_bytes().to_vec(),
            time: self.time.0,
            acknowledged: self.acknowledged.0,
            last_report: Some(report_position_to(&self.last_report)),
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::SessionOpen {
            fleet,
            host,
            host_epoch,
            epoch,
            exporter,
            proof_sha256,
            time,
            acknowledged,
            last_report,
        } = proto;
        Ok(Self {
            fleet: id("session-open.fleet", &fleet)?,
            host: id("session-open.host", &host)?,
            host_epoch: HostEpoch(host_epoch),
            epoch: Epoch(epoch),
            exporter: TlsExporter(array("session-open.exporter", &exporter)?),
            proof_sha256: Sha256(array("session-open.proof_sha256", &proof_sha256)?),
            time: UnixMs(time),
            acknowledged: Sequence(acknowledged),
            last_report: report_position_from("session-open.last_report", last_report)?,
        })
    }
}
