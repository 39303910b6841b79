//! Every message with every content: what is signed is what is read; what is not a message is
//! refused without a panic, and nothing is read in two ways.

use envelope::{
    Payload, SigningKey, VerifyingKey,
    keys::role::Agent,
    messages::*,
    root::{ROOT_TYPE, TrustedRoot, check_structure, sign_root},
    seal::SealingSecretKey,
    verify,
};
use ids::*;
use proptest::{collection::vec, option, prelude::*, sample::subsequence};

use crate::{
    samples::{SEED, agent_hello, cases, key, root_metadata},
    wire::Envelope,
};

mod authority;

fn id<K>() -> impl Strategy<Value = Id<K>> {
    any::<[u8; 16]>().prop_map(Id::from_bytes)
}
fn sha() -> impl Strategy<Value = Sha256> {
    any::<[u8; 32]>().prop_map(Sha256)
}
fn challenge() -> impl Strategy<Value = Challenge> {
    any::<[u8; 32]>().prop_map(Challenge)
}
fn exporter() -> impl Strategy<Value = TlsExporter> {
    any::<[u8; 32]>().prop_map(TlsExporter)
}
fn time() -> impl Strategy<Value = UnixMs> {
    any::<u64>().prop_map(UnixMs)
}
fn public() -> impl Strategy<Value = PublicKeyBytes> {
    any::<[u8; 32]>().prop_map(|seed| SigningKey::<Agent>::from_seed(&seed).public())
}
fn sealing() -> impl Strategy<Value = SealingKeyBytes> {
    any::<[u8; 32]>().prop_map(|seed| SealingSecretKey::from_bytes(&seed).public())
}
fn log() -> impl Strategy<Value = LogPosition> {
    (id(), any::<u64>(), sha()).prop_map(|(log, size, root)| LogPosition { log, size, root })
}
fn last_report() -> impl Strategy<Value = ReportPosition> {
    let some = (1u64.., sha()).prop_map(|(n, sha256)| ReportPosition { sequence: ReportSequence(n), sha256 });
    prop_oneof![Just(ReportPosition::START), some]
}

fn enrol_hello() -> impl Strategy<Value = EnrolHello> {
    (id(), id(), challenge(), challenge(), exporter(), any::<u64>(), time()).prop_map(
        |(fleet, token, agent_nonce, control_nonce, exporter, root, time)| EnrolHello {
            fleet,
            token,
            agent_nonce,
            control_nonce,
            exporter,
            root_version: RootVersion(root),
            time,
        },
    )
}

fn enrol_proof() -> impl Strategy<Value = EnrolProof> {
    (id(), id(), public(), sealing(), challenge(), challenge(), exporter(), sha()).prop_map(
        |(fleet, token, identity_key, sealing_key, agent_nonce, control_nonce, exporter, hello_sha256)| EnrolProof {
            fleet,
            token,
            identity_key,
            sealing_key,
            agent_nonce,
            control_nonce,
            exporter,
            hello_sha256,
        },
    )
}

fn receipt_request() -> impl Strategy<Value = ReceiptRequest> {
    enrol_proof().prop_map(|proof| ReceiptRequest {
        fleet: proof.fleet,
        token: proof.token,
        identity_key: proof.identity_key,
        agent_nonce: proof.agent_nonce,
        control_nonce: proof.control_nonce,
        exporter: proof.exporter,
        hello_sha256: proof.hello_sha256,
    })
}

fn enrol_receipt() -> impl Strategy<Value = EnrolReceipt> {
    let roles = subsequence(Role::ALL.to_vec(), 0..=6).prop_shuffle();
    ((id(), id(), any::<u64>(), "[a-z]([a-z0-9-]{0,20}[a-z0-9])?"), roles, id(), public(), sealing(), time()).prop_map(
        |((fleet, host, epoch, name), roles, token, identity_key, sealing_key, time)| EnrolReceipt {
            fleet,
            host,
            host_epoch: HostEpoch(epoch),
            name: name.parse().expect("a host name"),
            roles,
            token,
            identity_key,
            sealing_key,
            time,
        },
    )
}

fn hello() -> impl Strategy<Value = AgentHello> {
    let protocols = prop::collection::btree_set(any::<u32>(), 1..32).prop_map(|set| set.into_iter().collect());
    let numbers = any::<(u64, u64, u64)>();
    let state = (last_report(), option::of(log()), option::of(id()), "[ -~]{1,64}");
    (protocols, id(), id(), challenge(), id(), numbers, state).prop_map(
        |(protocols, fleet, host, nonce, boot, (epoch, root, high), (last_report, audit_head, quarantine, version))| {
            AgentHello {
                protocols,
                fleet,
                host,
                host_epoch: HostEpoch(epoch),
                nonce,
                boot,
                root_version: RootVersion(root),
                high: Sequence(high),
                last_report,
                audit_head,
                quarantine,
                agent_version: version,
            }
        },
    )
}

