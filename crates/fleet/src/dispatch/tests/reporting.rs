//! Reports out of place, and what follows from those in place.

use envelope::{
    audit::AuditKind,
    keys::{SigningKey, role},
    messages::{Report, ReportPosition, ReportStatus},
    root::sign_root,
};
use ids::{CommandId, DurationMs, HostEpoch, OperationId, ReportSequence, RootVersion, Sequence, Sha256};
use serde_json::json;
use session::frames::{AgentFrame, RefusalCode};

use super::{
    super::Input,
    world::{AGENT_SEED, FLEET, HOST, World},
};
use crate::{
    model::{CommandStatus, HostStanding},
    operation::{DeployTiming, OperationRequest, Target, Work},
    ports::Write,
};

const SPEC: &str = r#"{"app":"shop","services":{"web":{"image":"docker.io/library/nginx:1.27","restart":"unless_stopped"}},"networks":{},"volumes":{}}"#;

fn deploy(world: &mut World, dry_run: bool) -> CommandId {
    deploy_timed(world, dry_run, DeployTiming::default())
}

fn deploy_timed(world: &mut World, dry_run: bool, timing: DeployTiming) -> CommandId {
    let id = OperationId::from_bytes(world.fresh_bytes());
    world.propose(OperationRequest {
        id,
        work: Work::Deploy { spec: SPEC.as_bytes().to_vec(), timing },
        targets: vec![Target { host: HOST, sealed: Vec::new() }],
        queue_for: None,
        dry_run,
        selector: None,
        recovery: None,
    })
}

fn plan_result(unchanged: bool) -> serde_json::Value {
    let pinned = format!("docker.io/library/nginx@sha256:{}", "0".repeat(64));
    json!({
        "app": "shop", "release_from": null,
        "images": {"web": {"reference": "docker.io/library/nginx:1.27", "pinned": pinned}},
        "changes": [{"service": "web", "change": if unchanged { "unchanged" } else { "create" }, "reasons": []}],
        "networks": [], "volumes": [], "strategy": "stop-first", "why": "one host",
        "unchanged": unchanged, "verifiable": true, "without_probe": [], "plan_sha256": Sha256::ZERO,
    })
}

/// A report that the host's key signs, whatever its journal says.
fn forged(world: &World, change: impl FnOnce(&mut Report)) -> Vec<u8> {
    let last = world.store.host.last_report;
    let mut report = Report {
        fleet: FLEET,
        host: HOST,
        host_epoch: HostEpoch(1),
        command: CommandId::from_bytes([0xee; 16]),
        command_sha256: Sha256([1; 32]),
        command_sequence: Sequence(1),
        sequence: ReportSequence(last.sequence.0 + 1),
        previous: last.sha256,
        audit_head: None,
        status: ReportStatus::Succeeded,
        finished_at: world.now,
        result: b"{}".to_vec(),
        output_sha256: Sha256::ZERO,
        output_truncated: false,
    };
    change(&mut report);
    SigningKey::from_seed(&AGENT_SEED).sign(&report).into_envelope()
}

fn hear(world: &mut World, report: Vec<u8>) {
    world.tell(Input::Received(AgentFrame::Report(report)));
    world.settle();
}

/// A session with one settled report.
fn with_history() -> (World, CommandId) {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    (world, command)
}

#[test]
fn a_deploy_goes_from_its_plan_to_its_release() {
    let mut world = World::new();
    world.connect();
    let plan = deploy(&mut world, false);
    world.settle();
    world.finish_with(ReportStatus::Succeeded, &plan_result(false));
    assert_eq!(world.status(plan), CommandStatus::Succeeded);
    let second = world.store.commands.last().expect("a second stage").clone();
    assert_eq!(second.order.action.as_str(), "app.deploy");
    assert_eq!(second.order.operation, world.store.command(plan).expect("stored").order.operation);
    assert_eq!(second.status, CommandStatus::Running);
    assert_eq!(world.store.leaves(AuditKind::Proposal), 2, "the second stage has its own leaf");
    world.finish_with(ReportStatus::Succeeded, &json!({"verified": true}));
    let [instance] = world.store.apps.as_slice() else { panic!("one app") };
    assert_eq!((instance.app.as_str(), instance.release), ("shop", second.order.operation));
    assert_eq!(instance.result, br#"{"verified":true}"#);
    let removal = world.remove();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(removal), CommandStatus::Succeeded);
    assert!(world.store.apps.is_empty());
}

