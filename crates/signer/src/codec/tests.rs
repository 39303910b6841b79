//! Every kind of frame comes back; nothing else is one.

use envelope::messages::{Order, ReportPosition, Standing};
use ids::*;
use proptest::prelude::*;

use super::*;

fn command(parameters: &str) -> Command {
    let at = UnixMs(1_800_000_000_000);
    let order = Order {
        fleet: FleetId::from_bytes([7; 16]),
        host: HostId::from_bytes([1; 16]),
        command: CommandId::from_bytes([9; 16]),
        operation: OperationId::from_bytes([8; 16]),
        proposed_at: at,
        deliver_by: at.plus(DurationMs::from_mins(10)),
        start_within_ms: 60_000,
        action: "host.facts".parse().unwrap(),
        action_version: 1,
        schema_sha256: sha256(b"schema"),
        parameters: parameters.as_bytes().to_vec(),
        sealed: vec![],
        requester: None,
        dry_run: false,
    };
    Command {
        order,
        host_epoch: HostEpoch(1),
        epoch: Epoch(1),
        sequence: Sequence(5),
        nonce: Nonce([1; 16]),
        issued: at,
        not_before: at,
        expires: at.plus(DurationMs::from_mins(5)),
    }
}

fn open() -> SessionOpen {
    SessionOpen {
        fleet: FleetId::from_bytes([7; 16]),
        host: HostId::from_bytes([1; 16]),
        host_epoch: HostEpoch(1),
        epoch: Epoch(1),
        exporter: TlsExporter([2; 32]),
        proof_sha256: sha256(b"proof"),
        time: UnixMs(12),
        acknowledged: Sequence(0),
        last_report: ReportPosition::START,
    }
}

fn reset() -> GuardReset {
    GuardReset {
        fleet: FleetId::from_bytes([7; 16]),
        host: HostId::from_bytes([1; 16]),
        epoch: Epoch(1),
        quarantine: QuarantineId::from_bytes([3; 16]),
        host_epoch: HostEpoch(2),
        high: Sequence(9),
        last_report: ReportPosition::START,
        time: UnixMs(13),
    }
}

fn standing() -> StandingOrder {
    StandingOrder {
        standing: Standing {
            fleet: FleetId::from_bytes([7; 16]),
            host: HostId::from_bytes([1; 16]),
            order: StandingOrderId::from_bytes([4; 16]),
            operation: OperationId::from_bytes([5; 16]),
            action: "app.restart".parse().unwrap(),
            action_version: 1,
            schema_sha256: sha256(b"schema"),
            parameters: b"{}".to_vec(),
            sealed: vec![],
            schedule: "0 3 * * *".to_owned(),
            zone: "UTC".to_owned(),
            valid_until: UnixMs(100),
            alone_for: DurationMs(50),
        },
        host_epoch: HostEpoch(1),
        epoch: Epoch(1),
        revision: Revision(9),
        issued: UnixMs(14),
    }
}

fn held(n: u8) -> HeldKey {
    let is = |flag: u8| n & flag != 0;
    HeldKey {
        public: PublicKeyBytes([n; 32]),
        created_at: UnixMs(u64::from(n)),
        is_active: is(1),
        is_listed: is(2),
        is_void: is(4),
    }
}

fn all_asked() -> Vec<Asked> {
    let key = KeyId::from_bytes([3; 16]);
    vec![
        Asked::Command(Box::new(command("{}")), vec![]),
        Asked::Command(Box::new(command("{}")), vec![vec![1, 2], vec![], vec![3]]),
        Asked::Open(Box::new(open())),
        Asked::AdvanceRoot(vec![]),
        Asked::AdvanceRoot(vec![vec![1, 2, 3], vec![], vec![4]]),
        Asked::Keys,
        Asked::PrepareKey,
        Asked::ActivateKey(key),
        Asked::DropKey(key),
        Asked::Reset(Box::new(reset())),
        Asked::Standing(Box::new(standing())),
    ]
}

fn all_answered() -> Vec<Answered> {
    let keys = |root, count| SignerKeys { root, is_impaired: count == 2, keys: (0..count).map(held).collect() };
    vec![
        Answered::Not(SignError::Refused("why".to_owned())),
        Answered::Not(SignError::SequenceTaken { high: Sequence(7) }),
        Answered::Not(SignError::Unavailable("wärum".to_owned())),
        Answered::Signed(SignedCommand { envelope: vec![1, 2], payload_sha256: sha256(b"x") }),
        Answered::Envelope(vec![9]),
        Answered::Version(RootVersion(3)),
        Answered::Keys(keys(None, 0)),
        Answered::Keys(keys(Some((RootVersion(2), sha256(b"root"))), 8)),
        Answered::Keys(keys(Some((RootVersion(2), sha256(b"root"))), 2)),
        Answered::Public(PublicKeyBytes([5; 32])),
        Answered::Done,
    ]
}

