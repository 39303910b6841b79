//! Standing orders with the real programs: from the request to what the host says of them, through a change of the command
//! key and of the host's keys, and against somebody who has the control plane's keys.

use std::fs;

use data_encoding::BASE64;
use e2e::{
    cli::Ran,
    evil::{Evil, EvilStream, Stolen, opened},
    fleet::{Fleet, Host, text_of},
    stranger::{identity_of, now},
    wait::{wait_for, wait_until},
};
use envelope::{
    keys::{VerifyingKey, role},
    messages::{Command, Report, ReportStatus, StandingOrder},
    standing::shown,
    verify,
};
use ids::{CommandId, DurationMs, Epoch, HostEpoch, Nonce, OperationId, Revision, Sequence, sha256};
use serde_json::{Value, json};
use wire::v1::agent_frame::Frame as FromAgent;

const INSTALL_SCHEMA: &[u8] = include_bytes!("../../../crates/actions/src/standing_install/schema.v1.json");
const RENEW_SCHEMA: &[u8] = include_bytes!("../../../crates/actions/src/standing_renew/schema.v1.json");

/// `host.facts` every night, on that host; answers the standing order's id.
fn installed(fleet: &Fleet, host: &str) -> String {
    let before = listed(fleet);
    let words =
        ["standing", "install", "host.facts", "--host", host, "--schedule", "30 3 * * *", "--zone", "Europe/Zurich"];
    fleet.cli(&words).ok().says("is installed");
    let is_new = |order: &&Value| before.iter().all(|known| known["standing_order_id"] != order["standing_order_id"]);
    text_of(listed(fleet).iter().find(is_new).expect("a new one"), "standing_order_id")
}

fn listed(fleet: &Fleet) -> Vec<Value> {
    fleet.cli(&["standing", "list", "--json"]).ok().json().as_array().expect("a list").clone()
}

/// What the control plane says of the only one.
fn only(fleet: &Fleet) -> Value {
    let mut all = listed(fleet);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

/// What the host says that it keeps.
fn kept(host: &Host) -> Vec<Value> {
    let status: Value = host.verb(&["status", "--json"]).json();
    status["last"]["standing"].as_array().cloned().unwrap_or_default()
}

/// Until the host keeps so many, and none of them is held up.
fn wait_kept(host: &Host, count: usize) {
    wait_until("the host says that it keeps them", || {
        let kept = kept(host);
        kept.len() == count && kept.iter().all(|order| order["hindrance"].is_null())
    });
}

fn key(fleet: &Fleet, words: &[&str]) -> Ran {
    fs::write(fleet.path("passphrase"), text_of(&fleet.init, "root_passphrase")).expect("written");
    let root_key = fleet.data("root.key.pem");
    let root_key = root_key.to_str().expect("UTF-8");
    let signing = ["--key", root_key, "--passphrase-file", "passphrase", "--yes", "--json"];
    fleet.cli(&[&["key"], words, &signing].concat())
}

#[test]
fn what_stands_is_signed_anew_before_its_key_goes() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    let id = installed(&fleet, "local");
    wait_kept(&host, 1);
    host.verb(&["status"]).ok().says(&id).says("host.facts at \"30 3 * * *\" (Europe/Zurich)");
    let first = only(&fleet);
    assert_eq!(
        (&first["state"], &first["outdated"], &first["revision"]),
        (&json!("installed"), &json!(false), &json!(1))
    );
    host.kill_9();
    host.start();
    wait_kept(&host, 1);

    // Another command key: the old one goes only when the host has the order under the new one.
    let done = key(&fleet, &["rotate", "command", "--wait", "2m"]).ok().json();
    assert_eq!((&done["done"], &done["change"]["state"]), (&json!(true), &json!("retired")), "{done:#}");
    let renewed = only(&fleet);
    assert_eq!(renewed["outdated"], json!(false), "{renewed:#}");
    assert!(renewed["signed_by"] != first["signed_by"] && renewed["revision"].as_u64() > Some(1), "{renewed:#}");
    wait_kept(&host, 1);

    // Other keys of the host: what was signed for its epoch before is void, and signed anew by itself.
    fleet.cli(&["key", "rotate", "agent", "local"]).ok();
    wait_until("it is signed for the host's new keys", || {
        let order = only(&fleet);
        order["outdated"] == json!(false) && order["revision"].as_u64() > renewed["revision"].as_u64()
    });
    wait_kept(&host, 1);

    // A stolen key is shut out at once; what it signed runs no more, until it is signed by the next.
    let stolen = text_of(&done["change"], "new_key");
    key(&fleet, &["revoke", "command", &stolen, "--emergency"]).ok();
    wait_until("it is signed in the new epoch", || only(&fleet)["outdated"] == json!(false));
    wait_kept(&host, 1);

    fleet.cli(&["standing", "drop", "local", &id]).ok().says("is dropped");
    wait_until("the host keeps none", || kept(&host).is_empty());
    assert_eq!(only(&fleet)["state"], "dropped");
    let verdict = fleet.cli(&["audit", "verify", "--json"]).ok().json();
    assert_eq!(verdict["verified"], true, "{verdict:#}");
    let entries = fleet.cli(&["audit", "list", "--kind", "standing-order", "--json"]).ok().json();
    assert!(entries.as_array().is_some_and(|entries| entries.len() >= 4), "{entries:#}");
}