#[test]
fn what_ends_otherwise_is_listed_as_the_host_has_it() {
    let mut world = World::new();
    world.connect();
    let deployed = |world: &mut World, result: &serde_json::Value| {
        deploy(world, false);
        world.settle();
        world.finish_with(ReportStatus::Succeeded, &plan_result(false));
        world.finish_with(ReportStatus::Succeeded, result);
        world.store.apps.last().expect("an app").release
    };
    // Nothing was to be changed: the host tells which release it has.
    let older = OperationId::from_bytes([0x77; 16]);
    assert_eq!(deployed(&mut world, &json!({ "release": older, "changed": false })), older);
    // Words that are no release are not taken for one.
    assert_ne!(deployed(&mut world, &json!({ "release": "x" })), older);
    // A removal that had stopped half-way was finished by an order that then found nothing.
    world.remove();
    world.settle();
    world.finish_with(ReportStatus::Failed, &json!({ "removal_pending": true }));
    assert!(!world.store.apps.is_empty());
    world.remove();
    world.settle();
    world.finish_with(ReportStatus::Failed, &json!({ "app": "shop", "absent": true }));
    assert!(world.store.apps.is_empty());
}

#[test]
fn a_deploy_waits_for_health_as_long_as_it_was_told() {
    for (within, least) in [(None, None), (Some(90_000), None), (Some(90_000), Some(5_000)), (None, Some(0))] {
        let mut world = World::new();
        world.connect();
        let timing = DeployTiming { healthy_within: within.map(DurationMs), min_healthy: least.map(DurationMs) };
        deploy_timed(&mut world, false, timing);
        world.settle();
        world.finish_with(ReportStatus::Succeeded, &plan_result(false));
        let second = world.store.commands.last().expect("a second stage");
        assert_eq!(second.order.action.as_str(), "app.deploy");
        let parameters: serde_json::Value = serde_json::from_slice(&second.order.parameters).expect("JSON");
        let sent = (parameters.get("timeout_ms").cloned(), parameters.get("min_healthy_ms").cloned());
        assert_eq!(sent, (within.map(|it| json!(it)), least.map(|it| json!(it))), "{parameters}");
        assert_eq!(parameters["spec"]["app"], "shop");
    }
}

#[test]
fn a_plan_that_changes_nothing_or_was_only_asked_for_has_no_second_stage() {
    for (dry_run, unchanged, status) in [
        (true, false, ReportStatus::Succeeded),
        (false, true, ReportStatus::Succeeded),
        (false, false, ReportStatus::Failed),
    ] {
        let mut world = World::new();
        world.connect();
        let plan = deploy(&mut world, dry_run);
        world.settle();
        world.finish_with(status, &plan_result(unchanged));
        assert_eq!(world.status(plan), CommandStatus::from(status));
        assert_eq!(world.store.commands.len(), 1);
    }
}

#[test]
fn a_plan_from_which_no_order_can_be_made_fails_in_words() {
    let mut world = World::new();
    world.connect();
    let plan = deploy(&mut world, false);
    world.settle();
    world.finish_with(ReportStatus::Succeeded, &json!({"images": 7}));
    assert_eq!(world.status(plan), CommandStatus::Failed);
    let message = &world.store.command(plan).expect("stored").message;
    assert!(message.starts_with("the plan succeeded, but it could not be ordered: "), "{message}");
}

#[test]
fn a_report_on_a_command_unknown_here_is_kept_and_acknowledged() {
    let (mut world, _) = with_history();
    let before = world.acknowledged_count;
    let report = forged(&world, |_| {});
    hear(&mut world, report.clone());
    assert!(world.store.has_envelope(&report));
    assert_eq!(world.acknowledged_count, before + 1);
    assert_eq!(world.store.host.last_report.sequence, ReportSequence(2));
    assert_eq!(world.store.leaves(AuditKind::Alarm), 1);
    assert_eq!(world.store.host.standing, HostStanding::Active);
    // And again.
    hear(&mut world, report);
    assert_eq!(world.acknowledged_count, before + 2);
}

#[test]
fn a_report_on_a_command_that_has_ended_changes_only_the_chain() {
    let (mut world, command) = with_history();
    let report = forged(&world, |report| {
        report.command = command;
        report.status = ReportStatus::Failed;
    });
    hear(&mut world, report);
    assert_eq!(world.status(command), CommandStatus::Succeeded);
    assert_eq!(world.store.host.last_report.sequence, ReportSequence(2));
}

#[test]
fn two_reports_in_one_place_are_a_fork() {
    let (mut world, command) = with_history();
    let fork = forged(&world, |report| {
        report.sequence = ReportSequence(1);
        report.previous = Sha256::ZERO;
        report.command = command;
    });
    hear(&mut world, fork);
    assert_eq!(world.closes, [RefusalCode::Quarantined]);
    assert_eq!(world.store.leaves(AuditKind::Fork), 1);
    assert!(matches!(world.store.host.standing, HostStanding::Quarantined { .. }));
}

