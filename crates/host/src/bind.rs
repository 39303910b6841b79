//! Paths of the host that a container is to see: followed component by component without any
//! symbolic link, and held against everything else that is mounted.
//!
//! The engine resolves a bind's path by itself whenever the container starts. So it is not enough
//! that the path is good now: nobody but root may be able to change what it leads to. Every
//! directory on the way belongs to root (or to this agent) and is writable by nobody else, and none
//! of it lies below a directory that a container may write to. What is asked for last may belong to anybody.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use actions::effect::{Foreign, ForeignBind};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, fsync, mkdirat, openat2},
    io::Errno,
};

/// Permission bits that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Only the owner of an entry may rename or remove it.
const STICKY: u32 = 0o1000;
/// What is made where `create` asks for it.
const MADE_MODE: u32 = 0o755;
/// Directories that no app ever sees, whatever the roots are: the kernel's, and the system's own.
const SYSTEM: [&str; 6] = ["/proc", "/sys", "/dev", "/etc", "/boot", "/var/lib/containerd"];

/// Which file or directory something is, by whatever path it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

/// A mount of some container on this engine.
#[derive(Clone, Debug)]
pub(crate) struct Mounted {
    /// Name of the container.
    pub(crate) container: String,
    /// Path on the host.
    pub(crate) source: String,
    /// Whether the container may write.
    pub(crate) writable: bool,
    /// Whether it is of the app that is judged.
    pub(crate) own: bool,
}

/// Everything on this host that binds are held against.
pub(crate) struct Surroundings {
    pub(crate) mounted: Vec<Mounted>,
    /// Docker's socket, as the agent reaches it.
    pub(crate) socket: PathBuf,
    /// Directories of the agent and of Docker.
    pub(crate) private: Vec<PathBuf>,
}

/// Judges every bind; makes missing directories of those that want it, if the judgement says so.
pub(crate) fn judge(foreign: &Foreign, surroundings: &Surroundings) -> Result<(), String> {
    let mounted: Vec<(&Mounted, Vec<Identity>)> =
        surroundings.mounted.iter().map(|mounted| (mounted, chain_of(Path::new(&mounted.source)))).collect();
    for bind in &foreign.binds {
        let in_words = |why: String| format!("service {} mounts {}: {why}", bind.service, bind.source);
        if is_socket(&bind.source, &surroundings.socket) {
            if !foreign.docker_socket {
                return Err(in_words("that is Docker's socket, which is root on this host; the policy's line is [containers] docker_socket = true".to_owned()));
            }
            continue;
        }
        let walked = walk(foreign, bind).map_err(in_words)?;
        private(&walked, surroundings, foreign.docker_socket).map_err(in_words)?;
        for (other, chain) in &mounted {
            beside(bind, &walked, other, chain).map_err(in_words)?;
        }
    }
    Ok(())
}

fn is_socket(source: &str, socket: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real(Path::new(source)) == real(socket)
}

/// What was found on the way to a bind's source.
struct Walked {
    /// From `/` on; its last is the source itself, if that exists.
    chain: Vec<Identity>,
    exists: bool,
}

fn walk(foreign: &Foreign, bind: &ForeignBind) -> Result<Walked, String> {
    let parts = parts(&bind.source);
    let root = root_of(foreign, &parts)?;
    let mut directory = open(CWD, "/", OFlags::DIRECTORY).map_err(|errno| unreadable(Path::new("/"), errno))?;
    let mut path = PathBuf::from("/");
    let mut chain = vec![identity(&directory)?];
    for (index, part) in parts.iter().enumerate() {
        let next = path.join(part);
        let opened = match open(&directory, part, OFlags::empty()) {
            Err(Errno::NOENT) if index < root => {
                return Err(format!("{} does not exist; the host's owner makes the root of binds", next.display()));
            }
            Err(Errno::NOENT) if bind.create && foreign.make => {
                guarded(&directory, &path, None)?;
                make(&directory, part).map_err(|errno| format!("{} could not be made ({errno})", next.display()))?;
                open(&directory, part, OFlags::empty()).map_err(|errno| unreadable(&next, errno))?
            }
            Err(Errno::NOENT) if bind.create => return Ok(Walked { chain, exists: false }),
            Err(errno) => return Err(unreadable(&next, errno)),
            Ok(opened) => opened,
        };
        let found = fstat(&opened).map_err(|errno| unreadable(&next, errno))?;
        guarded(&directory, &path, Some(found.st_uid))?;
        let kind = FileType::from_raw_mode(found.st_mode);
        let is_last = index + 1 == parts.len();
        if kind != FileType::Directory && !(is_last && kind == FileType::RegularFile) {
            return Err(format!("{} is neither a directory nor, at its end, a plain file", next.display()));
        }
        chain.push(identity(&opened)?);
        (directory, path) = (opened, next);
    }
    Ok(Walked { chain, exists: true })
}

/// Parts of a path; `.` and empty ones are none.
fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}

/// How many parts of the source its root has.
fn root_of(foreign: &Foreign, source: &[&str]) -> Result<usize, String> {
    let below = |root: &Vec<&str>| {
        source.starts_with(root) && source.get(root.len()).is_some_and(|part| *part == foreign.app.as_str())
    };
    let climbs = source.contains(&"..");
    let roots: Vec<Vec<&str>> = foreign.roots.iter().map(|root| parts(root)).collect();
    let found = roots.iter().find(|root| below(root)).filter(|_| !climbs);
    found.map(Vec::len).ok_or_else(|| {
        format!(
            "the policy of this host allows only what lies below <root>/{}/ of a root in [binds] roots",
            foreign.app
        )
    })
}