fn control_hello() -> impl Strategy<Value = ControlHello> {
    (any::<u32>(), id(), id(), challenge(), challenge(), exporter(), sha(), time(), any::<u64>()).prop_map(
        |(protocol, fleet, host, agent_nonce, control_nonce, exporter, agent_hello_sha256, time, root)| ControlHello {
            protocol,
            fleet,
            host,
            agent_nonce,
            control_nonce,
            exporter,
            agent_hello_sha256,
            time,
            root_version: RootVersion(root),
        },
    )
}

fn session_proof() -> impl Strategy<Value = SessionProof> {
    (id(), id(), exporter(), challenge(), sha()).prop_map(|(fleet, host, exporter, control_nonce, hello_sha256)| {
        SessionProof { fleet, host, exporter, control_nonce, hello_sha256 }
    })
}

fn session_open() -> impl Strategy<Value = SessionOpen> {
    (id(), id(), any::<(u64, u64, u64)>(), exporter(), sha(), time(), last_report()).prop_map(
        |(fleet, host, (host_epoch, epoch, acknowledged), exporter, proof_sha256, time, last_report)| SessionOpen {
            fleet,
            host,
            host_epoch: HostEpoch(host_epoch),
            epoch: Epoch(epoch),
            exporter,
            proof_sha256,
            time,
            acknowledged: Sequence(acknowledged),
            last_report,
        },
    )
}

