//! Whose word is taken, and what it does. Each attack is one change to steps that succeed without it.

use envelope::{
    SigningKey,
    messages::{ApprovalThresholds, ReportPosition, RootMetadata},
    root::sign_root,
};
use ids::{CommandId, DurationMs, HostEpoch, Sha256, UserId, sha256};

use super::*;
use crate::{
    dispatch::tests::fixture::{FLEET, HOST, START, host_record, keys, metadata, session_of},
    model::UserRole,
    operation::{Grounds, OperationRequest, Target, Work, operation_next, operation_propose},
};

fn approver_key(n: u8) -> SigningKey<role::Approver> {
    SigningKey::from_seed(&[100 + n; 32])
}

fn user(name: &str, n: u8) -> User {
    User {
        id: UserId::from_bytes([n; 16]),
        name: name.parse().expect("a user name"),
        role: UserRole::Viewer,
        password_hash: String::new(),
        created_at: START,
        disabled_at: None,
        approver: Some((approver_key(n).public(), START)),
    }
}

fn principal(user: &User) -> Principal {
    Principal { user: user.id, user_name: user.name.clone(), ..session_of(UserRole::Viewer) }
}

/// A held `app.remove` that ada asked for, in a fleet in which destruction takes two of three people.
#[derive(Clone)]
struct Scene {
    operation: Operation,
    commands: Vec<Command>,
    hosts: BTreeMap<HostId, Host>,
    root: TrustedRoot,
    now: UnixMs,
}

fn scene() -> Scene {
    scene_with(|_| {})
}

fn scene_with(change: impl FnOnce(&mut RootMetadata)) -> Scene {
    let (keys, host) = (keys(), host_record());
    let mut metadata = metadata(&keys);
    metadata.approver_keys = (0..3).map(|n| approver_key(n).public()).collect();
    metadata.approvals = ApprovalThresholds { change: 0, destructive: 2 };
    change(&mut metadata);
    let root = TrustedRoot::pin_key(&sign_root(&[&keys.root], &metadata), keys.root.public()).expect("valid");
    let request = OperationRequest {
        id: OperationId::from_bytes([1; 16]),
        work: Work::Action {
            action: "app.remove".parse().expect("an action name"),
            version: None,
            parameters: br#"{"app":"shop"}"#.to_vec(),
        },
        targets: vec![Target { host: HOST, sealed: Vec::new() }],
        queue_for: None,
        dry_run: false,
        selector: None,
        recovery: None,
    };
    let requester = Some(approver_key(0).key_id());
    let grounds = Grounds { approvals: root.current().approvals, requester };
    let (ada, mut n) = (session_of(UserRole::Admin), 0);
    let mut ids = || {
        n += 1;
        CommandId::from_bytes([n; 16])
    };
    let proposed = operation_propose(FLEET, grounds, request, &ada, core::slice::from_ref(&host), START, &mut ids)
        .expect("it is granted");
    let plan = stored(&proposed.commands[0], &host);
    assert!(plan.order.dry_run && plan.status == CommandStatus::Queued, "what people are shown comes first");
    let result = serde_json::json!({});
    let next = operation_next(&proposed.operation, &host, &plan, CommandStatus::Succeeded, &result, START, &mut ids);
    let next = next.expect("it can be ordered");
    assert_eq!(next.len(), 1);
    let commands = vec![plan, stored(&next[0], &host)];
    Scene { operation: proposed.operation, commands, hosts: BTreeMap::from([(HOST, host)]), root, now: START }
}

/// The next version, which asks for nobody.
fn lowered(metadata: &RootMetadata) -> RootMetadata {
    let version = metadata.version.next().expect("a version");
    RootMetadata { version, approvals: ApprovalThresholds::default(), ..metadata.clone() }
}

