//! Its directory: root metadata, keys, log, and what an earlier version kept elsewhere.

use envelope::{
    SigningKey, VerifyingKey,
    keys::role,
    messages::{Command, PublicKeyBytes},
    signer_port::{SignError, Signer as _},
    verify,
};
use ids::*;
use signer::{PlaceError, StateError};

use crate::room::*;

fn at_epoch(epoch: u64, sequence: u64) -> Command {
    Command { epoch: Epoch(epoch), ..command(host(1), sequence) }
}

#[tokio::test]
async fn root_metadata_decides_which_key_signs_and_in_which_epoch() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    let old = key().public();
    let new = signer.prepare_key().await.unwrap();
    assert_eq!(signer.prepare_key().await.unwrap(), new, "the same, as long as it waits");
    let id = envelope::key_id(&new);
    assert!(matches!(signer.activate_key(id).await, Err(SignError::Refused(why)) if why.contains("have it listed")));

    let second = root(2, &[old, new], |_| ());
    assert_eq!(signer.advance_root(vec![second.clone()]).await, Ok(RootVersion(2)));
    assert_eq!(signer.advance_root(vec![second]).await, Ok(RootVersion(2)), "handed over again");
    assert!(
        verify::<Command>(&signer.sign_command(at_epoch(1, 1), vec![]).await.unwrap().envelope, &[key().verifying()])
            .is_ok()
    );
    signer.activate_key(id).await.unwrap();
    let signed = signer.sign_command(at_epoch(1, 2), vec![]).await.unwrap().envelope;
    assert!(verify::<Command>(&signed, &[VerifyingKey::try_from(new).unwrap()]).is_ok());
    let refused = |error| matches!(error, Err(SignError::Refused(_)));
    assert!(refused(signer.drop_key(id).await) && refused(signer.drop_key(key().key_id()).await), "active; listed");

    let third = root(3, &[new], |metadata| metadata.epoch = Epoch(2));
    signer.advance_root(vec![third]).await.unwrap();
    assert!(refusal(&signer, at_epoch(1, 3)).await.contains("epoch 1 was asked for"));
    assert!(signer.sign_open(open_for(host(1))).await.is_err(), "its epoch is void as well");
    signer.sign_command(at_epoch(2, 3), vec![]).await.unwrap();
    signer.drop_key(key().key_id()).await.unwrap();
    drop(signer);

    let signer = room.open().unwrap();
    let keys = signer.keys().await.unwrap();
    assert_eq!(keys.root.unwrap().0, RootVersion(3));
    assert_eq!(keys.keys.iter().map(|key| (key.public, key.is_active)).collect::<Vec<_>>(), [(new, true)]);
    assert_eq!(std::fs::read_dir(room.place().keys()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_key_that_root_metadata_dropped_never_signs_again() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    let other = SigningKey::<role::Command>::from_seed(&[5; 32]).public();
    signer.advance_root(vec![root(2, &[other], |_| ())]).await.unwrap();
    let why = refusal(&signer, command(host(1), 1)).await;
    assert!(why.contains("no active command key that root metadata version 2 lists"), "{why}");
    assert!(signer.sign_open(open_for(host(1))).await.is_err());
    let fresh = signer.prepare_key().await.unwrap();
    assert!(fresh != key().public(), "a void key is not offered again");
    assert!(signer.keys().await.unwrap().keys[0].is_void);
    let back = root(3, &[fresh, key().public()], |_| ());
    signer.advance_root(vec![back]).await.unwrap();
    let refused = |answer| matches!(answer, Err(SignError::Refused(why)) if why.contains("never signs again"));
    assert!(refused(signer.activate_key(key().key_id()).await), "listed again, and void all the same");
    assert!(refusal(&signer, command(host(1), 1)).await.contains("no active command key"));
    signer.activate_key(envelope::key_id(&fresh)).await.unwrap();
    let signed = signer.sign_command(command(host(1), 1), vec![]).await.unwrap().envelope;
    assert!(verify::<Command>(&signed, &[VerifyingKey::try_from(fresh).unwrap()]).is_ok());
    drop(signer);

    // Nor when the list of keys names it, as an earlier version let it happen.
    let list = std::fs::read_to_string(room.place().trust()).unwrap();
    let (fresh, void) = (envelope::key_id(&fresh).to_string(), key().key_id().to_string());
    assert!(list.contains(&format!("\"active\": \"{fresh}\"")));
    std::fs::write(room.place().trust(), list.replace(&fresh, &void)).unwrap();
    let signer = room.open().unwrap();
    assert!(refused(signer.activate_key(key().key_id()).await));
    assert!(refusal(&signer, command(host(1), 2)).await.contains("no active command key"));
    assert!(signer.sign_open(open_for(host(1))).await.is_err());
}

/// As a power cut leaves them while a key is made or destroyed.
#[tokio::test]
async fn a_torn_key_that_nothing_needs_is_forgotten_and_one_that_is_needed_is_an_error() {
    let torn: [fn(usize) -> Vec<u8>; 4] =
        [|_| Vec::new(), |_| b"-----BEGIN PRIVATE".to_vec(), |length| vec![0; length], |length| vec![0xff; length]];
    for tear in torn {
        let room = Room::new().await;
        let tear = |public: PublicKeyBytes| {
            let path = room.place().key(envelope::key_id(&public));
            let length = std::fs::read(&path).unwrap().len();
            std::fs::write(&path, tear(length)).unwrap();
            std::fs::write(keyfile::beside(&path), tear(length)).unwrap();
        };
        let old = key().public();
        let signer = room.open().unwrap();
        let prepared = signer.prepare_key().await.unwrap();
        drop(signer);
        tear(prepared);
        let signer = room.open().unwrap();
        signer.sign_command(command(host(1), 1), vec![]).await.unwrap();
        assert_eq!(std::fs::read_dir(room.place().keys()).unwrap().count(), 1, "nothing of it is left");
        // The rotation goes on where it was, with another key; the old one was to go.
        let new = signer.prepare_key().await.unwrap();
        assert_ne!(new, prepared);
        signer.advance_root(vec![root(2, &[old, new], |_| ())]).await.unwrap();
        signer.activate_key(envelope::key_id(&new)).await.unwrap();
        signer.advance_root(vec![root(3, &[new], |_| ())]).await.unwrap();
        drop(signer);
        tear(old);
        let signer = room.open().unwrap();
        signer.sign_command(command(host(1), 2), vec![]).await.unwrap();
        signer.drop_key(envelope::key_id(&old)).await.unwrap();
        assert_eq!(signer.keys().await.unwrap().keys.len(), 1);
        drop(signer);
        tear(new);
        assert!(matches!(room.open(), Err(PlaceError::Key(error)) if error.is_torn()), "the one that signs");
    }
}

#[tokio::test]
async fn the_version_that_shuts_out_the_active_key_puts_the_one_it_lists_in_its_place() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    let fresh = signer.prepare_key().await.unwrap();
    let out = root(2, &[fresh], |metadata| metadata.epoch = Epoch(2));
    signer.advance_root(vec![out]).await.unwrap();
    drop(signer);
    let signer = room.open().unwrap();
    let signed = signer.sign_command(at_epoch(2, 1), Vec::new()).await.unwrap().envelope;
    assert!(verify::<Command>(&signed, &[VerifyingKey::try_from(fresh).unwrap()]).is_ok(), "nobody had to activate it");
    // Not one that root metadata dropped before, though it lists it again.
    let back = root(3, &[key().public()], |metadata| metadata.epoch = Epoch(2));
    signer.advance_root(vec![back]).await.unwrap();
    assert!(refusal(&signer, at_epoch(2, 2)).await.contains("no active command key"));
}

