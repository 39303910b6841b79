//! Values are opened where they belong and nowhere else; time limits and panics become ends.

use std::{collections::BTreeMap, path::PathBuf};

use actions::outcome::OutcomeStatus;
use envelope::{
    keys::{SigningKey, role},
    messages::{Command, SealedRef},
    seal::{SealingSecretKey, seal},
    verify,
};
use host::EngineConfig;
use ids::{Epoch, FleetId, HostEpoch, HostId, Nonce, OperationId, Sequence, UnixMs, sha256};
use rand::{rand_core::UnwrapErr, rngs::SysRng};
use serde_json::json;

use super::*;

const FLEET: FleetId = FleetId::from_bytes([1; 16]);
const HOST: HostId = HostId::from_bytes([2; 16]);
const OPERATION: OperationId = OperationId::from_bytes([4; 16]);
const NAME: &str = "web/environment/PASSWORD";

/// A plan of one service with one sealed variable: needs Docker, which is not there.
fn parameters() -> String {
    let web = json!({
        "image": "sample:1",
        "restart": "no",
        "environment": { "PASSWORD": { "sealed": NAME } },
    });
    json!({ "spec": { "app": "shop", "services": { "web": web }, "networks": {}, "volumes": {} } }).to_string()
}

fn start(action: &str, parameters: &str, sealed: Vec<SealedValue>) -> StartCommand {
    let order = Order {
        fleet: FLEET,
        host: HOST,
        command: CommandId::from_bytes([3; 16]),
        operation: OPERATION,
        proposed_at: UnixMs(0),
        deliver_by: UnixMs(1),
        start_within_ms: 1,
        action: action.parse().expect("an action's name"),
        action_version: 1,
        schema_sha256: sha256(b""),
        parameters: parameters.as_bytes().to_vec(),
        sealed: sealed.iter().map(|it| SealedRef { name: it.name.clone(), sha256: sha256(&it.bytes) }).collect(),
        requester: None,
        dry_run: false,
    };
    let key = SigningKey::<role::Command>::from_seed(&[5; 32]);
    let command = Command {
        order,
        host_epoch: HostEpoch(1),
        epoch: Epoch(1),
        sequence: Sequence(1),
        nonce: Nonce([6; 16]),
        issued: UnixMs(0),
        not_before: UnixMs(0),
        expires: UnixMs(1),
    };
    let command = verify(&key.sign(&command).into_envelope(), &[key.verifying()]).expect("just signed");
    StartCommand { command, sealed, resumed: false, backwards_only: false, cancelled: false, plan: None }
}

async fn tools(directory: &tempfile::TempDir) -> Tools {
    let opened = Journal::open(&directory.path().join("journal.db")).await.expect("a journal");
    let socket = Some(PathBuf::from("/nonexistent/docker.sock"));
    let engine = Engine::new(EngineConfig { socket, fleet: FLEET, host: HOST }).expect("an absolute path");
    let sealing = SealingKeys::new(vec![SealingSecretKey::from_bytes(&[7; 32])]);
    Tools { engine, journal: opened.journal, sealing, fingerprint_key: Zeroizing::new([8; 32]) }
}

fn port(
    tools: Tools,
    events: mpsc::Sender<ExecutorEvent>,
    cancelled: watch::Receiver<bool>,
    masker: Arc<Masker>,
    output: Arc<SharedOutput>,
) -> HostPort {
    let (engine, journal) = (tools.engine.clone(), tools.journal.clone());
    let order = start("host.facts", "{}", Vec::new()).command.order.clone();
    let known = Known { tools: Arc::new(tools), order, app: None };
    let (stream, lease, logs) = (Arc::default(), watch::channel(Lease::first()).1, SelectAll::new());
    HostPort { engine, journal, events, cancelled, masker, output, known, stream, lease, logs }
}

fn sealed_for(app: &str, plaintext: &[u8]) -> Vec<SealedValue> {
    let to = SealingSecretKey::from_bytes(&[7; 32]).public();
    let context = SealContext { fleet: FLEET, host: HOST, app, name: NAME, version: OPERATION };
    let mut random = UnwrapErr(SysRng);
    vec![SealedValue { name: NAME.to_owned(), bytes: seal(&to, &context, plaintext, &mut random).expect("sealed") }]
}

async fn opened(sealed: Vec<SealedValue>) -> Result<BTreeMap<SecretName, Zeroizing<String>>, OpenError> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let start = start("app.plan", &parameters(), sealed);
    let order = &start.command.order;
    let request = Request::decode(&order.action, 1, &order.parameters).expect("proper parameters");
    Ok(context(&start, &request, &tools(&directory).await, Policy::refuse_all())?.secrets)
}

#[tokio::test]
async fn a_value_is_opened_for_its_app_and_no_other() {
    let secrets = opened(sealed_for("shop", b"hunter22")).await.expect("opened");
    assert_eq!(secrets.values().map(|it| it.as_str()).collect::<Vec<_>>(), ["hunter22"]);
    let moved = opened(sealed_for("blog", b"hunter22")).await.expect_err("refused");
    assert!(matches!(&moved, OpenError::Seal(SealError::Open { name }) if name == NAME), "{moved:?}");
    let binary = opened(sealed_for("shop", &[0xff])).await.expect_err("refused");
    assert!(binary.to_string().contains("not text"), "{binary}");
}

