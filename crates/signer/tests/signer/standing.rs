//! Standing orders: what is signed of them, and what is not.

use envelope::{
    limits::REVISION_JUMP_MAX,
    messages::{Standing, StandingOrder},
    signer_port::{SignError, Signer as _},
    verify,
};
use ids::*;

use crate::room::*;

fn order(host: HostId, revision: u64) -> StandingOrder {
    StandingOrder {
        standing: Standing {
            fleet: FLEET,
            host,
            order: StandingOrderId::from_bytes([4; 16]),
            operation: OperationId::from_bytes([5; 16]),
            action: "app.restart".parse().unwrap(),
            action_version: 1,
            schema_sha256: sha256(b"schema"),
            parameters: b"{}".to_vec(),
            sealed: vec![],
            schedule: "0 3 * * *".to_owned(),
            zone: "UTC".to_owned(),
            valid_until: UnixMs(START).plus(DurationMs::from_days(10)),
            alone_for: DurationMs::from_days(30),
        },
        host_epoch: HostEpoch(1),
        epoch: command(host, 1).epoch,
        revision: Revision(revision),
        issued: UnixMs(0),
    }
}

#[tokio::test]
async fn a_standing_order_is_signed_with_the_signers_time_and_each_revision_once() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    room.set(START + 77);
    let envelope = signer.sign_standing(order(host(1), 5)).await.unwrap();
    let signed = verify::<StandingOrder>(&envelope, &[key().verifying()]).unwrap();
    assert_eq!(*signed, StandingOrder { issued: UnixMs(START + 77), ..order(host(1), 5) });
    // Also after a restart, and whatever sequences of commands stand at.
    signer.sign_command(command(host(1), 900), vec![]).await.unwrap();
    drop(signer);
    room.set(START);
    let signer = room.open().unwrap();
    for taken in [1, 5] {
        let answer = signer.sign_standing(order(host(1), taken)).await;
        assert_eq!(answer, Err(SignError::SequenceTaken { high: Sequence(5) }));
    }
    for far in [6 + REVISION_JUMP_MAX, u64::MAX] {
        let answer = signer.sign_standing(order(host(1), far)).await;
        assert!(matches!(&answer, Err(SignError::Refused(why)) if why.contains("too far above 5")), "{answer:?}");
    }
    signer.sign_standing(order(host(1), 6)).await.unwrap();
    signer.sign_standing(order(host(2), 1)).await.unwrap();
    signer.sign_command(command(host(1), 901), vec![]).await.unwrap();
    let log = room.log();
    let lines = log.iter().filter(|line| line["what"] == "standing_order" && line["decision"] == "granted").count();
    assert_eq!(lines, 3);
}

#[tokio::test]
async fn a_standing_order_that_no_honest_control_plane_asks_for_is_not_signed() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    type Change = fn(&mut StandingOrder);
    let cases: [(&str, Change); 5] = [
        ("is not this signer's", |order| order.standing.fleet = FleetId::from_bytes([6; 16])),
        ("not well-formed", |order| order.standing.schedule = String::new()),
        ("not well-formed", |order| order.standing.valid_until = UnixMs(START - 1)),
        ("not well-formed", |order| order.revision = Revision(0)),
        ("epoch", |order| order.epoch = Epoch(99)),
    ];
    for (expected, change) in cases {
        let mut bad = order(host(1), 1);
        change(&mut bad);
        let why = signer.sign_standing(bad).await.unwrap_err().to_string();
        assert!(why.contains(expected), "{why}");
    }
    // Nothing of this used a revision up.
    signer.sign_standing(order(host(1), 1)).await.unwrap();
    // Nor is one signed once root metadata has expired; the host goes on by what it has.
    room.set(START + 401 * 86_400_000);
    let mut late = order(host(1), 2);
    late.standing.valid_until = UnixMs(START).plus(DurationMs::from_days(500));
    let why = signer.sign_standing(late).await.unwrap_err().to_string();
    assert!(why.contains("has expired"), "{why}");
}
