//! What is granted, what is refused and in which words.

use core::cell::Cell;

use envelope::messages::SealedValue;
use ids::{CommandId, DurationMs, HostId, OperationId, Sha256, UnixMs};

use super::*;
use crate::{
    dispatch::tests::fixture::{FLEET, HOST, START, host_record, session_of},
    model::{AppInstance, AppInstanceState, Command, CommandStatus, Host, HostStanding, OperationKind, Principal},
    ports::{AuditRecord, Write},
};

const SPEC: &str = r#"{"app":"shop","services":{"web":{"image":"nginx:1.27","restart":"unless_stopped","environment":{"KEY":{"sealed":"web/environment/KEY"}}}},"networks":{},"volumes":{}}"#;

fn sealed(name: &str) -> SealedValue {
    SealedValue { name: name.to_owned(), bytes: vec![7; 60] }
}

fn action(name: &str, parameters: &str) -> OperationRequest {
    OperationRequest {
        id: OperationId::from_bytes([1; 16]),
        work: Work::Action {
            action: name.parse().expect("an action name"),
            version: None,
            parameters: parameters.as_bytes().to_vec(),
        },
        targets: vec![Target { host: HOST, sealed: Vec::new() }],
        queue_for: None,
        dry_run: false,
        selector: None,
        recovery: None,
    }
}

fn deploy(values: Vec<SealedValue>) -> OperationRequest {
    OperationRequest {
        work: Work::Deploy { spec: SPEC.as_bytes().to_vec(), timing: DeployTiming::default() },
        targets: vec![Target { host: HOST, sealed: values }],
        ..action("host.facts", "{}")
    }
}

fn propose_as(role: UserRole, request: OperationRequest, hosts: &[Host]) -> Result<Proposed, ProposeError> {
    let next = Cell::new(0u8);
    let mut ids = || {
        next.set(next.get() + 1);
        CommandId::from_bytes([next.get(); 16])
    };
    operation_propose(FLEET, Grounds::default(), request, &session_of(role), hosts, START, &mut ids)
}

fn propose(request: OperationRequest) -> Result<Proposed, ProposeError> {
    propose_as(UserRole::Admin, request, &[host_record()])
}

