//! Frames to values and back. Everything is checked on the way in; nothing can fail on the way out.

use envelope::messages::SealedValue;
use ids::{Challenge, CommandId, HostEpoch, ReportSequence, Sequence, Sha256, TokenId};
use session::frames::{ActionRef, AgentFrame, ControlFrame, KeyRecord, RefusalCode, Stage, TokenSecret};
use zeroize::Zeroizing;

use crate::{limits, v1};

/// A frame that breaks the protocol before its content is even looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No frame in the message: empty, or of a kind this version does not know.
    #[error("the frame is empty or of an unknown kind")]
    Unknown,
    /// A field has the wrong length or an unknown value.
    #[error("field `{field}` of the frame is malformed")]
    Malformed {
        /// Name of the field in the protocol file.
        field: &'static str,
    },
    /// A field is larger than its limit.
    #[error("field `{field}` of the frame is larger than its limit of {limit}")]
    TooLarge {
        /// Name of the field in the protocol file.
        field: &'static str,
        /// The limit, in bytes or entries.
        limit: usize,
    },
}

const fn malformed(field: &'static str) -> FrameError {
    FrameError::Malformed { field }
}

fn bounded(field: &'static str, bytes: Vec<u8>, limit: usize) -> Result<Vec<u8>, FrameError> {
    if bytes.len() > limit { Err(FrameError::TooLarge { field, limit }) } else { Ok(bytes) }
}

fn bounded_text(field: &'static str, text: String, limit: usize) -> Result<String, FrameError> {
    if text.len() > limit { Err(FrameError::TooLarge { field, limit }) } else { Ok(text) }
}

fn envelope(field: &'static str, bytes: Vec<u8>) -> Result<Vec<u8>, FrameError> {
    bounded(field, bytes, limits::ENVELOPE_BYTES_MAX)
}

fn sha256(field: &'static str, bytes: &[u8]) -> Result<Sha256, FrameError> {
    Sha256::try_from_slice(bytes).ok_or(malformed(field))
}

fn command_id(field: &'static str, bytes: &[u8]) -> Result<CommandId, FrameError> {
    CommandId::try_from_slice(bytes).map_err(|_| malformed(field))
}

pub(crate) fn root_chain(chain: v1::RootChain) -> Result<Vec<Vec<u8>>, FrameError> {
    if chain.envelopes.len() > limits::ROOT_CHAIN_MAX {
        return Err(FrameError::TooLarge { field: "root_chain", limit: limits::ROOT_CHAIN_MAX });
    }
    chain.envelopes.into_iter().map(|bytes| envelope("root_chain", bytes)).collect()
}

fn key_records(records: Vec<v1::KeyRecord>) -> Result<Vec<KeyRecord>, FrameError> {
    let (field, limit) = ("credentials.changes", session::limits::KEY_CHANGES_SHOWN_MAX);
    if records.len() > limit {
        return Err(FrameError::TooLarge { field, limit });
    }
    let record = |record: v1::KeyRecord| {
        let receipt = envelope("credentials.changes.receipt", record.receipt)?;
        let receipt = (!receipt.is_empty()).then_some(receipt);
        Ok(KeyRecord { rotation: envelope("credentials.changes.rotation", record.rotation)?, receipt })
    };
    records.into_iter().map(record).collect()
}

