use super::*;

use proptest::prelude::*;
use prost::Message as _;

fn agent_frames() -> Vec<AgentFrame> {
    let command = CommandId::from_bytes([7; 16]);
    let action = ActionRef { name: "app.deploy".parse().expect("a name"), version: 1, schema_sha256: Sha256([9; 32]) };
    let mut frames = vec![
        AgentFrame::Hello(vec![1]),
        AgentFrame::RootChain(vec![vec![1], vec![2]]),
        AgentFrame::Proof(vec![3]),
        AgentFrame::Actions(vec![action]),
        AgentFrame::Progress { command, text: "pulling".to_owned() },
        AgentFrame::Output { command, offset: u64::MAX, text: "{}\n".to_owned() },
        AgentFrame::Output { command, offset: 0, text: String::new() },
        AgentFrame::Report(vec![4]),
        AgentFrame::EnrolStart { token: TokenId::from_bytes([5; 16]), nonce: Challenge([6; 32]) },
        AgentFrame::EnrolProof { proof: vec![8], secret: TokenSecret(Zeroizing::new([9; 32])) },
        AgentFrame::ReceiptRequest(vec![10]),
        AgentFrame::KeyRotation(vec![11]),
        AgentFrame::Clock { skew_ms: i64::MIN },
        AgentFrame::Clock { skew_ms: 0 },
        AgentFrame::Credentials { receipt: vec![12], changes: Vec::new() },
        AgentFrame::Credentials {
            receipt: vec![12],
            changes: vec![
                KeyRecord { rotation: vec![13], receipt: Some(vec![14]) },
                KeyRecord { rotation: vec![15], receipt: None },
            ],
        },
    ];
    for stage in [Stage::Accepted, Stage::Started, Stage::Done] {
        frames.push(AgentFrame::Accepted { command, sequence: Sequence(u64::MAX), stage });
    }
    frames
}

fn control_frames() -> Vec<ControlFrame> {
    use RefusalCode::*;
    let mut frames = vec![
        ControlFrame::RootChain(vec![vec![1]]),
        ControlFrame::Hello(vec![2]),
        ControlFrame::Open(vec![3]),
        ControlFrame::Deliver {
            command: vec![4],
            sealed: vec![SealedValue { name: "web/environment/A".to_owned(), bytes: vec![5] }],
            approvals: vec![vec![6], vec![7]],
        },
        ControlFrame::ReportAcknowledged { sequence: ReportSequence(1), sha256: Sha256([1; 32]) },
        ControlFrame::AuditHead(vec![6]),
        ControlFrame::AuditConsistency { head: vec![6], from_size: u64::MAX, hashes: vec![Sha256([6; 32]); 64] },
        ControlFrame::AuditConsistency { head: vec![6], from_size: 0, hashes: Vec::new() },
        ControlFrame::EnrolHello(vec![7]),
        ControlFrame::EnrolReceipt(vec![8]),
        ControlFrame::KeyReceipt(vec![9]),
        ControlFrame::GuardReset(vec![10]),
        ControlFrame::CredentialsWanted { above: HostEpoch(u64::MAX) },
        ControlFrame::OutputLease { command: CommandId::from_bytes([7; 16]), until: 9, over: false },
        ControlFrame::OutputLease { command: CommandId::from_bytes([7; 16]), until: 0, over: true },
    ];
    for reason in
        [TokenRefused, HostRefused, ProtocolVersion, NotAuthentic, Superseded, Quarantined, LimitExceeded, Unavailable]
    {
        frames.push(ControlFrame::Refused { reason, message: "no".to_owned() });
    }
    frames
}

#[test]
fn every_frame_survives_the_wire() {
    for frame in agent_frames() {
        let bytes = v1::AgentFrame::from(frame.clone()).encode_to_vec();
        let back = v1::AgentFrame::decode(bytes.as_slice()).expect("our own bytes decode");
        assert_eq!(AgentFrame::try_from(back), Ok(frame));
    }
    for frame in control_frames() {
        let bytes = v1::ControlFrame::from(frame.clone()).encode_to_vec();
        let back = v1::ControlFrame::decode(bytes.as_slice()).expect("our own bytes decode");
        assert_eq!(ControlFrame::try_from(back), Ok(frame));
    }
}

#[test]
fn malformed_fields_are_named() {
    use v1::agent_frame::Frame;
    let check = |frame: Option<Frame>, expected: FrameError| {
        assert_eq!(AgentFrame::try_from(v1::AgentFrame { frame }), Err(expected));
    };
    check(None, FrameError::Unknown);
    check(
        Some(Frame::EnrolStart(v1::EnrolStart { token: vec![0; 15], nonce: vec![0; 32] })),
        malformed("enrol_start.token"),
    );
    check(
        Some(Frame::Accepted(v1::Accepted { command: vec![0; 16], sequence: 1, stage: 0 })),
        malformed("accepted.stage"),
    );
    check(
        Some(Frame::Hello(vec![0; limits::HELLO_BYTES_MAX + 1])),
        FrameError::TooLarge { field: "hello", limit: limits::HELLO_BYTES_MAX },
    );
    check(
        Some(Frame::RootChain(v1::RootChain { envelopes: vec![vec![]; limits::ROOT_CHAIN_MAX + 1] })),
        FrameError::TooLarge { field: "root_chain", limit: limits::ROOT_CHAIN_MAX },
    );
}

#[test]
fn a_proof_of_wrong_hashes_or_too_many_is_named() {
    use v1::control_frame::Frame;
    let check = |hashes: Vec<Vec<u8>>, expected: FrameError| {
        let frame = Some(Frame::AuditConsistency(v1::AuditConsistency { head: vec![1], from_size: 1, hashes }));
        assert_eq!(ControlFrame::try_from(v1::ControlFrame { frame }), Err(expected));
    };
    let field = "audit_consistency.hashes";
    check(vec![vec![0; 31]], malformed(field));
    let limit = limits::CONSISTENCY_HASHES_MAX;
    check(vec![vec![0; 32]; limit + 1], FrameError::TooLarge { field, limit });
}

proptest! {
    #[test]
    fn decoding_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        if let Ok(frame) = v1::AgentFrame::decode(bytes.as_slice()) {
            let _ = AgentFrame::try_from(frame);
        }
        if let Ok(frame) = v1::ControlFrame::decode(bytes.as_slice()) {
            let _ = ControlFrame::try_from(frame);
        }
    }
}
