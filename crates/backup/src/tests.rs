//! A backup comes back whole, or not at all.

use std::io::Cursor;

use envelope::seal::SealingSecretKey;
use zeroize::Zeroizing;

use super::*;

const PASSPHRASE: &str = "correct horse battery";

fn key(seed: u8) -> SealingSecretKey {
    SealingSecretKey::from_bytes(&[seed; 32])
}

fn locked_to(seeds: &[u8], passphrase: Option<&str>) -> Lock {
    Lock {
        recovery_keys: seeds.iter().map(|seed| key(*seed).public()).collect(),
        passphrase: passphrase.map(|text| Zeroizing::new(text.to_owned())),
    }
}

fn passphrase(text: &str) -> Opener {
    Opener::Passphrase(Zeroizing::new(text.to_owned()))
}

/// Lengths around the borders of chunks.
fn pieces() -> Vec<(String, Vec<u8>)> {
    let lengths = [0, 1, limits::CHUNK_BYTES - 40, limits::CHUNK_BYTES, 3 * limits::CHUNK_BYTES + 7];
    let content = |length: usize| (0..length).map(|at| (at % 251) as u8).collect();
    lengths.iter().enumerate().map(|(at, length)| (format!("keys/{at}.pem"), content(*length))).collect()
}

fn written(lock: &Lock, pieces: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), lock).expect("begun");
    for (name, content) in pieces {
        writer.piece(name, content.len() as u64, &mut content.as_slice()).expect("written");
    }
    writer.finish().expect("finished")
}

fn read(file: &[u8], opener: &Opener) -> Result<Vec<(String, Vec<u8>)>, BackupError> {
    let mut reader = Reader::open(Cursor::new(file), opener)?;
    let mut pieces = Vec::new();
    while let Some(piece) = reader.piece()? {
        let mut content = Vec::new();
        reader.copy(&mut content)?;
        assert_eq!(content.len() as u64, piece.length);
        pieces.push((piece.name, content));
    }
    Ok(pieces)
}

#[test]
fn a_backup_opens_with_each_of_its_locks_and_with_nothing_else() {
    let file = written(&locked_to(&[1, 2], Some(PASSPHRASE)), &pieces());
    for opener in [Opener::RecoveryKey(key(1)), Opener::RecoveryKey(key(2)), passphrase(PASSPHRASE)] {
        assert_eq!(read(&file, &opener).expect("it opens"), pieces());
    }
    for opener in [Opener::RecoveryKey(key(3)), passphrase("another passphrase")] {
        let error = read(&file, &opener).expect_err("it does not open").to_string();
        assert!(error.contains("does not open this backup") && error.contains(&key(2).public().to_string()), "{error}");
    }
    assert_eq!(
        Reader::ways(&mut Cursor::new(&file)).expect("its ways"),
        [Way::RecoveryKey(key(1).public()), Way::RecoveryKey(key(2).public()), Way::Passphrase]
    );
}

#[test]
fn every_change_and_every_cut_is_found_and_the_file_itself_opens() {
    let opener = Opener::RecoveryKey(key(1));
    // Two chunks, the second short: each byte is tried.
    let long = vec![("serverflow.db".to_owned(), vec![7; limits::CHUNK_BYTES + 30])];
    let file = written(&locked_to(&[1], None), &long);
    assert_eq!(read(&file, &opener).expect("unchanged"), long);
    let head = file.len() - (limits::CHUNK_BYTES + 16) - (30 + 1 + 13 + 8 + 1 + 16);
    let places = (0..head + 40).chain((head + 40..file.len()).step_by(997)).chain(file.len() - 40..file.len());
    for at in places {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert!(read(&changed, &opener).is_err(), "byte {at}");
    }
    for length in (0..file.len()).rev().step_by(499).chain([head, head + limits::CHUNK_BYTES + 16]) {
        assert!(read(&file[..length], &opener).is_err(), "cut at {length}");
    }
    assert!(read(&[file.as_slice(), b"x"].concat(), &opener).is_err(), "something appended");
    // Chunks of the same file in another order, and one twice.
    let chunks: Vec<&[u8]> = file[head..].chunks(limits::CHUNK_BYTES + 16).collect();
    for order in [[1, 0], [0, 0], [1, 1]] {
        let moved = [&file[..head], chunks[order[0]], chunks[order[1]]].concat();
        assert!(read(&moved, &opener).is_err(), "{order:?}");
    }
}

#[test]
fn a_head_of_another_file_opens_nothing() {
    let (one, two) = (written(&locked_to(&[1], None), &pieces()), written(&locked_to(&[1], None), &pieces()));
    let head = 12 + u32::from_be_bytes(one[8..12].try_into().expect("four bytes")) as usize;
    assert_eq!(one.len(), two.len());
    let mixed = [&one[..head], &two[head..]].concat();
    assert!(matches!(read(&mixed, &Opener::RecoveryKey(key(1))), Err(BackupError::Damaged { chunk: 0, .. })));
}

#[test]
fn what_is_no_backup_is_told_from_a_newer_one() {
    let opener = passphrase(PASSPHRASE);
    for bytes in [b"".as_slice(), b"SQLite format 3\0.............", b"SFBAK1\r\n"] {
        assert!(matches!(read(bytes, &opener), Err(BackupError::NotABackup)), "{bytes:?}");
    }
    let head = br#"{"format":2,"slots":"other"}"#;
    let newer = [b"SFBAK1\r\n".as_slice(), &(head.len() as u32).to_be_bytes(), head].concat();
    assert!(matches!(read(&newer, &opener), Err(BackupError::Format { found: 2 })));
    let costly = br#"{"format":1,"slots":[{"opens_with":"passphrase","log_n":40,"salt":"00","key":""}]}"#;
    let costly = [b"SFBAK1\r\n".as_slice(), &(costly.len() as u32).to_be_bytes(), costly].concat();
    assert!(matches!(read(&costly, &opener), Err(BackupError::Head { .. })), "a cost that nobody could pay");
}

#[test]
fn a_backup_that_nobody_could_open_or_that_lies_about_a_length_is_not_made() {
    assert!(matches!(Writer::new(Vec::new(), &Lock::default()), Err(BackupError::NoLock)));
    let short = locked_to(&[], Some("too short"));
    assert!(matches!(Writer::new(Vec::new(), &short), Err(BackupError::PassphraseShort)));
    let mut writer = Writer::new(Vec::new(), &locked_to(&[1], None)).expect("begun");
    assert!(matches!(writer.piece("a", 5, &mut b"four".as_slice()), Err(BackupError::Length { .. })));
    assert!(matches!(writer.piece("../a", 0, &mut b"".as_slice()), Err(BackupError::Name { .. })));
}
