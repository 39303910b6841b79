//! What a host is: the part of `host.facts` that needs no engine. Read from the kernel's and the
//! distribution's own files; a fact that cannot be read is `null`, never a guess.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{clock, limits};

/// The engine's data directory when the engine does not tell.
pub const DOCKER_ROOT_DEFAULT: &str = "/var/lib/docker";

/// Reads hostname, distribution, kernel, architecture, processors, memory, the disk that holds
/// `docker_root` (or the nearest directory above it that exists), uptime and boot id. Sizes are in
/// bytes, times in milliseconds.
#[must_use]
pub fn read(docker_root: &Path) -> Value {
    let kernel = rustix::system::uname();
    let text = |value: &core::ffi::CStr| value.to_string_lossy().into_owned();
    let os = file("/etc/os-release").or_else(|| file("/usr/lib/os-release")).unwrap_or_default();
    let memory = file("/proc/meminfo").unwrap_or_default();
    json!({
        "hostname": text(kernel.nodename()),
        "os": os_field(&os, "PRETTY_NAME"),
        "os_id": os_field(&os, "ID"),
        "os_version": os_field(&os, "VERSION_ID"),
        "kernel": text(kernel.release()),
        "architecture": text(kernel.machine()),
        "cpus": file("/proc/stat").map(|stat| cpus(&stat)),
        "memory_bytes": memory_field(&memory, "MemTotal"),
        "memory_available_bytes": memory_field(&memory, "MemAvailable"),
        "swap_bytes": memory_field(&memory, "SwapTotal"),
        "disk": disk(docker_root),
        "uptime_ms": clock::boot_now().0,
        "boot_id": clock::boot_id().ok(),
        "time_ms": clock::wall_now().0,
    })
}

fn file(path: &str) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(limits::FACT_FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// One field of os-release(5), without the quotes.
fn os_field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?.trim();
    let bare = value.strip_prefix(['"', '\'']).and_then(|inner| inner.strip_suffix(['"', '\''])).unwrap_or(value);
    (!bare.is_empty()).then(|| bare.to_owned())
}

/// Processors of the host; unlike the scheduler's answer, not those this process may use.
fn cpus(stat: &str) -> usize {
    stat.lines()
        .filter_map(|line| line.strip_prefix("cpu"))
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        .count()
}

/// One line of /proc/meminfo, in bytes.
fn memory_field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn disk(root: &Path) -> Option<Value> {
    let place: PathBuf = root.ancestors().find(|path| path.exists())?.to_owned();
    let stat = rustix::fs::statvfs(&place).ok()?;
    Some(json!({
        "path": place,
        "total_bytes": stat.f_blocks.saturating_mul(stat.f_frsize),
        // What a process without privileges may still take, as `df` prints it.
        "available_bytes": stat.f_bavail.saturating_mul(stat.f_frsize),
        "inodes_total": stat.f_files,
        "inodes_available": stat.f_favail,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_the_files_write_them() {
        let os = "NAME='Debian GNU/Linux'\nPRETTY_NAME=\"Debian 12\"\nID=debian\nVERSION_ID=\nID_LIKE=x\n";
        assert_eq!(os_field(os, "PRETTY_NAME").as_deref(), Some("Debian 12"));
        assert_eq!(os_field(os, "NAME").as_deref(), Some("Debian GNU/Linux"));
        assert_eq!(os_field(os, "ID").as_deref(), Some("debian"));
        assert_eq!(os_field(os, "VERSION_ID"), None);
        assert_eq!(os_field(os, "MISSING"), None);
        assert_eq!(memory_field("MemTotal:       2048 kB\n", "MemTotal"), Some(2_097_152));
        assert_eq!(memory_field("MemTotal:       2048 pages\n", "MemTotal"), None);
        assert_eq!(cpus("cpu  1 2\ncpu0 1 2\ncpu1 1 2\nintr 1\n"), 2);
    }

    #[test]
    fn this_host_has_facts() {
        let facts = read(Path::new("/nowhere/docker"));
        assert_eq!(facts["disk"]["path"], "/");
        assert!(facts["disk"]["total_bytes"].as_u64() > facts["disk"]["available_bytes"].as_u64(), "{facts}");
        assert!(facts["cpus"].as_u64() >= Some(1), "{facts}");
        assert!(facts["memory_bytes"].as_u64() >= facts["memory_available_bytes"].as_u64(), "{facts}");
        assert!(facts["hostname"].is_string() && facts["kernel"].is_string(), "{facts}");
    }
}
