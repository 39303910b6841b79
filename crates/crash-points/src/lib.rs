//! Lets a test end a program at any of its doors: before or after an effect on the host, before or after a
//! durable write.
//!
//! Three rooms have such a door each, and everything passes it: `host` (effects), `journal` (the agent's
//! writes) and `store` with `signer` (the control plane's). With their feature `crash-points`, which nothing
//! turns on but the build of the test binaries, each passage is a [`Point`]. It has a name that is the same
//! in every run of the same order, so a first run can list the points, and further runs can be ended at each
//! of them. A new effect or a new kind of write is a new point by itself.
//!
//! Three environment variables steer it: [`TRACE`], [`AT`] and [`HOLD`]. A release build that asks for this
//! does not compile.

#[cfg(not(debug_assertions))]
compile_error!("crash points are for tests: no build without debug assertions may have them");

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

/// Names a file: every point that is passed is written to its end, one per line.
pub const TRACE: &str = "SERVERFLOW_CRASH_TRACE";
/// The point at which to stop, as the trace names it.
pub const AT: &str = "SERVERFLOW_CRASH_AT";
/// Without it the process aborts at its point. With it, it makes `<value>.reached`, waits until `<value>.go` is
/// there, and goes on: time for the test to end something else.
pub const HOLD: &str = "SERVERFLOW_CRASH_HOLD";

/// Longest wait for `<HOLD>.go`, in looks of [`LOOK`].
const LOOKS_MAX: u32 = 6_000;
const LOOK: Duration = Duration::from_millis(10);
/// Longest name of a point, in characters.
const NAME_CHARS_MAX: usize = 160;
/// Hexadecimal digits in a row that make an id: shorter ones may be words.
const ID_DIGITS_MIN: usize = 8;

/// How a passage counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It changes something: each passage is a point.
    Change,
    /// It only looks. Looked again, with nothing changed by this process in between, it is the same point:
    /// how often a health check is polled depends on the clock and not on the order.
    Look,
    /// It changes something that others ask for at their own time. A point each, and no reason to count looks anew.
    Aside,
}

#[derive(Default)]
struct Passed {
    times: BTreeMap<String, u32>,
    looked: BTreeSet<String>,
}

static PASSED: Mutex<Option<Passed>> = Mutex::new(None);

struct Settings {
    trace: Option<PathBuf>,
    at: Option<String>,
    hold: Option<PathBuf>,
}

fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| Settings {
        trace: env::var_os(TRACE).map(PathBuf::from),
        at: env::var(AT).ok(),
        hold: env::var_os(HOLD).map(PathBuf::from),
    })
}

/// A door that is being passed.
#[derive(Debug)]
#[must_use = "the far side of the door is a point too: call `after`"]
pub struct Point {
    name: Option<String>,
}

impl Point {
    /// The near side of the door `kind`. `what` says what passes; ids in it are left out of the point's name.
    pub fn before(kind: &str, what: &str, passage: Passage) -> Self {
        let name = count(&format!("{kind} {}", without_ids(what)), passage);
        if let Some(name) = &name {
            reached(&format!("before {name}"));
        }
        Self { name }
    }

    /// The far side: what passed is done.
    pub fn after(self) {
        if let Some(name) = &self.name {
            reached(&format!("after {name}"));
        }
    }
}

/// The name of this passage, unless it is none of its own.
fn count(label: &str, passage: Passage) -> Option<String> {
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    let passed = passed.get_or_insert_default();
    match passage {
        Passage::Change => passed.looked.clear(),
        Passage::Look if !passed.looked.insert(label.to_owned()) => return None,
        Passage::Look | Passage::Aside => {}
    }
    let times = passed.times.entry(label.to_owned()).or_default();
    *times += 1;
    Some(format!("{label} #{times}"))
}

fn reached(point: &str) {
    let settings = settings();
    if let Some(trace) = &settings.trace {
        let file = OpenOptions::new().create(true).append(true).open(trace);
        let written = file.and_then(|mut file| file.write_all(format!("{point}\n").as_bytes()));
        written.expect("the trace can be written");
    }
    if settings.at.as_deref() != Some(point) {
        return;
    }
    match &settings.hold {
        None => std::process::abort(),
        Some(hold) => hold_on(hold),
    }
}

/// Stands still until told to go on. The whole process may stand still: the test wants it so.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing but a file says when to go on, and every task is to wait for it"
)]
fn hold_on(hold: &std::path::Path) {
    fs::write(hold.with_extension("reached"), b"").expect("the mark can be written");
    let go = hold.with_extension("go");
    for _ in 0..LOOKS_MAX {
        if go.exists() {
            return;
        }
        std::thread::sleep(LOOK);
    }
    panic!("nobody made {}", go.display());
}

/// Ids differ from run to run; whatever reads like one becomes `*`.
fn without_ids(what: &str) -> String {
    let mut name = String::new();
    let mut rest = what;
    while !rest.is_empty() {
        let word = rest.find(|c: char| !(c.is_ascii_hexdigit() || c == '-')).unwrap_or(rest.len());
        let (run, behind) = rest.split_at(word);
        let digits = run.bytes().filter(u8::is_ascii_hexdigit).count();
        let has_number = run.bytes().any(|byte| byte.is_ascii_digit());
        name.push_str(if digits >= ID_DIGITS_MIN && has_number { "*" } else { run });
        let other = behind.find(|c: char| c.is_ascii_hexdigit() || c == '-').unwrap_or(behind.len());
        name.push_str(&behind[..other]);
        rest = &behind[other..];
    }
    name.chars().take(NAME_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_no_ids() {
        let tag = r#"ImageTag { tag: "0192d3a4-5b6c-7d8e-9f01-234567890abc", app: "shop-web" }"#;
        assert_eq!(without_ids(tag), r#"ImageTag { tag: "*", app: "shop-web" }"#);
        assert_eq!(without_ids("facade-decade and sha256:0123456789abcdef"), "facade-decade and sha256:*");
    }

    #[test]
    fn a_look_is_counted_once_between_two_changes() {
        let numbers: Vec<Option<String>> =
            [Passage::Look, Passage::Look, Passage::Aside, Passage::Look, Passage::Change, Passage::Look]
                .into_iter()
                .map(|passage| count(if passage == Passage::Look { "look" } else { "other" }, passage))
                .collect();
        let expected = [Some("look #1"), None, Some("other #1"), None, Some("other #2"), Some("look #2")];
        assert_eq!(numbers.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
    }
}
