//! The signer's own log: a line of JSON for each decision, so that what was signed is known from here too, whatever the
//! control plane says. It names and hashes; it holds neither parameters nor keys.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use ids::{CommandId, HostId, KeyId, OperationId, RootVersion, Sequence, Sha256, UnixMs};
use serde::Serialize;

use crate::limits;

/// One decision.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) time_ms: UnixMs,
    /// `command`, `session_open`, `root_advance`, `key_prepare`, `key_activate`, `key_drop`, `write_failed`.
    pub(crate) what: &'static str,
    /// `granted`; `refused` for good; `not_now`.
    pub(crate) decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<HostId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<CommandId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operation: Option<OperationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) action: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sequence: Option<Sequence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_sha256: Option<Sha256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_id: Option<KeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) root_version: Option<RootVersion>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

impl Line {
    pub(crate) const fn new(what: &'static str, time_ms: UnixMs) -> Self {
        Self {
            time_ms,
            what,
            decision: "granted",
            host: None,
            command: None,
            operation: None,
            action: None,
            sequence: None,
            payload_sha256: None,
            key_id: None,
            root_version: None,
            why: None,
        }
    }
}

/// The open log.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    /// None after a failure: it is opened anew, and a torn line ended.
    file: Option<File>,
    length: u64,
}

impl Log {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None, length: 0 }
    }

    /// Opens it, if it is not.
    pub(crate) fn mend(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        let mut file = options.create(true).read(true).append(true).mode(0o600).open(&self.path)?;
        let length = file.metadata()?.len();
        let mut last = [b'\n'];
        if length > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        self.length = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Writes lines; they are durable when `is_durable` and it returns.
    pub(crate) fn write(&mut self, lines: &[Line], is_durable: bool) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let written = self.write_open(lines, is_durable);
        if written.is_err() {
            self.file = None;
        }
        written
    }

    fn write_open(&mut self, lines: &[Line], is_durable: bool) -> io::Result<()> {
        self.mend()?;
        if self.length >= limits::LOG_BYTES_MAX {
            self.rotate()?;
        }
        let mut bytes = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut bytes, line)?;
            bytes.push(b'\n');
        }
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        file.write_all(&bytes)?;
        if is_durable {
            file.sync_data()?;
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// `log.jsonl` becomes `log.jsonl.1`, that `.2`, and the last goes.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for number in (1..limits::LOG_FILES_MAX).rev() {
            let from = if number == 1 { self.path.clone() } else { numbered(&self.path, number - 1) };
            match fs::rename(&from, numbered(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.mend()
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    path.with_added_extension(number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u64) -> Line {
        Line { sequence: Some(Sequence(n)), ..Line::new("command", UnixMs(n)) }
    }

    #[test]
    fn lines_are_appended_and_a_torn_one_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.jsonl");
        Log::new(path.clone()).write(&[line(1)], true).unwrap();
        fs::write(&path, [fs::read(&path).unwrap(), b"{\"torn".to_vec()].concat()).unwrap();
        Log::new(path.clone()).write(&[line(2)], false).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let wanted = "{\"time_ms\":1,\"what\":\"command\",\"decision\":\"granted\",\"sequence\":1}\n{\"torn\n";
        assert!(text.starts_with(wanted) && text.lines().count() == 3, "{text}");
    }

    #[test]
    fn it_is_rotated_and_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.jsonl");
        for n in 1..=u64::from(limits::LOG_FILES_MAX) + 2 {
            let mut log = Log::new(path.clone());
            log.write(&[line(n)], false).unwrap();
            log.length = limits::LOG_BYTES_MAX;
            log.write(&[line(n)], false).unwrap();
        }
        let count = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(count, limits::LOG_FILES_MAX as usize);
        let newest = format!("\"sequence\":{}}}\n", limits::LOG_FILES_MAX + 2);
        assert!(fs::read_to_string(&path).unwrap().ends_with(&newest));
    }

    #[test]
    fn a_log_that_could_not_be_written_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.jsonl");
        fs::create_dir(&path).unwrap();
        let mut log = Log::new(path.clone());
        log.write(&[line(1)], true).unwrap_err();
        assert!(!log.is_open());
        fs::remove_dir(&path).unwrap();
        log.write(&[line(2)], true).unwrap();
        assert!(log.is_open());
    }
}