fn body(frame: &[u8]) -> &[u8] {
    let (length, body) = frame.split_first_chunk::<LENGTH_BYTES>().unwrap();
    assert_eq!(frame_length(*length), Ok(body.len()));
    body
}

#[test]
fn every_kind_comes_back() {
    for asked in all_asked() {
        assert_eq!(Asked::from_frame(body(&asked.to_frame(42).unwrap())), Ok((42, asked)));
    }
    for answered in all_answered() {
        assert_eq!(Answered::from_frame(body(&answered.to_frame(43).unwrap())), Ok((43, answered)));
    }
}

/// Cut anywhere it is no frame, or the frame of something shorter (a text, bytes): never the same.
#[test]
fn no_truncation_and_no_excess_passes_for_the_whole() {
    for asked in all_asked() {
        let frame = asked.to_frame(1).unwrap();
        let frame = body(&frame);
        for length in 0..frame.len() {
            assert_ne!(Asked::from_frame(&frame[..length]), Ok((1, asked.clone())), "{asked:?} at {length}");
        }
        let longer = [frame, &[0]].concat();
        assert!(Asked::from_frame(&longer).is_err(), "{asked:?}");
    }
    for answered in all_answered() {
        let frame = answered.to_frame(1).unwrap();
        let frame = body(&frame);
        for length in 0..frame.len() {
            assert_ne!(Answered::from_frame(&frame[..length]), Ok((1, answered.clone())), "{answered:?} at {length}");
        }
    }
}

/// A command is taken in the one encoding that is signed: what a signature would cover is what was judged.
#[test]
fn every_cut_and_every_flipped_bit_of_a_command_is_refused_or_another_command() {
    let whole = Asked::Command(Box::new(command("{\"a\":1}")), vec![]).to_frame(1).unwrap();
    let whole = body(&whole);
    for at in HEAD_BYTES..whole.len() {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1;
        for changed in [&whole[..at], &flipped] {
            if let Ok((_, asked)) = Asked::from_frame(changed) {
                assert_eq!(body(&asked.to_frame(1).unwrap()), changed, "one command, one encoding: {at}");
            }
        }
    }
}

#[test]
fn lengths_are_bounded_before_anything_is_read() {
    for length in [0, 1, HEAD_BYTES - 1, limits::FRAME_BYTES_MAX + 1, u32::MAX as usize] {
        let announced = u32::try_from(length).unwrap().to_be_bytes();
        assert_eq!(frame_length(announced), Err(FrameError::Length { length }));
    }
    let too_long = Asked::AdvanceRoot(vec![vec![0; limits::FRAME_BYTES_MAX]]);
    assert!(matches!(too_long.to_frame(1), Err(FrameError::Length { .. })));
}

#[test]
fn unknown_kinds_flags_and_too_many_keys_are_refused() {
    let framed = |kind: u8, content: &[u8]| [&7u64.to_be_bytes()[..], &[kind], content].concat();
    for kind in [0, 11, 255] {
        assert_eq!(Asked::from_frame(&framed(kind, b"")), Err(FrameError::Kind(kind)));
    }
    assert_eq!(Answered::from_frame(&framed(10, b"")), Err(FrameError::Kind(10)));
    assert_eq!(Answered::from_frame(&framed(7, &[4])), Err(FrameError::Content));
    let keys = [&[0][..], &vec![0; 41 * (limits::KEYS_MAX + 1)]].concat();
    assert_eq!(Answered::from_frame(&framed(7, &keys)), Err(FrameError::Content));
    let lone = Asked::Command(Box::new(command("{}")), vec![vec![1]]).to_frame(1).unwrap();
    let lone = &body(&lone)[..body(&lone).len() - 5];
    assert_eq!(Asked::from_frame(lone), Err(FrameError::Content), "without approvals it has another form");
    assert_eq!(Answered::from_frame(&framed(1, &[0xff])), Err(FrameError::Content), "no UTF-8");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic_and_come_back_as_they_were(
        kind in 0u8..12, bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let frame = [&1u64.to_be_bytes()[..], &[kind], &bytes].concat();
        if let Ok((number, asked)) = Asked::from_frame(&frame) {
            let again = asked.to_frame(number).unwrap();
            prop_assert_eq!(body(&again), &frame[..]);
        }
        if let Ok((number, answered)) = Answered::from_frame(&frame) {
            let again = answered.to_frame(number).unwrap();
            prop_assert_eq!(body(&again), &frame[..]);
        }
    }
}