fn order() -> impl Strategy<Value = Order> {
    let sealed = prop::collection::btree_map("[a-z]{1,9}/[A-Z_]{1,9}", sha(), 0..6)
        .prop_map(|map| map.into_iter().map(|(name, sha256)| SealedRef { name, sha256 }).collect());
    let times = (any::<u64>(), any::<u64>(), 0u64..=3_600_000);
    let action = ("[a-z]{1,9}\\.[a-z]{1,9}", any::<u32>(), sha());
    ((id(), id(), id(), id()), times, action, "\\PC{0,200}", sealed, option::of(id()), any::<bool>()).prop_map(
        |((fleet, host, command, operation), times, (action, version, schema), parameters, sealed, requester, dry)| {
            Order {
                fleet,
                host,
                command,
                operation,
                proposed_at: UnixMs(times.0.min(times.1)),
                deliver_by: UnixMs(times.0.max(times.1)),
                start_within_ms: times.2,
                action: action.parse().expect("an action name"),
                action_version: version,
                schema_sha256: schema,
                parameters: parameters.into_bytes(),
                sealed,
                requester,
                dry_run: dry,
            }
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    (order(), any::<(u64, u64)>(), 1u64.., any::<[u8; 16]>(), time(), any::<(u64, u64)>()).prop_map(
        |(order, epochs, sequence, nonce, issued, window)| Command {
            order,
            host_epoch: HostEpoch(epochs.0),
            epoch: Epoch(epochs.1),
            sequence: Sequence(sequence),
            nonce: Nonce(nonce),
            issued,
            not_before: UnixMs(window.0.min(window.1)),
            expires: UnixMs(window.0.max(window.1)),
        },
    )
}

fn report() -> impl Strategy<Value = Report> {
    let chain = prop_oneof![Just((1, Sha256::ZERO)), (2u64.., sha())];
    let end = (prop::sample::select(ReportStatus::ALL.to_vec()), time(), "\\PC{0,200}", sha(), any::<bool>());
    (id(), id(), any::<(u64, u64)>(), id(), sha(), chain, option::of(log()), end).prop_map(
        |(fleet, host, (epoch, number), command, command_sha256, (sequence, previous), audit_head, end)| Report {
            fleet,
            host,
            host_epoch: HostEpoch(epoch),
            command,
            command_sha256,
            command_sequence: Sequence(number),
            sequence: ReportSequence(sequence),
            previous,
            audit_head,
            status: end.0,
            finished_at: end.1,
            result: end.2.into_bytes(),
            output_sha256: end.3,
            output_truncated: end.4,
        },
    )
}

fn audit_head() -> impl Strategy<Value = AuditHead> {
    (id(), log(), time()).prop_map(|(fleet, position, time)| AuditHead { fleet, position, time })
}

fn root() -> impl Strategy<Value = RootMetadata> {
    let numbers = (1u64.., any::<u64>(), 1u64..1_000_000_000_000, any::<u32>(), any::<u64>());
    let keys = (vec(public(), 1..4), vec(public(), 1..4), vec(public(), 0..4), public(), vec(sealing(), 0..3));
    let log = (id(), option::of(log()));
    let addresses = vec("[a-z]{1,9}\\.[a-z]{1,9}:[1-9][0-9]{0,3}", 1..4);
    (id(), numbers, keys, log, addresses, vec(sha(), 2..5)).prop_map(
        |(fleet, numbers, keys, (audit_log, restored_log), addresses, tls_pins)| RootMetadata {
            version: RootVersion(numbers.0),
            issued: UnixMs(numbers.1.min(u64::MAX - numbers.2)),
            expires: UnixMs(numbers.1.min(u64::MAX - numbers.2) + numbers.2),
            fleet,
            root_keys: root_metadata().root_keys,
            root_threshold: 1,
            addresses,
            recovery_keys: keys.4,
            approvals: ApprovalThresholds { change: keys.2.len().min(1) as u32, destructive: keys.2.len() as u32 },
            session_keys: keys.0,
            command_keys: keys.1,
            approver_keys: keys.2,
            audit_key: keys.3,
            audit_log,
            restored_log,
            tls_pins,
            protocol_min: numbers.3,
            epoch: Epoch(numbers.4),
        },
    )
}

/// Signed, verified, the same.
fn round_trip<T: Payload + PartialEq>(value: &T) -> Result<(), TestCaseError> {
    let signing: SigningKey<T::Role> = key();
    let keys: [VerifyingKey<T::Role>; 1] = [signing.verifying()];
    let signed = signing.sign(value);
    let verified = verify::<T>(signed.envelope(), &keys);
    prop_assert_eq!(verified.map(|verified| verified.into_value()), Ok(value.clone()));
    prop_assert_eq!(value.check(), Ok(()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn enrol_hello_round_trips(value in enrol_hello()) { round_trip(&value)?; }
    #[test]
    fn enrol_proof_round_trips(value in enrol_proof()) { round_trip(&value)?; }
    #[test]
    fn receipt_request_round_trips(value in receipt_request()) { round_trip(&value)?; }
    #[test]
    fn enrol_receipt_round_trips(value in enrol_receipt()) { round_trip(&value)?; }
    #[test]
    fn control_hello_round_trips(value in control_hello()) { round_trip(&value)?; }
    #[test]
    fn session_proof_round_trips(value in session_proof()) { round_trip(&value)?; }
    #[test]
    fn session_open_round_trips(value in session_open()) { round_trip(&value)?; }
    #[test]
    fn command_round_trips(value in command()) { round_trip(&value)?; }
    #[test]
    fn report_round_trips(value in report()) { round_trip(&value)?; }
    #[test]
    fn audit_head_round_trips(value in audit_head()) { round_trip(&value)?; }
    #[test]
    fn agent_hello_round_trips(value in hello()) { prop_assert_eq!(AgentHello::decode(&value.encode()), Ok(value)); }

    #[test]
    fn root_round_trips(value in root()) {
        prop_assert_eq!(check_structure(&value), Ok(()));
        let envelope = sign_root(&[&key()], &value);
        let hash = sha256(&Envelope::of(&envelope).payload);
        let pinned = TrustedRoot::pin(&envelope, hash);
        prop_assert_eq!(pinned.as_ref().map(TrustedRoot::current), Ok(&value));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Authentic rubbish: a message with bytes replaced, cut out or put in, signed by the right key.
    /// It is refused, or is another message in its one form.
    #[test]
    fn decoders_never_panic_and_accept_one_form(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        remove in 0usize..40,
        insert in vec(any::<u8>(), 0..40),
    ) {
        let cases = cases();
        let case = &cases[which.index(cases.len())];
        let mut payload = Envelope::of(&case.envelope).payload;
        let start = at.index(payload.len());
        let end = (start + remove).min(payload.len());
        payload.splice(start..end, insert);
        let envelope = Envelope::signed(&SEED, case.payload_type, payload).bytes();
        if (case.open)(&envelope).is_ok() && case.payload_type != ROOT_TYPE {
            reencodes(case.payload_type, &envelope)?;
        }
    }

    #[test]
    fn doors_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        for case in cases() {
            prop_assert!((case.open)(&bytes).is_err());
            let signed = Envelope::signed(&SEED, case.payload_type, bytes.clone()).bytes();
            let _ = (case.open)(&signed);
        }
    }

    #[test]
    fn the_hello_decoder_never_panics(at in any::<prop::sample::Index>(), insert in vec(any::<u8>(), 0..40), remove in 0usize..40) {
        let mut bytes = agent_hello().encode();
        let start = at.index(bytes.len());
        let end = (start + remove).min(bytes.len());
        bytes.splice(start..end, insert);
        if let Ok(hello) = AgentHello::decode(&bytes) {
            prop_assert_eq!(hello.encode(), bytes);
        }
    }
}

/// What was accepted, signed again by the same key, is the same envelope: Ed25519 is deterministic.
fn reencodes(payload_type: &str, envelope: &[u8]) -> Result<(), TestCaseError> {
    fn again<T: Payload>(envelope: &[u8]) -> Option<Vec<u8>> {
        let keys: [VerifyingKey<T::Role>; 1] = [key().verifying()];
        let verified = verify::<T>(envelope, &keys).ok()?;
        Some(key::<T::Role>().sign(&*verified).into_envelope())
    }
    let doors = [
        again::<EnrolHello>,
        again::<EnrolProof>,
        again::<ReceiptRequest>,
        again::<EnrolReceipt>,
        again::<ControlHello>,
        again::<SessionProof>,
        again::<SessionOpen>,
        again::<Command>,
        again::<Report>,
        again::<AuditHead>,
        again::<Approval>,
        again::<StandingOrder>,
        again::<GuardReset>,
        again::<KeyOffer>,
        again::<KeyRotation>,
        again::<KeyReceipt>,
    ];
    let opened: Vec<_> = doors.iter().filter_map(|door| door(envelope)).collect();
    prop_assert_eq!(opened, vec![envelope.to_vec()], "exactly one door opens {}", payload_type);
    Ok(())
}