fn stored(new: &crate::model::NewCommand, host: &Host) -> Command {
    Command {
        order: new.order.clone(),
        host_name: host.name.clone(),
        app: new.app.clone(),
        sealed: new.sealed.clone(),
        approvals: Vec::new(),
        status: if new.held.is_some() { CommandStatus::Held } else { CommandStatus::Queued },
        message: new.held.clone().unwrap_or_default(),
        requested_by: "ada".parse().expect("a user name"),
        seals: Vec::new(),
        report: None,
        delivered_at: None,
        accepted_at: None,
        started_at: None,
        settled_at: None,
    }
}

impl Scene {
    fn held(&self) -> &Command {
        held(&self.commands).next().expect("something is held")
    }

    fn matter(&self) -> Matter<'_> {
        let Self { operation, commands, hosts, root, now } = self;
        Matter { operation, commands, hosts, root, now: *now }
    }

    fn approval(&self) -> Approval {
        let order = &self.held().order;
        Approval {
            fleet: order.fleet,
            host: order.host,
            host_epoch: HostEpoch(1),
            operation: order.operation,
            action: order.action.clone(),
            action_version: order.action_version,
            parameters_sha256: sha256(&order.parameters),
            sealed: order.sealed.clone(),
            plan_sha256: Sha256([7; 32]),
            bind_plan: true,
            approved_at: START,
            expires: START.plus(DurationMs::from_days(1)),
        }
    }

    /// What becomes of these approvals when that person brings them; the scene goes on with them.
    fn approve(&mut self, user: &User, envelopes: Vec<Vec<u8>>) -> Result<Option<String>, String> {
        let write = approve(&self.matter(), &principal(user), user, envelopes).map_err(|error| error.to_string())?;
        let Write::CommandsApprove(approved) = write else { panic!("another write") };
        assert_eq!(approved.audit.len(), approved.commands.len());
        let Endorsed { command, envelope, stored_before, message } = approved.commands[0].clone();
        let held = self.commands.iter_mut().find(|stored| stored.order.command == command).expect("it is there");
        assert_eq!(stored_before, held.approvals.len());
        held.approvals.push(envelope);
        if message.is_none() {
            held.status = CommandStatus::Queued;
        }
        Ok(message)
    }
}

fn signed(n: u8, approval: &Approval) -> Vec<Vec<u8>> {
    vec![approver_key(n).sign(approval).into_envelope()]
}

#[test]
fn what_needs_people_is_planned_held_and_queued_when_enough_agreed() {
    let mut scene = scene();
    assert_eq!((scene.operation.approvals, scene.operation.queue_for_ms), (2, 86_400_000));
    let held = scene.held();
    assert!(!held.order.dry_run && held.order.requester == Some(approver_key(0).key_id()));
    assert!(held.message.starts_with("0 of 2 approvals; ask an approver to run `serverflow approval approve "));
    assert_eq!(held.order.parameters, scene.commands[0].order.parameters);
    let approval = scene.approval();
    let message = scene.approve(&user("bob", 1), signed(1, &approval)).expect("it is taken").expect("one more");
    assert!(message.starts_with("1 of 2 approvals"), "{message}");
    assert_eq!(scene.approve(&user("eve", 2), signed(2, &approval)), Ok(None));
    let nothing = scene.approve(&user("eve", 2), signed(2, &approval)).expect_err("nothing is held any more");
    assert!(nothing.contains("nothing of operation"), "{nothing}");
}

