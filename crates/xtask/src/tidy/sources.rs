//! Rules over the text of files: words that mean unfinished work, names that say nothing, paths of one machine,
//! crates without an introduction, programs started outside the host's room.

use crate::workspace::TextFile;

use super::Finding;
use super::rust_text::{code_only, without_tests};

/// Words that mark unfinished work. Put together here so that this file does not contain them.
const UNFINISHED_WORDS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
const UNFINISHED_MACROS: [&str; 2] = [concat!("todo", "!"), concat!("unimplemented", "!")];

/// Names that a module gets when nobody has decided what it is.
const EMPTY_NAMES: [&str; 8] = ["common", "util", "utils", "helper", "helpers", "manager", "managers", "misc"];

/// The start of an absolute path that exists on one machine only.
const MACHINE_PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Who may start programs: the host's room, the one file by which a control plane starts its own signer (the program itself,
/// with fixed arguments: nothing an order could reach), and programs that are not part of the product.
const PROCESS_ROOMS: [&str; 5] =
    ["crates/host/", "crates/control-plane/src/signer_process.rs", "crates/load/", "crates/xtask/", "tests/e2e/"];

/// Ways to write "start a program" with the white space taken out.
const PROCESS_WORDS: [&str; 4] = ["process::Command", "process::Stdio", "process::Child", "tokio::process"];

/// Every rule of this module over every file.
pub(crate) fn check(files: &[TextFile]) -> Vec<Finding> {
    files.iter().flat_map(check_file).collect()
}

fn check_file(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(unfinished(file));
    findings.extend(empty_name(file));
    findings.extend(machine_path(file));
    findings.extend(introduction(file));
    findings.extend(process(file));
    findings
}

fn is_rust(file: &TextFile) -> bool {
    file.path.ends_with(".rs")
}

fn unfinished(file: &TextFile) -> Vec<Finding> {
    let letter = |c: char| c.is_alphanumeric() || c == '_';
    let whole_word = |line: &str, word: &str| {
        line.match_indices(word).any(|(at, _)| {
            let (before, rest) = line.split_at(at);
            let after = rest.strip_prefix(word).unwrap_or("");
            !before.ends_with(letter) && !after.starts_with(letter)
        })
    };
    let mut findings = Vec::new();
    let code = if is_rust(file) { code_only(&file.text) } else { String::new() };
    let words = file.text.lines().enumerate().map(|line| (line, &UNFINISHED_WORDS));
    let macros = code.lines().enumerate().map(|line| (line, &UNFINISHED_MACROS));
    for ((number, line), list) in words.chain(macros) {
        for word in list.iter().filter(|word| whole_word(line, word)) {
            findings.push(Finding {
                rule: "unfinished",
                place: format!("{}:{}", file.path, number + 1),
                message: format!(
                    "`{word}` means unfinished work. Finish it, or write an issue and leave no trace here."
                ),
            });
        }
    }
    findings
}

fn empty_name(file: &TextFile) -> Option<Finding> {
    let mut parts = file.path.strip_suffix(".rs")?.split('/');
    let name = parts.find(|part| EMPTY_NAMES.contains(part))?;
    Some(Finding {
        rule: "empty-name",
        place: file.path.clone(),
        message: format!("`{name}` says nothing about what is inside. Name the thing that the code is about."),
    })
}

fn machine_path(file: &TextFile) -> Vec<Finding> {
    // Something before the slash makes it part of a longer path or an address, which is fine.
    let part_of_path = |c: char| c.is_alphanumeric() || "._-~/}*".contains(c);
    let mut findings = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for path in MACHINE_PATHS {
            if line.match_indices(path).any(|(at, _)| !line.split_at(at).0.ends_with(part_of_path)) {
                findings.push(Finding {
                    rule: "machine-path",
                    place: format!("{}:{}", file.path, number + 1),
                    message: format!(
                        "`{path}` is a path of one machine. Use a relative path, or one that the user gives."
                    ),
                });
            }
        }
    }
    findings
}

fn introduction(file: &TextFile) -> Option<Finding> {
    let root = file.path.ends_with("/src/lib.rs") || file.path.ends_with("/src/main.rs");
    (root && !file.text.starts_with("//!")).then(|| Finding {
        rule: "introduction",
        place: file.path.clone(),
        message: "a crate begins with `//!`: the paragraph a newcomer needs, before any code.".to_owned(),
    })
}