#[track_caller]
fn refused(request: OperationRequest, words: &str) {
    let error = propose(request).expect_err("it is refused").to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn a_granted_action_is_one_queued_command() {
    let proposed = propose(action("host.facts", "{}")).expect("granted");
    let [new] = proposed.commands.as_slice() else { panic!("one command") };
    assert_eq!(proposed.operation.kind, OperationKind::Single);
    assert_eq!(new.order.deliver_by, START.plus(DurationMs::from_mins(10)));
    assert_eq!((new.order.host, new.order.proposed_at, new.order.dry_run), (HOST, START, false));
    assert_eq!(new.order.start_within_ms, DurationMs::from_mins(60).0);
    assert_eq!(new.order.parameters, b"{}");
    let AuditRecord::Inline(record) = &proposed.audit.record else { panic!("words") };
    let record = String::from_utf8(record.clone()).expect("UTF-8");
    assert!(record.contains(&new.order.sha256().to_string()), "the leaf covers the order: {record}");
    assert!(matches!(proposed.into_write(), Write::OperationPropose { .. }));
}

#[test]
fn each_role_may_order_its_classes() {
    let may = |role, request: OperationRequest| propose_as(role, request, &[host_record()]).is_ok();
    let facts = || action("host.facts", "{}");
    let change = || deploy(vec![sealed("web/environment/KEY")]);
    let destroy = || action("app.remove", r#"{"app":"shop"}"#);
    for (role, expected) in [
        (UserRole::Viewer, [true, false, false]),
        (UserRole::Operator, [true, true, false]),
        (UserRole::Admin, [true, true, true]),
    ] {
        assert_eq!([may(role, facts()), may(role, change()), may(role, destroy())], expected, "{role}");
    }
    let error = propose_as(UserRole::Viewer, change(), &[host_record()]).expect_err("refused").to_string();
    assert_eq!(
        error,
        "app.deploy needs the role operator, and this account is viewer; ask an admin to do it or to change the role"
    );
}

#[test]
fn a_deploy_begins_with_its_plan_and_carries_the_sealed_values() {
    let proposed = propose(deploy(vec![sealed("web/environment/KEY")])).expect("granted");
    let [new] = proposed.commands.as_slice() else { panic!("one command") };
    assert_eq!(proposed.operation.kind, OperationKind::Deploy);
    assert_eq!(proposed.operation.detail, SPEC.as_bytes());
    assert_eq!(new.order.action.as_str(), "app.plan");
    assert_eq!(new.app.as_ref().map(|app| app.as_str()), Some("shop"));
    assert_eq!(new.order.sealed.len(), 1);
    assert_eq!(new.order.sealed[0].sha256, ids::sha256(&[7; 60]));
}

/// A plan says whether a value is the one in use, so it would tell a viewer when a guess is right.
#[test]
fn sealed_values_take_an_operator_whatever_the_action() {
    let plan = |values: Vec<SealedValue>, spec: &str| OperationRequest {
        targets: vec![Target { host: HOST, sealed: values }],
        ..action("app.plan", &format!("{{\"spec\":{spec}}}"))
    };
    let as_role = |role, request| propose_as(role, request, &[host_record()]);
    let guess = || plan(vec![sealed("web/environment/KEY")], SPEC);
    assert_eq!(
        as_role(UserRole::Viewer, guess()).expect_err("refused").to_string(),
        "an order with sealed values needs the role operator, and this account is viewer; ask an admin to do it or to change the role"
    );
    assert!(as_role(UserRole::Operator, guess()).is_ok());
    let open = SPEC.replace(r#","environment":{"KEY":{"sealed":"web/environment/KEY"}}"#, "");
    let planned = as_role(UserRole::Viewer, plan(Vec::new(), &open));
    assert!(planned.is_ok(), "without secrets a viewer plans: {:?}", planned.err());
    assert!(as_role(UserRole::Viewer, plan(Vec::new(), SPEC)).is_err(), "and not around them");
}

#[test]
fn sealed_values_must_be_exactly_those_named() {
    refused(deploy(Vec::new()), "web/environment/KEY is missing");
    refused(deploy(vec![sealed("web/environment/KEY"), sealed("web/environment/KEY")]), "is given twice");
    refused(deploy(vec![sealed("web/environment/KEY"), sealed("other")]), "other is not named by the parameters");
    let mut short = sealed("web/environment/KEY");
    short.bytes.truncate(47);
    refused(deploy(vec![short]), "is not a sealed value");
    let mut long = sealed("web/environment/KEY");
    long.bytes = vec![0; crate::limits::SECRET_BYTES_MAX + crate::limits::SEAL_OVERHEAD_BYTES + 1];
    refused(deploy(vec![long]), "is not a sealed value");
}

#[test]
fn what_is_not_a_request_is_refused_by_its_field() {
    refused(action("host.fax", "{}"), "host.fax");
    refused(action("host.facts", r#"{"x":1}"#), "parameters of host.facts");
    refused(OperationRequest { targets: Vec::new(), ..action("host.facts", "{}") }, "hosts: name between 1 and");
    let twice = vec![Target { host: HOST, sealed: Vec::new() }; 2];
    refused(OperationRequest { targets: twice, ..action("host.facts", "{}") }, "host web-1 is named twice");
    let stranger = vec![Target { host: HostId::from_bytes([3; 16]), sealed: Vec::new() }];
    refused(OperationRequest { targets: stranger, ..action("host.facts", "{}") }, "there is no host");
    for span in [DurationMs(0), DurationMs::from_days(31)] {
        refused(OperationRequest { queue_for: Some(span), ..action("host.facts", "{}") }, "queue_for: between");
    }
    refused(
        OperationRequest {
            work: Work::Deploy { spec: b"{".to_vec(), timing: DeployTiming::default() },
            ..action("host.facts", "{}")
        },
        "spec: not JSON",
    );
    let timing = DeployTiming { healthy_within: Some(DurationMs(1)), min_healthy: None };
    let hasty = Work::Deploy { spec: SPEC.as_bytes().to_vec(), timing };
    refused(OperationRequest { work: hasty, ..deploy(vec![sealed("web/environment/KEY")]) }, "healthy_within: between");
}

#[test]
fn a_host_must_be_active_and_have_the_action() {
    let with = |change: &dyn Fn(&mut Host), request: OperationRequest| {
        let mut host = host_record();
        change(&mut host);
        propose_as(UserRole::Admin, request, &[host]).expect_err("refused").to_string()
    };
    let quarantined = |host: &mut Host| host.standing = HostStanding::Quarantined { why: "an old copy".to_owned() };
    assert_eq!(
        with(&quarantined, action("host.facts", "{}")),
        "host web-1 is quarantined (an old copy) and gets no orders; see `serverflow host quarantine list`"
    );
    let revoked = |host: &mut Host| host.standing = HostStanding::Revoked { at: UnixMs(1), is_retired: false };
    assert!(with(&revoked, action("host.facts", "{}")).starts_with("host web-1 is revoked"));
    let lacks = |host: &mut Host| host.actions.retain(|action| action.name.as_str() != "app.deploy");
    assert_eq!(
        with(&lacks, deploy(vec![sealed("web/environment/KEY")])),
        "host web-1 runs agent ?, which cannot do this: it needs app.deploy version 1, and that agent does not have \
         app.deploy; upgrade its agent with the lines of `serverflow host upgrade web-1`, then order it again"
    );
    let unheard = |host: &mut Host| host.actions.clear();
    assert_eq!(
        with(&unheard, action("host.facts", "{}")),
        "host web-1 has not connected yet; start its agent with `serverflow-agent run`, then order it again"
    );
    let differs = |host: &mut Host| host.actions.iter_mut().for_each(|action| action.schema_sha256 = Sha256::ZERO);
    assert!(with(&differs, action("host.facts", "{}")).contains("has host.facts v1 with another schema"));
}

/// A host of a later release: a version of one action that this control plane does not know, beside the others or
/// instead of them.
#[test]
fn a_newer_agent_is_given_what_both_know_and_else_the_control_plane_is_behind() {
    let of_later = |keeps: bool| {
        let mut host = host_record();
        host.agent_version = "9.0.0".to_owned();
        let facts = host.actions.iter().find(|action| action.name.as_str() == "host.facts").expect("it has it").clone();
        host.actions.retain(|action| keeps || action.name != facts.name);
        host.actions.push(session::frames::ActionRef { version: 7, schema_sha256: Sha256::ZERO, ..facts });
        propose_as(UserRole::Admin, action("host.facts", "{}"), &[host])
    };
    assert_eq!(of_later(true).expect("granted").commands[0].order.action_version, 1);
    assert_eq!(
        of_later(false).expect_err("refused").to_string(),
        "host web-1 runs agent 9.0.0, which cannot do this: that agent has host.facts in later versions only (up to \
         7), and this control plane goes up to version 1; upgrade the control plane, then order it again"
    );
}

/// What 0.1.0 had not, and is asked for now.
#[test]
fn an_action_that_an_older_agent_lacks_is_refused_with_what_to_do() {
    let mut host = host_record();
    host.agent_version = "0.1.0".to_owned();
    host.actions.retain(|action| action.name.as_str() != "app.logs.follow");
    let request = action("app.logs.follow", r#"{"app":"shop"}"#);
    assert_eq!(
        propose_as(UserRole::Admin, request, &[host]).expect_err("refused").to_string(),
        "host web-1 runs agent 0.1.0, which cannot do this: it needs app.logs.follow version 1, and that agent does \
         not have app.logs.follow; upgrade its agent with the lines of `serverflow host upgrade web-1`, then order it \
         again"
    );
}

/// What an agent of 0.1.0 says of itself.
fn of_0_1_0(host: &mut Host) {
    host.agent_version = "0.1.0".to_owned();
    host.actions.retain(|action| action.version == 1);
}

#[test]
fn each_host_gets_the_newest_version_that_it_has() {
    let version = |old: bool, request: OperationRequest| {
        let mut host = host_record();
        if old {
            of_0_1_0(&mut host);
        }
        propose_as(UserRole::Admin, request, &[host]).map(|proposed| {
            let order = &proposed.commands[0].order;
            let info = actions::find(&order.action, order.action_version).expect("a known version");
            assert_eq!(order.schema_sha256, info.schema_sha256());
            order.action_version
        })
    };
    let plain = || deploy(vec![sealed("web/environment/KEY")]);
    assert_eq!(version(false, plain()), Ok(2));
    assert_eq!(version(true, plain()), Ok(1));
    let newer = || OperationRequest {
        work: Work::Deploy {
            spec: SPEC.replace(r#""restart""#, r#""hostname":"web","restart""#).into_bytes(),
            timing: DeployTiming::default(),
        },
        ..plain()
    };
    assert_eq!(version(false, newer()), Ok(2));
    assert_eq!(
        version(true, newer()).expect_err("refused").to_string(),
        "host web-1 runs agent 0.1.0, which cannot do this: it needs app.deploy version 2, and that agent goes up to \
         version 1; upgrade its agent with the lines of `serverflow host upgrade web-1`, then order it again"
    );
    let asked = |wanted| {
        let OperationRequest { targets, .. } = plain();
        let parameters = format!("{{\"spec\":{SPEC}}}").into_bytes();
        let action = "app.plan".parse().expect("an action name");
        let work = Work::Action { action, version: Some(wanted), parameters };
        OperationRequest { work, targets, ..plain() }
    };
    assert_eq!(version(false, asked(1)), Ok(1));
    assert_eq!(version(false, asked(2)), Ok(2));
    assert!(version(true, asked(2)).expect_err("refused").to_string().contains("app.plan version 2"));
}

#[test]
fn the_request_hash_tells_requests_apart_and_nothing_else() {
    let hash = |request: OperationRequest| propose(request).expect("granted").operation.request_sha256;
    let base = || action("host.facts", "{}");
    assert_eq!(hash(base()), hash(base()));
    assert_eq!(hash(base()), hash(OperationRequest { queue_for: Some(DurationMs::from_mins(10)), ..base() }));
    let others = [
        OperationRequest { id: OperationId::from_bytes([2; 16]), ..base() },
        OperationRequest { dry_run: true, ..base() },
        OperationRequest { queue_for: Some(DurationMs::from_mins(11)), ..base() },
        action("host.facts", "{ }"),
        action("docker.containers", "{}"),
        deploy(vec![sealed("web/environment/KEY")]),
        deploy(vec![SealedValue { bytes: vec![8; 60], ..sealed("web/environment/KEY") }]),
    ];
    let mut seen = std::collections::BTreeSet::from([hash(base())]);
    for other in others {
        let words = format!("{other:?}");
        assert!(seen.insert(hash(other)), "{words}");
    }
    let other_user = Principal { user: ids::UserId::from_bytes([8; 16]), ..session_of(UserRole::Admin) };
    let mut ids = || CommandId::from_bytes([1; 16]);
    let by_other = operation_propose(FLEET, Grounds::default(), base(), &other_user, &[host_record()], START, &mut ids)
        .expect("granted");
    assert!(seen.insert(by_other.operation.request_sha256), "who asks is part of the request");
}

#[test]
fn an_apps_verbs_act_on_its_instances() {
    let instance = |app: &str, host: u8| AppInstance {
        app: app.parse().expect("an app name"),
        host: HostId::from_bytes([host; 16]),
        host_name: format!("web-{host}").parse().expect("a host name"),
        release: OperationId::from_bytes([1; 16]),
        deployed_at: START,
        state: AppInstanceState::Running,
        result: Vec::new(),
    };
    let instances = [instance("shop", 1), instance("shop", 2), instance("blog", 3)];
    let shop = "shop".parse().expect("an app name");
    let host = |n| HostId::from_bytes([n; 16]);
    assert_eq!(app_targets(&shop, None, &instances), Ok(vec![host(1), host(2)]));
    assert_eq!(app_targets(&shop, Some("web-2"), &instances), Ok(vec![host(2)]));
    let words = |answer: Result<_, AppTargetError>| answer.map(|_: Vec<HostId>| ()).unwrap_err().to_string();
    assert_eq!(
        words(app_targets(&shop, Some("web-3"), &instances)),
        "app shop is not deployed on host web-3; it is on web-1, web-2"
    );
    let none = "none".parse().expect("an app name");
    assert_eq!(words(app_targets(&none, None, &instances)), "no app none is deployed; see `serverflow app list`");
}

#[test]
fn an_operation_is_over_when_all_its_commands_are() {
    use CommandStatus as S;
    assert_eq!(operation_progress([S::Succeeded, S::Running]), OperationProgress::Going);
    assert_eq!(operation_progress([S::Failed, S::Queued]), OperationProgress::Going);
    assert_eq!(operation_progress([S::Succeeded, S::RolledBack]), OperationProgress::EndedOtherwise);
    assert_eq!(operation_progress([S::Succeeded]), OperationProgress::Succeeded);
}

#[test]
fn stopping_a_command_depends_on_how_far_it_is_and_who_asks() {
    let proposed = propose(action("host.facts", "{}")).expect("granted");
    let stored = |status, asked_by: &str| Command {
        order: proposed.commands[0].order.clone(),
        host_name: "web-1".parse().expect("a host name"),
        app: None,
        sealed: Vec::new(),
        approvals: Vec::new(),
        status,
        message: String::new(),
        requested_by: asked_by.parse().expect("a user name"),
        seals: Vec::new(),
        report: None,
        delivered_at: None,
        accepted_at: None,
        started_at: None,
        settled_at: None,
    };
    let cancel = |role, command: &Command| {
        let actor = session_of(role);
        let origin =
            CancelOrigin { fleet: FLEET, operation: OperationId::from_bytes([9; 16]), actor: &actor, now: START };
        command_cancel(origin, command, &host_record(), &mut || CommandId::from_bytes([8; 16]))
    };
    let decided = |role, command: &Command| match cancel(role, command) {
        Ok(CancelDecision::End(_)) => "ended here".to_owned(),
        Ok(CancelDecision::Order(proposed)) => {
            let order = &proposed.commands[0].order;
            let parameters = String::from_utf8(order.parameters.clone()).expect("UTF-8");
            assert!(parameters.contains(&command.order.command.to_string()), "{parameters}");
            format!("ordered {}", order.action)
        }
        Err(error) => error.to_string(),
    };
    let (own, others) = (stored(CommandStatus::Queued, "ada"), stored(CommandStatus::Queued, "bob"));
    assert_eq!(decided(UserRole::Viewer, &own), "ended here");
    assert!(decided(UserRole::Viewer, &others).starts_with("command.cancel needs the role operator"));
    assert_eq!(decided(UserRole::Operator, &others), "ended here");
    for status in [CommandStatus::Delivered, CommandStatus::Accepted, CommandStatus::Running] {
        assert_eq!(decided(UserRole::Operator, &stored(status, "bob")), "ordered command.cancel");
        assert!(decided(UserRole::Viewer, &stored(status, "ada")).starts_with("command.cancel needs the role"));
    }
    let ended = decided(UserRole::Admin, &stored(CommandStatus::Failed, "ada"));
    assert!(ended.ends_with("has ended already: failed"), "{ended}");
    let mut itself = stored(CommandStatus::Running, "ada");
    itself.order.action = "command.cancel".parse().expect("an action name");
    assert!(decided(UserRole::Admin, &itself).ends_with("is a cancellation itself; let it end"));
}
