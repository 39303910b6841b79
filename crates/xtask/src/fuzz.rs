//! `cargo xtask fuzz`: the fuzzers of `tests/fuzz`, each for a while, from seeds made of the golden files.
//!
//! Needs a nightly toolchain and cargo-fuzz. What a fuzzer finds is left under `target/fuzz/artifacts`; once mended, its bytes go into
//! `tests/fuzz/regressions/<target>/`, which every run begins with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where the fuzzers stand.
const ROOM: &str = "tests/fuzz";
/// Seconds for each, unless told.
const SECONDS: &str = "60";
/// Longest input tried, in bytes: several times the longest seed. Longer ones are slow and find nothing that these do not.
const INPUT_BYTES_MAX: &str = "-max_len=16384";
/// An input that takes longer, in seconds, is a finding.
const INPUT_SECONDS_MAX: &str = "-timeout=10";
/// Memory, in MiB, above which an input is a finding: all of these readers are bounded.
const MEMORY_MIB_MAX: &str = "-rss_limit_mb=1024";

/// What was asked for: seconds for each, and which; all when none is named.
fn asked<'a>(arguments: &[&'a str]) -> Result<(&'a str, Vec<&'a str>), String> {
    let (mut seconds, mut targets) = (SECONDS, Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--seconds" => seconds = rest.next().ok_or("--seconds needs a number")?,
            option if option.starts_with('-') => return Err(format!("{option} is not an option of fuzz")),
            target => targets.push(target),
        }
    }
    match seconds.parse::<u32>() {
        Ok(1..) => Ok((seconds, targets)),
        _ => Err(format!("--seconds is {seconds:?}; give a number from 1 on")),
    }
}

/// The targets there are, from the room's manifest.
fn targets(manifest: &str) -> Vec<&str> {
    let named = manifest.split("[[bin]]").skip(1);
    named.filter_map(|bin| bin.split("name = \"").nth(1)?.split('"').next()).collect()
}

/// Seeds of one target, from the golden files' text: see `crates/envelope/tests/suite/golden.rs`.
fn seeds(target: &str, golden: &str) -> Vec<Vec<u8>> {
    let envelopes: Vec<Vec<u8>> = golden.lines().filter_map(|line| from_hex(line.strip_prefix("envelope ")?)).collect();
    let hello: Vec<u8> = golden
        .split("agent hello (not signed)")
        .nth(1)
        .unwrap_or_default()
        .lines()
        .filter_map(field)
        .flatten()
        .collect();
    let payloads = || golden.split("\n\n").filter(|part| part.starts_with("application/")).map(payload);
    match target {
        "envelopes" => envelopes,
        // Behind root metadata, which is the first of the golden file and has no door among the others.
        "payloads" => payloads().skip(1).zip(0u8..).map(|(payload, which)| [vec![which], payload].concat()).collect(),
        "root" => payloads().take(1).chain(envelopes.first().cloned()).collect(),
        "hello" => vec![hello],
        // Field 1 of both frames is bytes: the hello, or a chain.
        "from_agent" => vec![bytes_field(1, &hello)],
        "from_control" => vec![bytes_field(2, envelopes.get(5).map_or(&[], Vec::as_slice))],
        _ => Vec::new(),
    }
}

/// A protobuf field of bytes.
fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        field.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend_from_slice(bytes);
    field
}

/// A line `number  hexadecimal` of the golden file: the field's bytes.
fn field(line: &str) -> Option<Vec<u8>> {
    let (number, hex) = line.trim_start().split_once("  ")?;
    number.parse::<u32>().ok()?;
    from_hex(hex)
}

fn payload(part: &str) -> Vec<u8> {
    part.lines().filter_map(field).flatten().collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
    text.trim().as_bytes().chunks(2).map(pair).collect()
}

/// Folders of files that are seeds as they are.
fn seed_folders(target: &str) -> Vec<PathBuf> {
    let mut folders =
        vec![Path::new(ROOM).join("regressions").join(target), Path::new(ROOM).join("seeds").join(target)];
    if target == "compose" {
        folders.extend(["crates/compose/tests/corpus".into(), "crates/compose/tests/refused".into()]);
    }
    folders.into_iter().filter(|folder| folder.is_dir()).collect()
}