#[tokio::test]
async fn a_value_that_is_not_the_orders_own_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut start = start("app.plan", &parameters(), sealed_for("shop", b"hunter22"));
    start.sealed = sealed_for("shop", b"hunter23");
    let (mut executor, _pieces) = Executor::new(tools(&directory).await);
    executor.start(start, Policy::refuse_all());
    let end = end_of(&mut executor).await;
    assert_eq!(end.status, ReportStatus::Failed);
    assert!(text(&end).contains("a hash differs") && text(&end).contains("nothing was done"), "{}", text(&end));
}

/// Reading logs brings no values, but the containers it reads from know theirs.
#[tokio::test]
async fn what_the_running_release_knows_is_masked_in_what_brings_no_values() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tools = tools(&directory).await;
    let record = json!({
        "version": 1, "app": "shop", "current": OPERATION, "releases": [], "pending": null, "last_end": null,
    });
    // What the message of a missing Docker says anyway stands for what a container writes.
    let sealed: BTreeMap<String, String> = sealed_for("shop", b"/nonexistent/docker.sock")
        .into_iter()
        .map(|value| (value.name, data_encoding::BASE64.encode(&value.bytes)))
        .collect();
    let release = json!({
        "version": 1, "release": OPERATION, "command": CommandId::from_bytes([9; 16]), "created_at": 0,
        "spec": serde_json::from_str::<Value>(&parameters()).expect("JSON")["spec"],
        "images": {}, "fingerprints": {}, "sealed": sealed,
    });
    let app = "shop".parse().expect("an app's name");
    let id = actions::release::release_of(OPERATION);
    for (key, record) in [(actions::release::app_key(&app), record), (actions::release::release_key(&app, id), release)]
    {
        tools.journal.record_write(&key, Some(record.to_string().into_bytes())).await.expect("written");
    }
    let (mut executor, _pieces) = Executor::new(tools);
    executor.start(start("app.logs", r#"{"app":"shop"}"#, Vec::new()), Policy::refuse_all());
    let end = end_of(&mut executor).await;
    assert!(!text(&end).contains("/nonexistent/docker.sock") && text(&end).contains("***"), "{}", text(&end));
    assert!(text(&end).contains("shop"), "the app's name stays readable: {}", text(&end));
}

async fn end_of(executor: &mut Executor) -> End {
    loop {
        if let ExecutorEvent::Finished { end, .. } = executor.next().await {
            return end;
        }
    }
}

fn text(end: &End) -> String {
    String::from_utf8(end.result.clone()).expect("text")
}

#[tokio::test]
async fn a_read_without_docker_ends_in_words_and_frees_its_place() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (mut executor, _pieces) = Executor::new(tools(&directory).await);
    executor.start(start("docker.containers", "{}", Vec::new()), Policy::refuse_all());
    assert_eq!(executor.running(), [CommandId::from_bytes([3; 16])]);
    let end = end_of(&mut executor).await;
    assert_eq!(end.status, ReportStatus::Failed);
    assert!(text(&end).contains("/nonexistent/docker.sock"), "{}", text(&end));
    assert_eq!(executor.running(), []);
}