/// The order that brought it, and the standing order itself.
fn captured(fleet: &Fleet, stolen: &Stolen) -> (Command, Vec<u8>) {
    let id = text_of(&fleet.commands("standing.install")[0], "command_id");
    let order = fleet.command(&id)["orders"][0].clone();
    let bytes = BASE64.decode(text_of(&order, "envelope").as_bytes()).expect("base64");
    let command = opened(stolen, &bytes).1;
    let parameters: Value = serde_json::from_slice(&command.order.parameters).expect("JSON");
    let standing = BASE64.decode(text_of(&parameters, "order").as_bytes()).expect("base64");
    (command, standing)
}

/// Everything that is right about an order that brings this one, except the order itself.
fn bringing(like: &Command, action: &str, operation: OperationId, standing: &[u8], sequence: u64) -> Command {
    let now = now();
    let mut command = like.clone();
    command.order.command = CommandId::new_v7(now, *keyfile::random::<10>().expect("randomness"));
    command.order.operation = operation;
    command.order.action = action.parse().expect("a name");
    command.order.schema_sha256 = sha256(if action == "standing.renew" { RENEW_SCHEMA } else { INSTALL_SCHEMA });
    command.order.parameters = json!({ "order": BASE64.encode(standing) }).to_string().into_bytes();
    command.order.proposed_at = now;
    command.order.deliver_by = now.plus(DurationMs::from_mins(10));
    command.sequence = Sequence(sequence);
    command.nonce = Nonce(*keyfile::random::<16>().expect("randomness"));
    command.issued = now;
    command.not_before = now;
    command.expires = now.plus(DurationMs::from_mins(5));
    command
}

/// The end of an order that is given in this stream.
fn ends(stream: &mut EvilStream, host: &Host, stolen: &Stolen, order: &Command) -> (ReportStatus, String) {
    stream.deliver(&stolen.command.sign(order).into_envelope());
    let key: VerifyingKey<role::Agent> = identity_of(host).verifying();
    loop {
        match stream.receive().expect("the session stays open") {
            FromAgent::Report(bytes) => {
                let report = verify::<Report>(&bytes, &[key]).expect("a signed report").into_value();
                if report.command == order.order.command {
                    return (report.status, String::from_utf8_lossy(&report.result).into_owned());
                }
            }
            _ => continue,
        }
    }
}

/// With every online key in one hand. Installing anything at all takes a command that is right in every way; what is tried is
/// the standing order in it.
#[test]
fn a_standing_order_is_worth_nothing_elsewhere_later_or_edited() {
    let fleet = Fleet::start();
    let (stolen, mut host, mut other) = (Stolen::from(&fleet), fleet.host("local"), fleet.host("other"));
    installed(&fleet, "other");
    let of_other = captured(&fleet, &stolen).1;
    let id = installed(&fleet, "local");
    let (brought, standing) = captured(&fleet, &stolen);
    let true_one = shown(&standing).expect("a standing order").1;
    wait_kept(&host, 1);
    fleet.cli(&["standing", "drop", "local", &id]).ok();
    wait_until("the host keeps none", || kept(&host).is_empty());

    let evil = Evil::start(&stolen.tls);
    fleet.proxy.lead_to(evil.address());
    other.kill_9();
    host.kill_9();
    host.start();
    let mut stream = evil.stream();
    let mut sequence = stream.open(&stolen).high.0;
    let sign = |order: &StandingOrder| stolen.command.sign(order).into_envelope();
    let next = |change: fn(&mut StandingOrder)| {
        let mut order = StandingOrder { revision: Revision(true_one.revision.0 + 1), ..true_one.clone() };
        change(&mut order);
        sign(&order)
    };
    let mut edited = standing.clone();
    let at = edited.windows(4).position(|bytes| bytes == b"30 3").expect("its schedule");
    edited[at] = b'5';
    let attacks = [
        ("one that was dropped", standing.clone(), "revision: 1 is not above"),
        ("another host's", of_other, "it is for another host"),
        ("an edited schedule", edited, "does not verify"),
        ("another epoch's", next(|order| order.epoch = Epoch(2)), "epochs"),
        ("other keys' of the host", next(|order| order.host_epoch = HostEpoch(2)), "epochs"),
        ("the last number there is", next(|order| order.revision = Revision(u64::MAX)), "too far above"),
        (
            "what the owner does not allow",
            next(|order| order.standing.action = "host.reboot".parse().expect("a name")),
            "host.reboot",
        ),
    ];
    for (attack, bytes, words) in attacks {
        sequence += 1;
        let order = bringing(&brought, "standing.install", true_one.standing.operation, &bytes, sequence);
        let (status, said) = ends(&mut stream, &host, &stolen, &order);
        assert_eq!(status, ReportStatus::Rejected, "{attack}: {said}");
        assert!(said.contains(words), "{attack}: {said}");
    }
    // As a renewal it needs no people: so it must be one that stands.
    sequence += 1;
    let order = bringing(&brought, "standing.renew", true_one.standing.operation, &next(|_| ()), sequence);
    let (status, said) = ends(&mut stream, &host, &stolen, &order);
    assert!(status == ReportStatus::Rejected && said.contains("it is not installed"), "{said}");
    assert!(kept(&host).is_empty());

    // The control: whoever has all the keys can have what the host's owner allows, and nothing was used up by the attempts.
    sequence += 1;
    let order = bringing(&brought, "standing.install", true_one.standing.operation, &next(|_| ()), sequence);
    let (status, said) = ends(&mut stream, &host, &stolen, &order);
    assert_eq!(status, ReportStatus::Succeeded, "{said}");
    wait_kept(&host, 1);
    let revision = wait_for("the host shows it", || kept(&host).first().map(|order| order["revision"].clone()));
    assert_eq!(revision, json!(2));
}