fn approvals(envelopes: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, FrameError> {
    if envelopes.len() > limits::APPROVALS_MAX {
        return Err(FrameError::TooLarge { field: "deliver.approvals", limit: limits::APPROVALS_MAX });
    }
    envelopes.into_iter().map(|bytes| envelope("deliver.approvals", bytes)).collect()
}

fn actions(list: v1::Actions) -> Result<Vec<ActionRef>, FrameError> {
    if list.actions.len() > limits::ACTIONS_MAX {
        return Err(FrameError::TooLarge { field: "actions", limit: limits::ACTIONS_MAX });
    }
    let action = |action: v1::Action| {
        Ok(ActionRef {
            name: action.name.parse().map_err(|_| malformed("actions.name"))?,
            version: action.version,
            schema_sha256: sha256("actions.schema_sha256", &action.schema_sha256)?,
        })
    };
    list.actions.into_iter().map(action).collect()
}

fn stage(number: i32) -> Result<Stage, FrameError> {
    match v1::Stage::try_from(number) {
        Ok(v1::Stage::Accepted) => Ok(Stage::Accepted),
        Ok(v1::Stage::Started) => Ok(Stage::Started),
        Ok(v1::Stage::Done) => Ok(Stage::Done),
        Ok(v1::Stage::Unspecified) | Err(_) => Err(malformed("accepted.stage")),
    }
}

const fn stage_number(stage: Stage) -> v1::Stage {
    match stage {
        Stage::Accepted => v1::Stage::Accepted,
        Stage::Started => v1::Stage::Started,
        Stage::Done => v1::Stage::Done,
    }
}

impl TryFrom<v1::AgentFrame> for AgentFrame {
    type Error = FrameError;

    fn try_from(frame: v1::AgentFrame) -> Result<Self, FrameError> {
        use v1::agent_frame::Frame;
        Ok(match frame.frame.ok_or(FrameError::Unknown)? {
            Frame::Hello(bytes) => Self::Hello(bounded("hello", bytes, limits::HELLO_BYTES_MAX)?),
            Frame::RootChain(chain) => Self::RootChain(root_chain(chain)?),
            Frame::Proof(bytes) => Self::Proof(envelope("proof", bytes)?),
            Frame::Actions(list) => Self::Actions(actions(list)?),
            Frame::Accepted(accepted) => Self::Accepted {
                command: command_id("accepted.command", &accepted.command)?,
                sequence: Sequence(accepted.sequence),
                stage: stage(accepted.stage)?,
            },
            Frame::Progress(progress) => Self::Progress {
                command: command_id("progress.command", &progress.command)?,
                text: bounded_text("progress.text", progress.text, limits::PROGRESS_BYTES_MAX)?,
            },
            Frame::Output(output) => Self::Output {
                command: command_id("output.command", &output.command)?,
                offset: output.offset,
                text: bounded_text("output.text", output.text, limits::OUTPUT_BYTES_MAX)?,
            },
            Frame::Report(bytes) => Self::Report(envelope("report", bytes)?),
            Frame::EnrolStart(start) => Self::EnrolStart {
                token: TokenId::try_from_slice(&start.token).map_err(|_| malformed("enrol_start.token"))?,
                nonce: Challenge::try_from_slice(&start.nonce).ok_or(malformed("enrol_start.nonce"))?,
            },
            Frame::EnrolProof(proof) => {
                let secret = Zeroizing::new(proof.secret);
                let secret = secret.as_slice().try_into().map_err(|_| malformed("enrol_proof.secret"))?;
                let secret = TokenSecret(Zeroizing::new(secret));
                Self::EnrolProof { proof: envelope("enrol_proof.proof", proof.proof)?, secret }
            }
            Frame::ReceiptRequest(bytes) => Self::ReceiptRequest(envelope("receipt_request", bytes)?),
            Frame::KeyRotation(bytes) => Self::KeyRotation(envelope("key_rotation", bytes)?),
            Frame::Clock(v1::Clock { skew_ms }) => Self::Clock { skew_ms },
            Frame::Credentials(v1::Credentials { receipt, changes }) => {
                Self::Credentials { receipt: envelope("credentials.receipt", receipt)?, changes: key_records(changes)? }
            }
        })
    }
}

impl From<AgentFrame> for v1::AgentFrame {
    fn from(frame: AgentFrame) -> Self {
        use v1::agent_frame::Frame;
        let frame = match frame {
            AgentFrame::Hello(bytes) => Frame::Hello(bytes),
            AgentFrame::RootChain(envelopes) => Frame::RootChain(v1::RootChain { envelopes }),
            AgentFrame::Proof(bytes) => Frame::Proof(bytes),
            AgentFrame::Actions(list) => {
                let action = |action: ActionRef| v1::Action {
                    name: action.name.as_str().to_owned(),
                    version: action.version,
                    schema_sha256: action.schema_sha256.0.to_vec(),
                };
                Frame::Actions(v1::Actions { actions: list.into_iter().map(action).collect() })
            }
            AgentFrame::Accepted { command, sequence, stage } => Frame::Accepted(v1::Accepted {
                command: command.as_bytes().to_vec(),
                sequence: sequence.0,
                stage: stage_number(stage).into(),
            }),
            AgentFrame::Progress { command, text } => {
                Frame::Progress(v1::Progress { command: command.as_bytes().to_vec(), text })
            }
            AgentFrame::Output { command, offset, text } => {
                Frame::Output(v1::Output { command: command.as_bytes().to_vec(), offset, text })
            }
            AgentFrame::Report(bytes) => Frame::Report(bytes),
            AgentFrame::EnrolStart { token, nonce } => {
                Frame::EnrolStart(v1::EnrolStart { token: token.as_bytes().to_vec(), nonce: nonce.0.to_vec() })
            }
            AgentFrame::EnrolProof { proof, secret } => {
                Frame::EnrolProof(v1::EnrolProof { proof, secret: secret.0.to_vec() })
            }
            AgentFrame::ReceiptRequest(bytes) => Frame::ReceiptRequest(bytes),
            AgentFrame::KeyRotation(bytes) => Frame::KeyRotation(bytes),
            AgentFrame::Clock { skew_ms } => Frame::Clock(v1::Clock { skew_ms }),
            AgentFrame::Credentials { receipt, changes } => {
                let record =
                    |KeyRecord { rotation, receipt }| v1::KeyRecord { rotation, receipt: receipt.unwrap_or_default() };
                Frame::Credentials(v1::Credentials { receipt, changes: changes.into_iter().map(record).collect() })
            }
        };
        Self { frame: Some(frame) }
    }
}

fn sealed_values(values: Vec<v1::SealedValue>) -> Result<Vec<SealedValue>, FrameError> {
    if values.len() > limits::SEALED_VALUES_MAX {
        return Err(FrameError::TooLarge { field: "deliver.sealed", limit: limits::SEALED_VALUES_MAX });
    }
    let value = |value: v1::SealedValue| {
        Ok(SealedValue {
            name: bounded_text("deliver.sealed.name", value.name, limits::SEALED_NAME_BYTES_MAX)?,
            bytes: bounded("deliver.sealed.bytes", value.bytes, limits::SEALED_VALUE_BYTES_MAX)?,
        })
    };
    values.into_iter().map(value).collect()
}

fn consistency_hashes(hashes: &[Vec<u8>]) -> Result<Vec<Sha256>, FrameError> {
    let (field, limit) = ("audit_consistency.hashes", limits::CONSISTENCY_HASHES_MAX);
    if hashes.len() > limit {
        return Err(FrameError::TooLarge { field, limit });
    }
    hashes.iter().map(|hash| sha256(field, hash)).collect()
}

fn reason(number: i32) -> Result<RefusalCode, FrameError> {
    match v1::Reason::try_from(number) {
        Ok(v1::Reason::TokenRefused) => Ok(RefusalCode::TokenRefused),
        Ok(v1::Reason::HostRefused) => Ok(RefusalCode::HostRefused),
        Ok(v1::Reason::ProtocolVersion) => Ok(RefusalCode::ProtocolVersion),
        Ok(v1::Reason::NotAuthentic) => Ok(RefusalCode::NotAuthentic),
        Ok(v1::Reason::Superseded) => Ok(RefusalCode::Superseded),
        Ok(v1::Reason::Quarantined) => Ok(RefusalCode::Quarantined),
        Ok(v1::Reason::LimitExceeded) => Ok(RefusalCode::LimitExceeded),
        Ok(v1::Reason::Unavailable) => Ok(RefusalCode::Unavailable),
        Ok(v1::Reason::Unspecified) | Err(_) => Err(malformed("refused.reason")),
    }
}

const fn reason_number(code: RefusalCode) -> v1::Reason {
    match code {
        RefusalCode::TokenRefused => v1::Reason::TokenRefused,
        RefusalCode::HostRefused => v1::Reason::HostRefused,
        RefusalCode::ProtocolVersion => v1::Reason::ProtocolVersion,
        RefusalCode::NotAuthentic => v1::Reason::NotAuthentic,
        RefusalCode::Superseded => v1::Reason::Superseded,
        RefusalCode::Quarantined => v1::Reason::Quarantined,
        RefusalCode::LimitExceeded => v1::Reason::LimitExceeded,
        RefusalCode::Unavailable => v1::Reason::Unavailable,
    }
}

impl TryFrom<v1::ControlFrame> for ControlFrame {
    type Error = FrameError;

    fn try_from(frame: v1::ControlFrame) -> Result<Self, FrameError> {
        use v1::control_frame::Frame;
        Ok(match frame.frame.ok_or(FrameError::Unknown)? {
            Frame::RootChain(chain) => Self::RootChain(root_chain(chain)?),
            Frame::Hello(bytes) => Self::Hello(envelope("hello", bytes)?),
            Frame::Open(bytes) => Self::Open(envelope("open", bytes)?),
            Frame::Deliver(deliver) => Self::Deliver {
                command: envelope("deliver.command", deliver.command)?,
                sealed: sealed_values(deliver.sealed)?,
                approvals: approvals(deliver.approvals)?,
            },
            Frame::ReportAcknowledged(acknowledged) => Self::ReportAcknowledged {
                sequence: ReportSequence(acknowledged.sequence),
                sha256: sha256("report_acknowledged.sha256", &acknowledged.sha256)?,
            },
            Frame::AuditHead(bytes) => Self::AuditHead(envelope("audit_head", bytes)?),
            Frame::AuditConsistency(proof) => Self::AuditConsistency {
                head: envelope("audit_consistency.head", proof.head)?,
                from_size: proof.from_size,
                hashes: consistency_hashes(&proof.hashes)?,
            },
            Frame::EnrolHello(bytes) => Self::EnrolHello(envelope("enrol_hello", bytes)?),
            Frame::EnrolReceipt(bytes) => Self::EnrolReceipt(envelope("enrol_receipt", bytes)?),
            Frame::KeyReceipt(bytes) => Self::KeyReceipt(envelope("key_receipt", bytes)?),
            Frame::GuardReset(bytes) => Self::GuardReset(envelope("guard_reset", bytes)?),
            Frame::CredentialsWanted(wanted) => Self::CredentialsWanted { above: HostEpoch(wanted.above_epoch) },
            Frame::OutputLease(lease) => Self::OutputLease {
                command: command_id("output_lease.command", &lease.command)?,
                until: lease.until,
                over: lease.over,
            },
            Frame::Refused(refused) => Self::Refused {
                reason: reason(refused.reason)?,
                message: bounded_text("refused.message", refused.message, limits::MESSAGE_BYTES_MAX)?,
            },
        })
    }
}

impl From<ControlFrame> for v1::ControlFrame {
    fn from(frame: ControlFrame) -> Self {
        use v1::control_frame::Frame;
        let frame = match frame {
            ControlFrame::RootChain(envelopes) => Frame::RootChain(v1::RootChain { envelopes }),
            ControlFrame::Hello(bytes) => Frame::Hello(bytes),
            ControlFrame::Open(bytes) => Frame::Open(bytes),
            ControlFrame::Deliver { command, sealed, approvals } => {
                let value = |value: SealedValue| v1::SealedValue { name: value.name, bytes: value.bytes };
                let sealed = sealed.into_iter().map(value).collect();
                Frame::Deliver(v1::Deliver { command, sealed, approvals })
            }
            ControlFrame::ReportAcknowledged { sequence, sha256 } => {
                Frame::ReportAcknowledged(v1::ReportAcknowledged { sequence: sequence.0, sha256: sha256.0.to_vec() })
            }
            ControlFrame::AuditHead(bytes) => Frame::AuditHead(bytes),
            ControlFrame::AuditConsistency { head, from_size, hashes } => {
                let hashes = hashes.iter().map(|hash| hash.0.to_vec()).collect();
                Frame::AuditConsistency(v1::AuditConsistency { head, from_size, hashes })
            }
            ControlFrame::EnrolHello(bytes) => Frame::EnrolHello(bytes),
            ControlFrame::EnrolReceipt(bytes) => Frame::EnrolReceipt(bytes),
            ControlFrame::KeyReceipt(bytes) => Frame::KeyReceipt(bytes),
            ControlFrame::GuardReset(bytes) => Frame::GuardReset(bytes),
            ControlFrame::OutputLease { command, until, over } => {
                Frame::OutputLease(v1::OutputLease { command: command.as_bytes().to_vec(), until, over })
            }
            ControlFrame::CredentialsWanted { above } => {
                Frame::CredentialsWanted(v1::CredentialsWanted { above_epoch: above.0 })
            }
            ControlFrame::Refused { reason, message } => {
                Frame::Refused(v1::Refused { reason: reason_number(reason).into(), message })
            }
        };
        Self { frame: Some(frame) }
    }
}

#[cfg(test)]
mod tests;