#[test]
fn what_needs_nobody_is_as_it_was() {
    let request = |dry_run| OperationRequest {
        id: OperationId::from_bytes([1; 16]),
        work: Work::Action {
            action: "app.remove".parse().expect("an action name"),
            version: None,
            parameters: br#"{"app":"shop"}"#.to_vec(),
        },
        targets: vec![Target { host: HOST, sealed: Vec::new() }],
        queue_for: None,
        dry_run,
        selector: None,
        recovery: None,
    };
    let propose = |approvals, dry_run| {
        let grounds = Grounds { approvals, requester: None };
        let (ada, mut id) = (session_of(UserRole::Admin), || CommandId::from_bytes([1; 16]));
        let proposed = operation_propose(FLEET, grounds, request(dry_run), &ada, &[host_record()], START, &mut id)
            .expect("granted");
        (proposed.operation.approvals, proposed.operation.queue_for_ms, proposed.commands[0].order.dry_run)
    };
    let change_only = ApprovalThresholds { change: 2, destructive: 0 };
    assert_eq!(propose(change_only, false), (0, 600_000, false));
    let destructive = ApprovalThresholds { change: 0, destructive: 2 };
    assert_eq!(propose(destructive, true), (0, 600_000, true), "a dry run changes nothing");
    assert_eq!(propose(destructive, false), (2, 86_400_000, true));
}

/// The steps with the change are refused in those words; without it they succeed.
#[track_caller]
fn attack(words: &str, change: impl Fn(&mut Scene, &mut User, &mut Vec<Vec<u8>>)) {
    for attacked in [true, false] {
        let mut scene = scene();
        let (mut bob, mut envelopes) = (user("bob", 1), signed(1, &scene.approval()));
        if attacked {
            change(&mut scene, &mut bob, &mut envelopes);
        }
        let said = scene.approve(&bob, envelopes);
        match attacked {
            true => {
                let said = said.expect_err("it is refused");
                assert!(said.contains(words), "{said}");
            }
            false => assert!(said.is_ok(), "{said:?}"),
        }
    }
}

#[test]
fn an_own_approval_is_not_taken() {
    // By the account's name, whatever key it has by now.
    attack("whoever asks cannot approve it", |_, bob, _| bob.name = "ada".parse().expect("a name"));
    // By the key in the order, whoever has it by now.
    attack("is the requester's own", |scene, bob, envelopes| {
        bob.approver = Some((approver_key(0).public(), START));
        *envelopes = signed(0, &scene.approval());
    });
}

#[test]
fn only_the_own_key_counts_and_only_while_root_metadata_lists_it() {
    attack("has no approver key", |_, bob, _| bob.approver = None);
    attack("is not in the fleet's root metadata", |scene, bob, envelopes| {
        bob.approver = Some((approver_key(9).public(), START));
        *envelopes = signed(9, &scene.approval());
    });
    attack("is not in the fleet's root metadata", |scene, _, _| {
        *scene = scene_with(|root| root.approver_keys = vec![approver_key(0).public(), approver_key(2).public()]);
    });
    attack("does not verify under your approver key", |scene, _, envelopes| *envelopes = signed(2, &scene.approval()));
}

#[test]
fn an_edited_approval_is_not_taken() {
    attack("does not verify", |_, _, envelopes| {
        let last = envelopes[0].len() - 1;
        envelopes[0][last] ^= 1;
    });
    let edited = |change: fn(&mut Approval), words: &str| {
        attack(words, move |scene, _, envelopes| {
            let mut approval = scene.approval();
            change(&mut approval);
            *envelopes = signed(1, &approval);
        });
    };
    edited(|it| it.fleet = ids::FleetId::from_bytes([9; 16]), "another fleet");
    edited(|it| it.host = HostId::from_bytes([9; 16]), "for that host waits");
    edited(|it| it.host_epoch = HostEpoch(2), "another epoch of the host");
    edited(|it| it.operation = OperationId::from_bytes([9; 16]), "another operation");
    edited(|it| it.action = "app.deploy".parse().expect("a name"), "another action");
    edited(|it| it.action_version += 1, "another version of the action");
    edited(|it| it.parameters_sha256 = Sha256([9; 32]), "another parameters");
    edited(
        |it| {
            it.sealed =
                vec![envelope::messages::SealedRef { name: "web/environment/KEY".to_owned(), sha256: Sha256([9; 32]) }]
        },
        "another sealed values",
    );
}