fn open(at: impl AsFd, part: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let beneath = if part == "/" { ResolveFlags::empty() } else { ResolveFlags::BENEATH };
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | beneath;
    openat2(at, part, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn unreadable(path: &Path, errno: Errno) -> String {
    match errno {
        Errno::LOOP => {
            format!("{} is a symbolic link, and links are not followed; name the place itself", path.display())
        }
        Errno::NOENT => {
            format!("{} does not exist; make it on the host, or let the file ask for it to be made", path.display())
        }
        Errno::NOSYS => {
            "this kernel lacks openat2 (Linux 5.6), without which no path can be followed safely".to_owned()
        }
        errno => format!("{} cannot be opened ({errno})", path.display()),
    }
}

/// Whether nobody but root can change which entry this directory's next part names.
fn guarded(directory: &OwnedFd, path: &Path, next_owner: Option<u32>) -> Result<(), String> {
    let found = fstat(directory).map_err(|errno| unreadable(path, errno))?;
    let trusted = |uid: u32| uid == 0 || uid == rustix::process::geteuid().as_raw();
    let kept = found.st_mode & STICKY != 0 && next_owner.is_none_or(trusted);
    if trusted(found.st_uid) && (found.st_mode & WRITABLE_BY_OTHERS == 0 || kept) {
        return Ok(());
    }
    Err(format!(
        "{} can be changed by others than root (user {}, mode {:o}), who could make the path lead anywhere; `chown root` and `chmod go-w` it",
        path.display(),
        found.st_uid,
        found.st_mode & 0o7777
    ))
}

fn make(directory: &OwnedFd, part: &str) -> Result<(), Errno> {
    match mkdirat(directory, part, Mode::from_raw_mode(MADE_MODE)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let made = openat2(directory, part, flags, Mode::empty(), resolve)?;
    // Whatever the umask took away.
    fchmod(&made, Mode::from_raw_mode(MADE_MODE))?;
    fsync(&made)?;
    fsync(&openat2(directory, ".", flags, Mode::empty(), resolve)?)
}

#[allow(clippy::unnecessary_cast, reason = "the types differ between processors")]
fn identity(opened: &OwnedFd) -> Result<Identity, String> {
    let found = fstat(opened).map_err(|errno| format!("it cannot be read ({errno})"))?;
    Ok(Identity { device: found.st_dev as u64, inode: found.st_ino as u64 })
}

/// Identities from `/` to a path, links followed as the engine would; empty when it does not exist.
fn chain_of(path: &Path) -> Vec<Identity> {
    let of = |path: &Path| {
        let found = fs::metadata(path)?;
        Ok(Identity { device: found.dev(), inode: found.ino() })
    };
    let chain = fs::canonicalize(path).and_then(|real| {
        let ancestors: Vec<&Path> = real.ancestors().collect();
        ancestors.into_iter().rev().map(of).collect::<io::Result<Vec<Identity>>>()
    });
    chain.unwrap_or_default()
}

/// The agent's own files, Docker's and the system's are nobody's to mount, nor is what lies above them.
fn private(walked: &Walked, surroundings: &Surroundings, docker_socket: bool) -> Result<(), String> {
    let system = SYSTEM.iter().map(PathBuf::from);
    let socket = (!docker_socket).then(|| surroundings.socket.clone());
    for place in surroundings.private.iter().cloned().chain(system).chain(socket) {
        let chain = chain_of(&place);
        let Some(end) = chain.last() else { continue };
        let above = walked.exists && walked.chain.last().is_some_and(|source| chain.contains(source));
        if above || walked.chain.contains(end) {
            return Err(format!("{} is not for apps, and neither is what holds it", place.display()));
        }
    }
    Ok(())
}

/// Holds a bind against a mount of another container.
fn beside(bind: &ForeignBind, walked: &Walked, other: &Mounted, chain: &[Identity]) -> Result<(), String> {
    let Some((theirs, above_theirs)) = chain.split_last() else {
        // It does not exist now, but may when its container starts.
        let inside = bind.source.strip_prefix(&other.source).is_some_and(|rest| rest.starts_with('/'));
        return if inside && other.writable { Err(below(other)) } else { Ok(()) };
    };
    let (mine, above_mine) = match walked.chain.split_last() {
        Some((mine, above)) if walked.exists => (Some(mine), above),
        _ => (None, walked.chain.as_slice()),
    };
    if other.writable && above_mine.contains(theirs) {
        return Err(below(other));
    }
    if !bind.read_only && mine.is_some_and(|mine| above_theirs.contains(mine)) {
        return Err(format!(
            "container {} mounts {}, which lies below; by writing above it this service could make that path lead anywhere on the host. Mount it read-only, or put the two beside each other",
            other.container, other.source
        ));
    }
    if mine == Some(theirs) && !other.own && (other.writable || !bind.read_only) {
        return Err(format!(
            "container {}, which is not part of this app, mounts the same; give the app a directory of its own",
            other.container
        ));
    }
    Ok(())
}

fn below(other: &Mounted) -> String {
    format!(
        "it lies below {}, where container {} may write: that could make the path lead anywhere on the host. Put it elsewhere, or remove that container first",
        other.source, other.container
    )
}

#[cfg(test)]
mod tests;
