//! The agent's programs that new machines fetch, one for each processor. A file is hashed when it is
//! first seen and whenever it has changed since, so what is announced is what is served.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use api::AgentProgram;
use ids::Sha256;
use sha2::{Digest as _, Sha256 as Hasher};

use crate::{
    limits,
    stamp::{Stamp, stamp_of},
};

/// Name of the program's file.
const PROGRAM: &str = "serverflow-agent";
/// Where packages put programs for other machines.
const PACKAGED: &str = "/usr/share/serverflow/agents";
/// Processors as `uname -m` names them, with their number in an ELF header.
const ARCHITECTURES: [(&str, u16); 2] = [("aarch64", 183), ("x86_64", 62)];

/// The programs.
pub(crate) struct Programs {
    /// Where each may be, the first that exists counts.
    places: BTreeMap<&'static str, Vec<PathBuf>>,
    known: Mutex<BTreeMap<PathBuf, Known>>,
}

struct Known {
    stamp: Stamp,
    /// `None` when the file is no agent for that processor.
    sha256: Option<Sha256>,
}

impl Programs {
    /// Programs at `DIR/<processor>/serverflow-agent`; without a directory, where packages put them, and
    /// beside this program.
    pub(crate) fn new(directory: Option<&Path>) -> Self {
        let places = ARCHITECTURES.iter().map(|(name, _)| {
            let below = |top: &Path| top.join(name).join(PROGRAM);
            let mut places = vec![below(directory.unwrap_or(Path::new(PACKAGED)))];
            if directory.is_none() && *name == std::env::consts::ARCH {
                places.extend(std::env::current_exe().ok().map(|own| own.with_file_name(PROGRAM)));
            }
            (*name, places)
        });
        Self { places: places.collect(), known: Mutex::default() }
    }

    /// Says in the log what is served.
    pub(crate) fn tell(&self) {
        let served = web::AgentPrograms::list(self);
        for AgentProgram { architecture, sha256, size_bytes } in &served {
            tracing::info!(architecture, %sha256, size_bytes, "new machines can fetch this agent");
        }
        if served.is_empty() {
            tracing::warn!("no agent is served to new machines: say with agent_dir where its programs are");
        }
    }

    /// What is served for one processor.
    fn look(&self, architecture: &str) -> io::Result<Option<(File, AgentProgram)>> {
        let found = self.places[architecture].iter().find_map(|path| Some((path, File::open(path).ok()?)));
        let Some((path, mut file)) = found else { return Ok(None) };
        let seen = file.metadata()?;
        let stamp = stamp_of(&seen);
        // One at a time: a file that changed is hashed once.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let sha256 = match known.get(path) {
            Some(known) if known.stamp == Some(stamp) => known.sha256,
            _ => {
                let judged =
                    if seen.is_file() { judge(&mut file, architecture)? } else { Err("it is no regular file") };
                if let Err(why) = judged {
                    tracing::error!(path = %path.display(), why, "this is not served to new machines");
                }
                known.insert(path.clone(), Known { stamp: Some(stamp), sha256: judged.ok() });
                judged.ok()
            }
        };
        let Some(sha256) = sha256 else { return Ok(None) };
        file.rewind()?;
        Ok(Some((file, AgentProgram { architecture: architecture.to_owned(), sha256, size_bytes: seen.len() })))
    }
}

/// The hash of a program for that processor, or why it is none.
fn judge(file: &mut File, architecture: &str) -> io::Result<Result<Sha256, &'static str>> {
    let mut head = [0; 20];
    if file.metadata()?.len() > limits::AGENT_BYTES_MAX {
        return Ok(Err("it is too large for an agent"));
    }
    if file.read_exact(&mut head).is_err() || head[..5] != *b"\x7fELF\x02" {
        return Ok(Err("it is no 64-bit ELF program"));
    }
    // ELF header, `e_machine`; both processors store the low byte first.
    let machine = u16::from_le_bytes([head[18], head[19]]);
    if !ARCHITECTURES.contains(&(architecture, machine)) {
        return Ok(Err("it is a program for another processor than its directory says"));
    }
    file.rewind()?;
    let mut hasher = Hasher::new();
    let mut piece = vec![0; 256 * 1024];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(Ok(Sha256(hasher.finalize().into()))),
            count => hasher.update(&piece[..count]),
        }
    }
}

impl web::AgentPrograms for Programs {
    fn list(&self) -> Vec<AgentProgram> {
        let look = |name: &&'static str| match self.look(name) {
            Ok(found) => found.map(|(_, program)| program),
            Err(error) => {
                tracing::error!(architecture = name, %error, "an agent's program cannot be read");
                None
            }
        };
        self.places.keys().filter_map(look).collect()
    }

    fn open(&self, sha256: Sha256) -> io::Result<Option<(File, u64)>> {
        for name in self.places.keys() {
            if let Some((file, program)) = self.look(name)?
                && program.sha256 == sha256
            {
                return Ok(Some((file, program.size_bytes)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use web::AgentPrograms as _;

    use super::*;

    fn elf(machine: u16, rest: &str) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02".to_vec();
        bytes.resize(18, 0);
        bytes.extend_from_slice(&machine.to_le_bytes());
        bytes.extend_from_slice(rest.as_bytes());
        bytes
    }

    fn put(top: &Path, architecture: &str, bytes: &[u8]) -> PathBuf {
        fs::create_dir_all(top.join(architecture)).expect("a directory");
        let path = top.join(architecture).join(PROGRAM);
        fs::write(&path, bytes).expect("written");
        path
    }

    #[test]
    fn each_processor_has_its_program_and_a_changed_one_has_a_new_hash() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let programs = Programs::new(Some(directory.path()));
        assert_eq!(programs.list(), []);
        let (x86, arm) = (elf(62, "one"), elf(183, "two"));
        put(directory.path(), "x86_64", &x86);
        put(directory.path(), "aarch64", &arm);
        let listed = programs.list();
        assert_eq!(listed.iter().map(|it| it.architecture.as_str()).collect::<Vec<_>>(), ["aarch64", "x86_64"]);
        assert_eq!((listed[1].sha256, listed[1].size_bytes), (ids::sha256(&x86), 23));
        let (mut file, length) = programs.open(ids::sha256(&arm)).expect("readable").expect("served");
        let mut read = Vec::new();
        file.read_to_end(&mut read).expect("readable");
        assert_eq!((read, length), (arm, 23));

        let newer = elf(62, "newer");
        put(directory.path(), "x86_64", &newer);
        assert_eq!(programs.list()[1].sha256, ids::sha256(&newer));
        assert!(programs.open(ids::sha256(&x86)).expect("readable").is_none(), "the old one is gone");
    }

    #[test]
    fn what_is_no_agent_for_that_processor_is_not_served() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for bytes in [elf(183, "for another"), b"#!/bin/sh".to_vec(), Vec::new()] {
            put(directory.path(), "x86_64", &bytes);
            let programs = Programs::new(Some(directory.path()));
            assert_eq!(programs.list(), []);
            assert!(programs.open(ids::sha256(&bytes)).expect("readable").is_none());
        }
    }
}