#[test]
fn an_expired_approval_is_not_taken() {
    attack("expired", |scene, _, _| scene.now = START.plus(DurationMs::from_days(2)));
}

#[test]
fn one_person_counts_once() {
    attack("you have approved this for host web-1 already", |scene, bob, envelopes| {
        let other =
            Approval { plan_sha256: Sha256([7; 32]), approved_at: START.plus(DurationMs(1)), ..scene.approval() };
        scene.approve(&bob.clone(), signed(1, &other)).expect("the first is taken");
        assert!(!envelopes.is_empty());
    });
    attack("there is one for host web-1 already", |_, _, envelopes| envelopes.push(envelopes[0].clone()));
}

#[test]
fn two_that_are_bound_to_different_plans_are_not_both_taken() {
    attack("bound to different plans", |scene, _, _| {
        let other = Approval { plan_sha256: Sha256([8; 32]), ..scene.approval() };
        scene.approve(&user("eve", 2), signed(2, &other)).expect("the first is taken");
    });
    // One that is not bound goes with any.
    let mut scene = scene();
    let unbound = Approval { plan_sha256: Sha256([8; 32]), bind_plan: false, ..scene.approval() };
    scene.approve(&user("eve", 2), signed(2, &unbound)).expect("the first is taken");
    assert_eq!(scene.approve(&user("bob", 1), signed(1, &scene.approval())), Ok(None));
}

/// Who had a say when the first approval came may have none when the last does.
#[test]
fn an_approval_by_a_key_that_was_dropped_meanwhile_does_not_count() {
    let mut scene = scene();
    scene.approve(&user("eve", 2), signed(2, &scene.approval())).expect("the first is taken");
    scene.root = scene_with(|root| root.approver_keys.truncate(2)).root;
    let message = scene.approve(&user("bob", 1), signed(1, &scene.approval())).expect("it is taken");
    assert!(message.expect("one is missing").starts_with("1 of 2 approvals"));
}

#[test]
fn what_root_metadata_asks_for_now_counts_if_it_is_more() {
    let mut scene = scene();
    scene.root = scene_with(|root| root.approvals.destructive = 3).root;
    assert_eq!(needed(&scene.operation, &scene.held().order, &scene.root), 3);
    let mut less = TrustedRoot::clone(&scene.root);
    less.advance(&sign_root(&[&keys().root], &lowered(scene.root.current()))).expect("the next version");
    scene.root = less;
    assert_eq!(needed(&scene.operation, &scene.held().order, &scene.root), 2, "it was proposed as needing two");
    assert_eq!(needed(&scene.operation, &scene.commands[0].order, &scene.root), 0, "a dry run");
    assert_eq!(host_record().last_report, ReportPosition::START);
}

#[test]
fn an_approver_may_deny_and_nobody_else() {
    let scene = scene();
    let deny = |scene: &Scene, user: &User, because: &str| deny(&scene.matter(), &principal(user), user, because);
    let Ok(Write::CommandsDeny { commands, message, audit, .. }) = deny(&scene, &user("bob", 1), " not on a Friday ")
    else {
        panic!("an approver may")
    };
    assert_eq!(commands, [scene.held().order.command]);
    assert_eq!(message, "denied by bob: not on a Friday");
    assert_eq!(audit.kind, envelope::audit::AuditKind::ApprovalDenied);
    for (user, because, words) in [
        (user("ada", 0), "", "whoever asks cannot approve it"),
        (user("mallory", 9), "", "is not in the fleet's root metadata"),
        (User { approver: None, ..user("bob", 1) }, "", "has no approver key"),
        (user("bob", 1), "a\u{1b}[2Jb", "because: "),
        (user("bob", 1), &"x".repeat(501), "because: "),
    ] {
        let said = deny(&scene, &user, because).expect_err("it is refused").to_string();
        assert!(said.contains(words), "{said}");
    }
}