#[test]
fn an_earlier_place_is_compared_with_what_is_stored() {
    let (mut world, first) = with_history();
    let earlier = world.store.command(first).and_then(|stored| stored.report.clone()).expect("its report");
    world.facts();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    let before = world.acknowledged_count;
    hear(&mut world, earlier);
    assert_eq!(world.acknowledged_count, before + 1, "the same again");
    let fork = forged(&world, |report| {
        report.sequence = ReportSequence(1);
        report.previous = Sha256::ZERO;
        report.command = first;
    });
    hear(&mut world, fork);
    assert_eq!(world.closes, [RefusalCode::Quarantined], "another one is a fork");
}

#[test]
fn a_report_that_does_not_follow_is_a_fork() {
    let (mut world, _) = with_history();
    let report = forged(&world, |report| report.previous = Sha256([9; 32]));
    hear(&mut world, report);
    assert_eq!(world.store.leaves(AuditKind::Fork), 1);
    assert_eq!(world.closes, [RefusalCode::Quarantined]);
}

#[test]
fn a_gap_is_recorded_and_the_report_is_taken() {
    let (mut world, _) = with_history();
    let report = forged(&world, |report| report.sequence = ReportSequence(5));
    hear(&mut world, report);
    assert_eq!(world.store.leaves(AuditKind::ReportGap), 1);
    assert_eq!(world.store.host.last_report.sequence, ReportSequence(5));
    assert!(world.closes.is_empty());
}

#[test]
fn a_report_that_fills_a_gap_ends_its_command_and_leaves_the_chain_where_it_is() {
    let (mut world, _) = with_history();
    let command = world.facts();
    world.settle();
    let ahead = forged(&world, |report| report.sequence = ReportSequence(5));
    hear(&mut world, ahead);
    let seal = world.store.command(command).expect("stored").seals[0].clone();
    let late = forged(&world, |report| {
        (report.command, report.command_sha256, report.command_sequence) =
            (command, seal.payload_sha256, seal.sequence);
        report.sequence = ReportSequence(3);
    });
    let before = world.acknowledged_count;
    hear(&mut world, late);
    assert_eq!(world.status(command), CommandStatus::Succeeded);
    assert_eq!(world.store.host.last_report.sequence, ReportSequence(5));
    assert_eq!(world.acknowledged_count, before + 1);
}

#[test]
fn newer_root_metadata_from_an_agent_is_stored_and_put_into_force() {
    let (mut world, _) = with_history();
    let next = |world: &World, signer: &SigningKey<role::Root>| {
        let mut metadata = world.root.current().clone();
        metadata.version = RootVersion(metadata.version.0 + 1);
        metadata.issued = metadata.issued.plus(ids::DurationMs(1));
        sign_root(&[signer], &metadata)
    };
    let second = next(&world, &world.keys.root);
    let chain = vec![world.root.chain()[0].clone(), second];
    world.tell(Input::Received(AgentFrame::RootChain(chain)));
    world.settle();
    assert_eq!(world.root.version(), RootVersion(2));
    assert_eq!(world.store.leaves(AuditKind::RootChange), 1);
    assert_eq!(world.closes, [RefusalCode::Unavailable], "the next session is judged by it");

    let (mut world, _) = with_history();
    let forged = next(&world, &SigningKey::from_seed(&[0x77; 32]));
    world.tell(Input::Received(AgentFrame::RootChain(vec![forged])));
    world.settle();
    assert_eq!(world.root.version(), RootVersion(1));
    assert_eq!(world.store.leaves(AuditKind::Alarm), 1);
    assert_eq!(world.closes, [RefusalCode::NotAuthentic]);
}

#[test]
fn a_command_sealed_under_a_void_epoch_is_not_asked_for() {
    let (mut world, _) = with_history();
    let command = world.facts();
    world.settle();
    let mut metadata = world.root.current().clone();
    metadata.version = RootVersion(2);
    metadata.issued = metadata.issued.plus(ids::DurationMs(1));
    metadata.epoch = ids::Epoch(2);
    let mut root = envelope::root::TrustedRoot::clone(&world.root);
    root.advance(&sign_root(&[&world.keys.root], &metadata)).expect("it follows");
    world.root = std::sync::Arc::new(root);
    world.tell(Input::RootChanged);
    let delivered = world.delivered_count;
    world.connect();
    assert_eq!(world.delivered_count, delivered);
    assert!(world.session.as_ref().is_some_and(|session| !session.is_closed()), "the session stands");
    assert_eq!(
        world.store.host.root_version,
        RootVersion(2),
        "its proof says that it has stored what it proved itself to"
    );
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(command), CommandStatus::Succeeded, "its host ends it by itself");
}

