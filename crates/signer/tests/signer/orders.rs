//! What it signs and what it refuses, batch by batch.

use std::sync::Arc;

use envelope::{
    limits::SEQUENCE_JUMP_MAX,
    messages::{Command, SessionOpen},
    signer_port::{SignError, Signer as _},
    verify,
};
use ids::*;
use signer::{PlaceError, StateError, limits};

use crate::room::*;

#[tokio::test]
async fn signs_what_verifies_under_the_command_key() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    let signed = signer.sign_command(command(host(1), 1), vec![]).await.unwrap();
    let verified = verify::<Command>(&signed.envelope, &[key().verifying()]).unwrap();
    assert_eq!(*verified, command(host(1), 1));
    assert_eq!(verified.payload_sha256(), signed.payload_sha256);
}

#[tokio::test]
async fn puts_its_own_time_into_a_session_open() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    room.set(START + 77);
    let envelope = signer.sign_open(open_for(host(1))).await.unwrap();
    let open = verify::<SessionOpen>(&envelope, &[key().verifying()]).unwrap();
    assert_eq!(open.time, UnixMs(START + 77));
    let foreign = SessionOpen { fleet: FleetId::from_bytes([6; 16]), ..open_for(host(1)) };
    assert!(matches!(signer.sign_open(foreign).await, Err(SignError::Refused(_))));
}

#[tokio::test]
async fn sequences_rise_strictly_per_host_and_jump_within_bounds() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    signer.sign_command(command(host(1), 5), vec![]).await.unwrap();
    for replayed in [5, 4, 1] {
        let answer = signer.sign_command(command(host(1), replayed), vec![]).await;
        assert_eq!(answer, Err(SignError::SequenceTaken { high: Sequence(5) }));
    }
    assert!(refusal(&signer, command(host(1), 0)).await.contains("not well-formed"));
    signer.sign_command(command(host(2), 1), vec![]).await.unwrap();
    for far in [5 + SEQUENCE_JUMP_MAX + 1, u64::MAX] {
        let why = refusal(&signer, command(host(1), far)).await;
        assert!(why.contains("too far above 5"), "{why}");
    }
    signer.sign_command(command(host(1), 5 + SEQUENCE_JUMP_MAX), vec![]).await.unwrap();
}

#[tokio::test]
async fn refuses_other_fleets_other_times_and_long_lives() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    let good = || command(host(1), 1);
    let at = |ms: u64| Command { issued: UnixMs(ms), ..good() };
    let skew = limits::ISSUED_SKEW_MAX.0;
    let mut other_fleet = good();
    other_fleet.order.fleet = FleetId::from_bytes([6; 16]);
    let mut late = good();
    late.order.deliver_by = UnixMs(START - 1);
    let mut not_text = good();
    not_text.order.parameters = vec![0xff];
    let cases = [
        (other_fleet, "is not this signer's"),
        (at(START + skew + 1), "from the signer's clock"),
        (at(START - skew - 1), "from the signer's clock"),
        (Command { expires: UnixMs(START + 300_001), ..good() }, "valid for longer"),
        (Command { expires: UnixMs(START - 1), ..good() }, "not well-formed"),
        (Command { not_before: UnixMs(START + 60_000), ..good() }, "valid only"),
        (late, "order it again"),
        (not_text, "not well-formed"),
    ];
    for (bad, expected) in cases {
        let why = refusal(&signer, bad).await;
        assert!(why.contains(expected), "{why}");
    }
    // Nothing of this used up the sequence.
    signer.sign_command(at(START + skew), vec![]).await.unwrap();
}

#[tokio::test]
async fn a_restart_keeps_the_high_water_mark() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    signer.sign_command(command(host(1), 40), vec![]).await.unwrap();
    assert!(matches!(room.open(), Err(PlaceError::InUse { .. })));
    drop(signer);
    let signer = room.open().unwrap();
    assert!(refusal(&signer, command(host(1), 40)).await.contains("every sequence up to 40"));
    signer.sign_command(command(host(1), 41), vec![]).await.unwrap();
}

#[tokio::test]
async fn a_torn_record_is_cut_and_a_damaged_one_refused() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    signer.sign_command(command(host(1), 1), vec![]).await.unwrap();
    signer.sign_command(command(host(1), 2), vec![]).await.unwrap();
    drop(signer);
    let whole = std::fs::read(room.path()).unwrap();

    std::fs::write(room.path(), &whole[..whole.len() - 3]).unwrap();
    let signer = room.open().unwrap();
    assert!(refusal(&signer, command(host(1), 1)).await.contains("every sequence up to 1"));
    drop(signer);

    let mut damaged = whole;
    damaged[50] ^= 1;
    std::fs::write(room.path(), &damaged).unwrap();
    let Err(error) = room.open() else { panic!("opened a damaged record") };
    assert!(error.to_string().contains("newest backup"), "{error}");
}

#[tokio::test]
async fn a_lost_record_is_refused_rather_than_begun_anew() {
    let room = Room::new().await;
    std::fs::remove_file(room.path()).unwrap();
    assert!(matches!(room.open(), Err(PlaceError::State(StateError::Missing { .. }))));
}

#[tokio::test]
async fn one_host_cannot_be_flooded() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    let burst = u64::from(limits::COMMANDS_PER_HOST_BURST);
    for sequence in 1..=burst {
        signer.sign_command(command(host(1), sequence), vec![]).await.unwrap();
    }
    let error = signer.sign_command(command(host(1), burst + 1), vec![]).await.unwrap_err();
    assert!(matches!(&error, SignError::Unavailable(why) if why.contains("too many commands")), "{error}");
    signer.sign_command(command(host(2), 1), vec![]).await.unwrap();
    room.set(START + 1_000);
    signer.sign_command(command(host(1), burst + 1), vec![]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_gets_each_its_own_answer() {
    let room = Room::new().await;
    let signer = Arc::new(room.open().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200u8 {
        let signer = Arc::clone(&signer);
        tasks.spawn(async move { (n, signer.sign_command(command(host(n), u64::from(n) + 1), vec![]).await) });
    }
    while let Some(done) = tasks.join_next().await {
        let (n, signed) = done.unwrap();
        let verified = verify::<Command>(&signed.unwrap().envelope, &[key().verifying()]).unwrap();
        assert_eq!((verified.order.host, verified.sequence), (host(n), Sequence(u64::from(n) + 1)));
    }
    drop(signer);
    let signer = room.open().unwrap();
    assert!(refusal(&signer, command(host(7), 8)).await.contains("every sequence up to 8"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_race_for_one_sequence_exactly_one_wins() {
    let room = Room::new().await;
    let signer = Arc::new(room.open().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let signer = Arc::clone(&signer);
        tasks.spawn(async move { signer.sign_command(command(host(1), 1), vec![]).await.is_ok() });
    }
    let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
}