fn process(file: &TextFile) -> Vec<Finding> {
    let is_test =
        ["/tests/", "/benches/"].iter().any(|part| file.path.contains(part)) || file.path.ends_with("/tests.rs");
    if !is_rust(file) || is_test || PROCESS_ROOMS.iter().any(|room| file.path.starts_with(room)) {
        return Vec::new();
    }
    let code: String = without_tests(&code_only(&file.text)).split_whitespace().collect();
    let listed = code.split("process::{").skip(1).filter_map(|rest| rest.split('}').next());
    let imported = listed.flat_map(|names| names.split(',')).any(|name| matches!(name, "Command" | "Stdio" | "Child"));
    if !imported && !PROCESS_WORDS.iter().any(|word| code.contains(word)) {
        return Vec::new();
    }
    vec![Finding {
        rule: "process",
        place: file.path.clone(),
        message:
            "starts a program. Only `crates/host` does: what runs on a machine is an effect there, with a typed argv \
                  and a review of its own."
                .to_owned(),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules that `text`, at `path`, breaks.
    fn broken(path: &str, text: &str) -> Vec<&'static str> {
        check_file(&TextFile { path: path.to_owned(), text: text.to_owned() }).into_iter().map(|f| f.rule).collect()
    }

    #[test]
    fn finished_code_passes() {
        let text = "//! A room.\nfn todo_list() { let _ = \"todo!()\"; }\n// mastodon and TODOS are words\n";
        assert_eq!(broken("crates/x/src/lib.rs", text), Vec::<&str>::new());
    }

    #[test]
    fn unfinished_words_are_found_in_every_kind_of_file() {
        for (path, line) in [
            ("a.rs", format!("// {}: later", UNFINISHED_WORDS[0])),
            ("a.sh", format!("# {}(me)", UNFINISHED_WORDS[1])),
            ("a.rs", format!("fn f() {{ {}() }}", UNFINISHED_MACROS[0])),
            ("a.rs", format!("fn f() {{ {}(\"x\") }}", UNFINISHED_MACROS[1])),
        ] {
            assert_eq!(broken(path, &line), ["unfinished"], "{line}");
        }
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        assert_eq!(broken("crates/x/src/retry.rs", ""), Vec::<&str>::new());
        assert_eq!(broken("docs/common.md", ""), Vec::<&str>::new());
        for path in ["crates/x/src/utils.rs", "crates/x/tests/common/mod.rs", "crates/x/src/manager.rs"] {
            assert_eq!(broken(path, ""), ["empty-name"], "{path}");
        }
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        for fine in ["https://example.org/work/x", "./root/a", "/srv/root/x", "working/", "\"$HOME/work/\""] {
            assert_eq!(broken("a.md", fine), Vec::<&str>::new(), "{fine}");
        }
        for path in MACHINE_PATHS {
            assert_eq!(broken("a.md", &format!("see `{path}x`")), ["machine-path"]);
            assert_eq!(broken("a.sh", &format!("cd {path}x")), ["machine-path"]);
        }
    }

    #[test]
    fn crates_introduce_themselves() {
        assert_eq!(broken("crates/x/src/lib.rs", "//! What it is.\n"), Vec::<&str>::new());
        assert_eq!(broken("crates/x/src/other.rs", "fn f() {}"), Vec::<&str>::new());
        assert_eq!(broken("crates/x/src/lib.rs", "pub mod a;\n"), ["introduction"]);
        assert_eq!(broken("crates/x/src/main.rs", ""), ["introduction"]);
    }

    #[test]
    fn programs_are_started_by_the_host_and_by_tests_alone() {
        let spawn = "use std::process::{ExitCode,\n  Command};\nfn f() { Command::new(\"x\"); }";
        for path in ["crates/host/src/a.rs", "crates/agent/tests/a.rs", "tests/e2e/src/a.rs", "crates/x/src/a/tests.rs"]
        {
            assert_eq!(broken(path, spawn), Vec::<&str>::new(), "{path}");
        }
        let exit = "use std::process::{ExitCode, exit};\n// process::Command\n#[cfg(test)]\nmod t { use std::process::Command; }";
        assert_eq!(broken("crates/web/src/a.rs", exit), Vec::<&str>::new());
        for text in [spawn, "fn f() { std :: process :: Command::new(\"x\"); }", "use tokio::process;"] {
            assert_eq!(broken("crates/web/src/a.rs", text), ["process"], "{text}");
        }
    }
}