#[test]
fn the_latest_audit_head_goes_along_with_what_is_sent() {
    let (mut world, _) = with_history();
    let first = world.sign_head();
    world.order("host.facts", "{}");
    world.settle();
    world.finish(ReportStatus::Succeeded);
    let second = world.sign_head();
    world.tell(Input::AuditHead(first));
    world.tell(Input::AuditHead(second));
    assert!(world.to_agent.is_empty(), "it costs an idle host nothing");
    world.facts();
    world.settle();
    let size = world.agent.disk.audit_head.map(|position| position.size);
    assert!(size.is_some(), "the host keeps the newest");
    world.finish(ReportStatus::Succeeded);
    assert!(world.store.host.audit_head.is_some_and(|position| Some(position.size) == size), "and names it");
}

#[test]
fn a_report_on_other_signed_bytes_is_an_alarm_and_no_end() {
    let (mut world, _) = with_history();
    let command = world.facts();
    world.settle();
    let report = forged(&world, |report| report.command = command);
    hear(&mut world, report);
    assert_eq!(world.status(command), CommandStatus::Running);
    assert_eq!(world.store.leaves(AuditKind::Alarm), 1);
    assert_eq!(world.closes, [RefusalCode::Quarantined]);
}

#[test]
fn before_an_alarm_what_is_stored_now_is_asked() {
    let (mut world, _) = with_history();
    let command = world.facts();
    world.settle();
    // An older session's transaction came through after this one had read the queue.
    let allocated_before = world.store.host.allocated;
    let sequence = Sequence(allocated_before.0 + 1);
    let stored = world.store.command(command).expect("stored").seals[0].clone();
    let seal = crate::model::Seal { sequence, payload_sha256: Sha256([7; 32]), ..stored };
    let audit = world.store.audit[0].clone();
    let (host, at) = (HOST, world.now);
    let write = Write::CommandSeal { command, host, allocated_before, seal, at, audit };
    world.store.commands.iter_mut().for_each(|stored| {
        if stored.order.command == command {
            stored.status = CommandStatus::Delivered;
        }
    });
    world.store.apply(write).expect("it is stored");
    let report = forged(&world, |report| {
        (report.command, report.command_sha256, report.command_sequence) = (command, Sha256([7; 32]), sequence);
    });
    hear(&mut world, report);
    assert_eq!(world.status(command), CommandStatus::Succeeded);
    assert_eq!(world.store.leaves(AuditKind::Alarm), 0);
}

#[test]
fn what_is_not_the_hosts_own_word_ends_the_session_and_stores_nothing() {
    let last = |world: &World| -> ReportPosition { world.store.host.last_report };
    let (mut world, _) = with_history();
    let before = last(&world);
    let mut envelope = forged(&world, |_| {});
    let middle = envelope.len() / 2;
    envelope[middle] ^= 1;
    hear(&mut world, envelope);
    assert_eq!((last(&world), world.closes.as_slice()), (before, [RefusalCode::NotAuthentic].as_slice()));
    assert_eq!(world.store.leaves(AuditKind::Alarm), 1);

    let (mut world, _) = with_history();
    let before = last(&world);
    let report = forged(&world, |report| report.host = ids::HostId::from_bytes([2; 16]));
    hear(&mut world, report);
    assert_eq!((last(&world), world.closes.as_slice()), (before, [RefusalCode::NotAuthentic].as_slice()));
}

#[test]
fn frames_that_do_not_belong_here_end_the_session() {
    let (mut world, _) = with_history();
    world.tell(Input::Received(AgentFrame::Hello(Vec::new())));
    assert_eq!(world.closes, [RefusalCode::NotAuthentic]);
}

#[test]
fn progress_is_passed_on_within_its_bounds() {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    world.settle();
    world.events.clear();
    for _ in 0..1_000 {
        world.tell(Input::Received(AgentFrame::Progress { command, text: "é".repeat(10_000) }));
    }
    assert_eq!(world.events.len(), crate::limits::PROGRESS_PER_SECOND_MAX as usize);
    for event in &world.events {
        let crate::ports::Event::Progress { text, .. } = event else { panic!("progress") };
        assert!(text.len() <= crate::limits::PROGRESS_BYTES_MAX + '…'.len_utf8());
    }
    let stranger = CommandId::from_bytes([0xdd; 16]);
    world.pass(ids::DurationMs::from_secs(2));
    world.tell(Input::Received(AgentFrame::Progress { command: stranger, text: "x".to_owned() }));
    assert_eq!(world.events.len(), crate::limits::PROGRESS_PER_SECOND_MAX as usize);
}