fn write_seeds(folder: &Path, target: &str) -> Result<(), String> {
    let failed = |what: &Path, error: std::io::Error| format!("{}: {error}", what.display());
    let golden = Path::new("crates/envelope/tests/suite/golden/messages.txt");
    let golden = fs::read_to_string(golden).map_err(|error| failed(golden, error))?;
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    for (number, seed) in seeds(target, &golden).iter().enumerate() {
        let file = folder.join(format!("golden-{number}"));
        fs::write(&file, seed).map_err(|error| failed(&file, error))?;
    }
    for from in seed_folders(target) {
        for entry in fs::read_dir(&from).map_err(|error| failed(&from, error))?.flatten() {
            if entry.path().is_file() {
                let to = folder.join(entry.file_name());
                fs::copy(entry.path(), &to).map_err(|error| failed(&to, error))?;
            }
        }
    }
    Ok(())
}

/// Runs them; an error names the first that found something, or says what is missing.
pub(crate) fn run(arguments: &[&str]) -> Result<(), String> {
    let (seconds, chosen) = asked(arguments)?;
    let manifest =
        fs::read_to_string(Path::new(ROOM).join("Cargo.toml")).map_err(|error| format!("{ROOM}: {error}"))?;
    let all = targets(&manifest);
    if let Some(unknown) = chosen.iter().find(|target| !all.contains(target)) {
        return Err(format!("there is no fuzzer {unknown}; there are {}", all.join(", ")));
    }
    let below = PathBuf::from(std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned())).join("fuzz");
    for target in all.iter().filter(|target| chosen.is_empty() || chosen.contains(target)) {
        let (corpus, found) = (below.join("corpus").join(target), below.join("artifacts").join(target));
        write_seeds(&corpus, target)?;
        fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
        println!("fuzz: {target}, {seconds} s");
        // Safe Rust throughout: the address sanitizer would find nothing and halve the speed.
        let mut command = Command::new("cargo");
        command
            .args(["+nightly", "fuzz", "run", "--sanitizer", "none", "--fuzz-dir", ROOM, "--target-dir"])
            .arg(&below);
        command.arg(target).arg(&corpus).arg("--").arg(format!("-max_total_time={seconds}"));
        command.arg(format!("-artifact_prefix={}/", found.display()));
        command.args([INPUT_BYTES_MAX, INPUT_SECONDS_MAX, MEMORY_MIB_MAX, "-verbosity=0", "-print_final_stats=1"]);
        let status = command.status().map_err(|error| format!("cargo cannot be started: {error}"))?;
        if !status.success() {
            return Err(format!(
                "{target} found something, or could not be built: see above, and {}. Without cargo-fuzz: `cargo install cargo-fuzz --locked`",
                found.display()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_understood_or_named() {
        assert_eq!(asked(&[]).unwrap(), (SECONDS, vec![]));
        assert_eq!(asked(&["--seconds", "5", "root", "hello"]).unwrap(), ("5", vec!["root", "hello"]));
        for (wrong, said) in [(&["--seconds"][..], "needs a number"), (&["--seconds", "0"], "\"0\""), (&["--x"], "--x")]
        {
            assert!(asked(wrong).unwrap_err().contains(said));
        }
    }

    #[test]
    fn the_manifest_names_the_targets() {
        let manifest = "[package]\nname = \"x\"\n[[bin]]\nname = \"a\"\npath = \"p\"\n\n[[bin]]\nname = \"b\"\n";
        assert_eq!(targets(manifest), ["a", "b"]);
    }

    #[test]
    fn seeds_come_from_the_golden_file() {
        let golden = "application/root\n2 bytes, sha256 00\n  1  0a01\nenvelope 0b\n\napplication/x\n3 bytes, sha256 00\n  1  0801\n 12  10ff\nenvelope 0c\n\nagent hello (not signed)\n1 bytes, sha256 00\n  1  0801\n";
        assert_eq!(seeds("envelopes", golden), [vec![0x0b], vec![0x0c]]);
        assert_eq!(seeds("payloads", golden), [vec![0, 0x08, 0x01, 0x10, 0xff]]);
        assert_eq!(seeds("root", golden), [vec![0x0a, 0x01], vec![0x0b]]);
        assert_eq!(seeds("hello", golden), [vec![0x08, 0x01]]);
        assert_eq!(seeds("from_agent", golden), [vec![0x0a, 2, 0x08, 0x01]]);
        assert_eq!(from_hex("0g"), None);
        assert_eq!(from_hex("0"), None);
    }
}