#[tokio::test]
async fn a_panic_ends_one_command_in_words() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (mut executor, _pieces) = Executor::new(tools(&directory).await);
    let command = CommandId::from_bytes([3; 16]);
    for (reads_only, status, says) in
        [(true, ReportStatus::Failed, "nothing was changed"), (false, ReportStatus::Unknown, "look at the host")]
    {
        let id = executor.tasks.spawn(async { panic!("a defect") }).id();
        executor.running.insert(id, Running { command, action: "app.deploy".to_owned(), reads_only });
        let end = end_of(&mut executor).await;
        assert_eq!(end.status, status);
        assert!(text(&end).contains(says) && text(&end).contains("defect in ServerFlow"), "{}", text(&end));
    }
    assert!(executor.running.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_action_that_does_not_end_is_stopped_at_its_hard_limit() {
    let (events, _heard) = mpsc::channel(1);
    let began = tokio::time::Instant::now();
    let command = CommandId::from_bytes([3; 16]);
    let limit = DurationMs::from_mins(65);
    let outcome = watched(std::future::pending(), limit, &SharedOutput::default(), command, &events).await;
    assert!(outcome.is_none());
    assert_eq!(began.elapsed(), Duration::from_millis(limit.0));

    let request = |action: &str, parameters: &str| {
        let start = start(action, parameters, Vec::new());
        Request::decode(&start.command.order.action, 1, parameters.as_bytes()).expect("proper parameters")
    };
    let read = request("host.facts", "{}");
    assert_eq!(hard_limit(&read), read.info().timeout, "reading is stopped at once");
    let change = request("app.remove", r#"{"app":"shop"}"#);
    assert_eq!(hard_limit(&change).0, change.info().timeout.0 + limits::TIMEOUT_MARGIN.0);
    let end = text(&timed_out(&change));
    assert!(end.contains("put back before the next change"), "{end}");
    assert!(end.contains(r#""result":{"app":"shop","changed":true,"rollback_pending":true}"#), "{end}");
}

#[tokio::test(start_paused = true)]
async fn what_it_says_is_masked_gathered_and_hashed() {
    let (events, mut heard) = mpsc::channel(16);
    let (output, command) = (Arc::new(SharedOutput::default()), CommandId::from_bytes([3; 16]));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tools = tools(&directory).await;
    let (_cancel, cancelled) = watch::channel(false);
    let masker = Arc::new(Masker::new(["hunter22"]));
    let mut port = port(tools, events.clone(), cancelled, masker, output.clone());
    let run = async {
        use actions::port::ActionPort as _;
        port.progress("using hunter22".to_owned());
        port.progress("second".to_owned());
        port.wait(DurationMs(1_000)).await;
        port.progress("third".to_owned());
        Outcome { status: OutcomeStatus::Succeeded, message: String::new(), result: Value::Null }
    };
    watched(run, DurationMs(10_000), &output, command, &events).await.expect("ended by itself");
    hand_on(&output, command, &events).await;
    let mut pieces = Vec::new();
    while let Ok(ExecutorEvent::Progress { text, .. }) = heard.try_recv() {
        pieces.push(text);
    }
    assert_eq!(pieces, ["using ***\nsecond\n", "third\n"]);
    assert_eq!(output.lock().finish(), (sha256(pieces.concat().as_bytes()), false));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_a_cancel_and_one_begun_later_lasts() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tools = tools(&directory).await;
    let (events, _heard) = mpsc::channel(1);
    let (cancel, cancelled) = watch::channel(false);
    let (masker, output) = (Arc::new(Masker::default()), Arc::new(SharedOutput::default()));
    let mut port = port(tools, events, cancelled, masker, output);
    use actions::port::ActionPort as _;
    let began = tokio::time::Instant::now();
    tokio::join!(port.wait(DurationMs(60_000)), async {
        sleep(Duration::from_secs(2)).await;
        cancel.send_replace(true);
    });
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    assert!(port.is_cancelled());
    port.wait(DurationMs(5_000)).await;
    assert_eq!(began.elapsed(), Duration::from_secs(7), "putting things back waits too");
}

/// What its dry run reports, which is what an approver is shown and what the approval names.
async fn plan_of(tools: Tools, action: &str, parameters: &str) -> ids::Sha256 {
    let (mut executor, _pieces) = Executor::new(tools);
    let mut dry = start(action, parameters, Vec::new());
    let mut command = dry.command.clone().into_value();
    command.order.dry_run = true;
    let key = SigningKey::<role::Command>::from_seed(&[5; 32]);
    dry.command = verify(&key.sign(&command).into_envelope(), &[key.verifying()]).expect("just signed");
    executor.start(dry, Policy::refuse_all());
    let end = end_of(&mut executor).await;
    assert_eq!(end.status, ReportStatus::Succeeded, "{}", text(&end));
    sha256(&end.result)
}

#[tokio::test]
async fn what_was_approved_is_what_happens_or_nothing_does() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let plan = plan_of(tools(&directory).await, "host.facts", "{}").await;
    let other = ids::Sha256([9; 32]);
    let command = CommandId::from_bytes([3; 16]);
    // Plan approved; resumed; only back; checked before; and whether it runs.
    let cases = [
        (Some(plan), false, false, false, true),
        (Some(other), false, false, false, false),
        (Some(other), true, false, false, false),
        (Some(other), true, false, true, true),
        (Some(other), true, true, false, true),
        (None, false, false, false, true),
    ];
    for (approved, resumed, backwards_only, checked, runs) in cases {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let tools = tools(&directory).await;
        let (journal, key) = (tools.journal.clone(), journal::plan_key(command));
        if checked {
            journal.record_write(&key, Some(vec![1])).await.expect("written");
        }
        let (mut executor, _pieces) = Executor::new(tools);
        let mut start = start("host.facts", "{}", Vec::new());
        (start.plan, start.resumed, start.backwards_only) = (approved, resumed, backwards_only);
        executor.start(start, Policy::refuse_all());
        let end = end_of(&mut executor).await;
        if runs {
            assert_eq!(end.status, ReportStatus::Succeeded, "{}", text(&end));
            assert_ne!(sha256(&end.result), plan, "it ran, and did not only plan");
        } else {
            assert_eq!(end.status, ReportStatus::Rejected);
            assert!(text(&end).contains("approvals: the plan changed since it was approved"), "{}", text(&end));
        }
        let kept = journal.record_read(&key).await.expect("read").is_some();
        assert_eq!(kept, runs && approved.is_some() && !backwards_only, "that it came to the plan outlives a crash");
    }
}