#[tokio::test]
async fn root_metadata_that_does_not_verify_changes_nothing() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    let keys = signer.keys().await.unwrap();
    let stranger = {
        let mut forged = root(2, &[key().public()], |_| ());
        let last = forged.len() - 1;
        forged[last] ^= 1;
        forged
    };
    for bad in [
        stranger,
        root(3, &[key().public()], |_| ()),
        root(2, &[key().public()], |it| it.fleet = FleetId::from_bytes([6; 16])),
        vec![],
    ] {
        assert!(matches!(signer.advance_root(vec![bad]).await, Err(SignError::Refused(_))));
    }
    assert_eq!(signer.keys().await.unwrap(), keys);
    assert_eq!(
        room.log().iter().filter(|line| line["what"] == "root_advance" && line["decision"] == "refused").count(),
        4
    );
}

#[tokio::test]
async fn expired_root_metadata_leaves_sessions_and_reads() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    signer
        .advance_root(vec![root(2, &[key().public()], |metadata| metadata.expires = UnixMs(START + 1_000))])
        .await
        .unwrap();
    room.set(START + 1_001);
    let mut change = command(host(1), 1);
    change.order.action = "app.deploy".parse().unwrap();
    let why = refusal(&signer, change).await;
    assert!(why.contains("has expired, and app.deploy does more than read"), "{why}");
    signer.sign_command(command(host(1), 1), vec![]).await.unwrap();
    signer.sign_open(open_for(host(1))).await.unwrap();
    // A clock set back does not revive it: it cannot be earlier than any version's issue.
    let third =
        root(3, &[key().public()], |it| (it.issued, it.expires) = (UnixMs(START + 90_000), UnixMs(START + 99_000)));
    let fourth = root(4, &[key().public()], |it| it.expires = UnixMs(START + 50_000));
    signer.advance_root(vec![third, fourth]).await.unwrap();
    room.set(START);
    let mut change = command(host(2), 1);
    change.order.action = "app.deploy".parse().unwrap();
    assert!(refusal(&signer, change).await.contains("has expired"));
}

