//! The rules of single fields: each edit breaks one, and the refusal names the field.

use envelope::{
    DecodeError, Payload, limits,
    messages::{
        AgentHello, Approval, Command, EnrolProof, EnrolReceipt, GuardReset, KeyOffer, KeyReceipt, KeyRotation, Report,
        ReportPosition, SealedRef, SessionOpen, StandingOrder,
    },
};
use ids::{ReportSequence, Role, Sha256, UnixMs};

use crate::samples;

fn field(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::Missing { field }
        | DecodeError::Length { field, .. }
        | DecodeError::TooLong { field, .. }
        | DecodeError::OutOfRange { field }
        | DecodeError::Unordered { field }
        | DecodeError::Name { field, .. }
        | DecodeError::Key { field, .. } => field,
        other => panic!("{other} names no field"),
    }
}

/// The field an edit breaks, and the edit.
type Broken<T> = (&'static str, fn(&mut T));

fn check<T: Payload>(sample: T, edits: &[Broken<T>]) {
    assert_eq!(sample.check(), Ok(()));
    for (at, (named, edit)) in edits.iter().enumerate() {
        let mut edited = sample.clone();
        edit(&mut edited);
        let error = edited.check().expect_err(&format!("edit {at} of {named}"));
        assert_eq!(field(&error), *named, "edit {at}: {error}");
    }
}

fn reference(name: &str) -> SealedRef {
    SealedRef { name: name.into(), sha256: Sha256([1; 32]) }
}

#[test]
fn commands() {
    check::<Command>(
        samples::command(),
        &[
            ("order.parameters", |command| command.order.parameters = vec![b' '; limits::PARAMETERS_BYTES_MAX + 1]),
            ("order.parameters", |command| command.order.parameters = vec![0xff]),
            ("order.start_within_ms", |command| command.order.start_within_ms = 3_600_001),
            ("order.deliver_by", |command| command.order.deliver_by = UnixMs(command.order.proposed_at.0 - 1)),
            ("order.sealed", |command| command.order.sealed.swap(0, 1)),
            ("order.sealed", |command| command.order.sealed = vec![reference("a"), reference("a")]),
            ("order.sealed", |command| command.order.sealed = vec![reference("a"); limits::SEALED_COUNT_MAX + 1]),
            ("order.sealed.name", |command| command.order.sealed = vec![reference("")]),
            ("order.sealed.name", |command| command.order.sealed = vec![reference("a\0")]),
            ("order.sealed.name", |command| {
                command.order.sealed = vec![reference(&"a".repeat(limits::SEALED_NAME_BYTES_MAX + 1))];
            }),
            ("command.sequence", |command| command.sequence.0 = 0),
            ("command.expires", |command| command.expires = UnixMs(command.not_before.0 - 1)),
        ],
    );
}

#[test]
fn reports() {
    check::<Report>(
        samples::report(),
        &[
            ("report.result", |report| report.result = vec![b' '; limits::RESULT_BYTES_MAX + 1]),
            ("report.result", |report| report.result = vec![0xff]),
            ("report.sequence", |report| report.sequence = ReportSequence(0)),
            // A chain begins with nothing before it, and with nothing else.
            ("report.previous", |report| report.sequence = ReportSequence(1)),
            ("report.previous", |report| report.previous = Sha256::ZERO),
        ],
    );
    let mut largest = samples::report();
    largest.result = vec![b' '; limits::RESULT_BYTES_MAX];
    assert_eq!(largest.check(), Ok(()));
}

#[test]
fn enrolment() {
    check::<EnrolReceipt>(
        samples::enrol_receipt(),
        &[("enrol-receipt.roles", |receipt| receipt.roles = vec![Role::App, Role::Dns, Role::App])],
    );
    check::<EnrolProof>(
        samples::enrol_proof(),
        &[
            ("enrol-proof.identity_key", |proof| proof.identity_key.0 = [0; 32]),
            ("enrol-proof.sealing_key", |proof| proof.sealing_key.0 = [0; 32]),
        ],
    );
}

#[test]
fn approvals_and_standing_orders() {
    check::<Approval>(
        samples::approval(),
        &[
            ("approval.sealed", |approval| approval.sealed.swap(0, 1)),
            ("approval.sealed.name", |approval| approval.sealed = vec![reference("")]),
            ("approval.expires", |approval| approval.expires = approval.approved_at),
            ("approval.expires", |approval| {
                approval.expires = UnixMs(approval.approved_at.plus(limits::APPROVAL_LIFETIME_MAX).0 + 1);
            }),
        ],
    );
    check::<StandingOrder>(
        samples::standing_order(),
        &[
            ("standing-order.revision", |order| order.revision.0 = 0),
            ("standing.sealed", |order| order.standing.sealed.swap(0, 1)),
            ("standing.sealed.name", |order| order.standing.sealed = vec![reference("a\0")]),
            ("standing.parameters", |order| order.standing.parameters = vec![b' '; limits::PARAMETERS_BYTES_MAX + 1]),
            ("standing.parameters", |order| order.standing.parameters = vec![0xff]),
            ("standing.schedule", |order| order.standing.schedule.clear()),
            ("standing.schedule", |order| order.standing.schedule = "*".repeat(limits::SCHEDULE_BYTES_MAX + 1)),
            ("standing.schedule", |order| order.standing.schedule = "* * *\n* *".into()),
            ("standing.zone", |order| order.standing.zone.clear()),
            ("standing.zone", |order| order.standing.zone = "Z".repeat(limits::ZONE_BYTES_MAX + 1)),
            ("standing.alone_for_ms", |order| order.standing.alone_for.0 = limits::ALONE_FOR_MAX.0 + 1),
            ("standing.valid_until", |order| order.standing.valid_until = order.issued),
            ("standing.valid_until", |order| {
                order.standing.valid_until = UnixMs(order.issued.plus(limits::STANDING_LIFETIME_MAX).0 + 1);
            }),
        ],
    );
}

#[test]
fn rotations_and_resets() {
    check::<GuardReset>(
        samples::guard_reset(),
        &[
            ("guard-reset.host_epoch", |reset| reset.host_epoch.0 = 1),
            ("guard-reset.last_report", |reset| reset.last_report = START_WITH_HASH),
            ("guard-reset.last_report", |reset| reset.last_report = REPORT_WITHOUT_HASH),
        ],
    );
    check::<KeyOffer>(
        samples::key_offer(),
        &[
            ("key-offer.host_epoch", |offer| offer.host_epoch.0 = 1),
            ("key-offer.identity_key", |offer| offer.identity_key = offer.old_identity_key),
            ("key-offer.identity_key", |offer| offer.identity_key.0 = [0; 32]),
            ("key-offer.old_identity_key", |offer| offer.old_identity_key.0 = [0; 32]),
            ("key-offer.sealing_key", |offer| offer.sealing_key.0 = [0; 32]),
        ],
    );
    check::<KeyRotation>(
        samples::key_rotation(),
        &[("key-rotation.offer", |rotation| rotation.offer = vec![0; limits::SELF_SIGNED_BYTES_MAX + 1])],
    );
    check::<KeyReceipt>(
        samples::key_receipt(),
        &[
            ("key-receipt.host_epoch", |receipt| receipt.host_epoch.0 = 1),
            ("key-receipt.identity_key", |receipt| receipt.identity_key.0 = [0; 32]),
            ("key-receipt.sealing_key", |receipt| receipt.sealing_key.0 = [0; 32]),
        ],
    );
}

const START_WITH_HASH: ReportPosition = ReportPosition { sequence: ReportSequence(0), sha256: Sha256([1; 32]) };
const REPORT_WITHOUT_HASH: ReportPosition = ReportPosition { sequence: ReportSequence(1), sha256: Sha256::ZERO };

#[test]
fn sessions() {
    check::<SessionOpen>(
        samples::session_open(),
        &[
            ("session-open.last_report", |open| open.last_report = START_WITH_HASH),
            ("session-open.last_report", |open| open.last_report = REPORT_WITHOUT_HASH),
        ],
    );
    let edits: [Broken<AgentHello>; 8] = [
        ("agent-hello.protocols", |hello| hello.protocols.clear()),
        ("agent-hello.protocols", |hello| hello.protocols = vec![2, 1]),
        ("agent-hello.protocols", |hello| hello.protocols = vec![1, 1]),
        ("agent-hello.protocols", |hello| hello.protocols = (0..33).collect()),
        ("agent-hello.agent_version", |hello| hello.agent_version.clear()),
        ("agent-hello.agent_version", |hello| hello.agent_version = "0.1\n".into()),
        ("agent-hello.agent_version", |hello| hello.agent_version = "0".repeat(65)),
        ("agent-hello.last_report", |hello| hello.last_report = START_WITH_HASH),
    ];
    for (at, (named, edit)) in edits.iter().enumerate() {
        let mut hello = samples::agent_hello();
        edit(&mut hello);
        assert_eq!(AgentHello::decode(&hello.encode()).map_err(|error| field(&error)), Err(*named), "edit {at}");
    }
    let oversize = vec![0; limits::AGENT_HELLO_BYTES_MAX + 1];
    assert!(matches!(AgentHello::decode(&oversize), Err(DecodeError::TooLarge { .. })));
}