#[tokio::test]
async fn one_without_a_fleet_makes_a_key_and_signs_nothing() {
    let room = Room::empty();
    let signer = room.open().unwrap();
    assert!(refusal(&signer, command(host(1), 1)).await.contains("no fleet yet"));
    let strange = signer.advance_root(vec![root(1, &[key().public()], |_| ())]).await;
    assert!(matches!(strange, Err(SignError::Refused(why)) if why.contains("lists none of its keys")));
    let own = signer.prepare_key().await.unwrap();
    drop(signer);
    let signer = room.open().unwrap();
    assert_eq!(signer.prepare_key().await.unwrap(), own, "durable before it was answered");
    signer.advance_root(vec![root(1, &[own], |_| ())]).await.unwrap();
    signer.sign_command(command(host(1), 1), vec![]).await.unwrap();
}

#[tokio::test]
async fn each_decision_stands_in_the_log_before_it_is_answered() {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    let signed = signer.sign_command(command(host(1), 4), vec![]).await.unwrap();
    let line = room.log().pop().unwrap();
    assert_eq!(
        (&line["what"], &line["decision"], &line["sequence"]),
        (&"command".into(), &"granted".into(), &4.into())
    );
    assert_eq!(line["payload_sha256"], signed.payload_sha256.to_string());
    assert_eq!(line["key_id"], key().key_id().to_string());
    assert_eq!(line["action"], "host.facts@1");
    refusal(&signer, command(host(1), 4)).await;
    let line = room.log().pop().unwrap();
    assert!(line["decision"] == "not_now" && line["why"].as_str().unwrap().contains("up to 4"), "{line}");
    signer.sign_open(open_for(host(1))).await.unwrap();
    assert_eq!(room.log().pop().unwrap()["what"], "session_open");
    let text = std::fs::read_to_string(room.place().log()).unwrap();
    assert!(!text.contains("parameters"), "names and hashes only");
}

#[tokio::test]
async fn without_its_log_it_signs_no_command_and_goes_on_when_it_can() {
    let room = Room::new().await;
    std::fs::remove_file(room.place().log()).unwrap();
    std::fs::create_dir(room.place().log()).unwrap();
    let signer = room.open().unwrap();
    assert!(signer.is_impaired() && signer.keys().await.unwrap().is_impaired);
    assert!(refusal(&signer, command(host(1), 1)).await.contains("see to the disk"));
    signer.sign_open(open_for(host(1))).await.unwrap();
    std::fs::remove_dir(room.place().log()).unwrap();
    signer.mend();
    assert!(!signer.keys().await.unwrap().is_impaired);
    signer.sign_command(command(host(1), 2), vec![]).await.unwrap();
}

/// Cut at any place, a later start finds one key and every sequence.
#[tokio::test]
async fn what_an_earlier_version_kept_is_brought_over_whatever_was_cut() {
    let place_of = |room: &Room| room.place();
    for cut in 0..4 {
        let room = Room::empty();
        keep_earlier(room.directory.path());
        let (earlier, place) = (room.directory.path(), place_of(&room));
        let (state, pem) = (earlier.join("signer.state"), earlier.join("keys/command.key.pem"));
        keyfile::private_directory(&place.keys()).unwrap();
        match cut {
            // Half a key, and then nothing.
            1 => std::fs::write(place.key(key().key_id()), "-----BEGIN").unwrap(),
            // All copies, and no list yet.
            2 => {
                std::fs::copy(&pem, place.key(key().key_id())).unwrap();
                std::fs::copy(&state, place.sequences()).unwrap();
            }
            // Everything, and the originals still there.
            3 => {
                let (kept_state, kept_pem) = (std::fs::read(&state).unwrap(), std::fs::read_to_string(&pem).unwrap());
                drop(room.open().unwrap());
                std::fs::write(&state, kept_state).unwrap();
                keyfile::write_text(&pem, &kept_pem).unwrap();
            }
            _ => {}
        }
        let signer = room.open().unwrap();
        assert!(!pem.exists() && !state.exists(), "{cut}");
        signer.advance_root(vec![root(1, &[key().public()], |_| ())]).await.unwrap();
        signer.sign_command(command(host(1), 1), vec![]).await.unwrap();
        drop(signer);
        let signer = room.open().unwrap();
        assert!(refusal(&signer, command(host(1), 1)).await.contains("up to 1"));
    }
}

#[tokio::test]
async fn a_key_without_its_sequences_is_not_brought_over() {
    let room = Room::empty();
    keep_earlier(room.directory.path());
    std::fs::remove_file(room.directory.path().join("signer.state")).unwrap();
    assert!(matches!(room.open(), Err(PlaceError::State(StateError::Missing { .. }))));
}
