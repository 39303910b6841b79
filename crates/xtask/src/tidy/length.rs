//! How long functions and files are: measured here, judged in `ratchet`.

use std::collections::BTreeMap;

use crate::workspace::TextFile;

use super::rust_text::{code_only, item_end};

/// The longest a function should be, from the line of its `fn` to the line of its closing brace.
pub(crate) const FUNCTION_LINES_MAX: u64 = 70;
/// The longest a source file should be.
pub(crate) const FILE_LINES_MAX: u64 = 500;

/// What is longer than it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    /// Path → lines.
    pub(crate) files: BTreeMap<String, u64>,
    /// `path::function` → lines of each function of that name in that file, longest first.
    pub(crate) functions: BTreeMap<String, Vec<u64>>,
}

/// Every Rust file and function above the limits.
pub(crate) fn offenders(files: &[TextFile]) -> Lengths {
    let mut over = Lengths::default();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let lines = file.text.lines().count() as u64;
        if lines > FILE_LINES_MAX {
            over.files.insert(file.path.clone(), lines);
        }
        for (name, lines) in functions(&file.text) {
            if lines > FUNCTION_LINES_MAX {
                over.functions.entry(format!("{}::{name}", file.path)).or_default().push(lines);
            }
        }
    }
    for lengths in over.functions.values_mut() {
        lengths.sort_unstable_by(|a, b| b.cmp(a));
    }
    over
}

/// Each function's name and length, nested ones too.
fn functions(source: &str) -> Vec<(String, u64)> {
    let code = code_only(source);
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let (before, from) = code.split_at(at);
        if before.ends_with(word) {
            continue;
        }
        let name: String = from.chars().skip(3).skip_while(|c| *c == ' ').take_while(|c| word(*c)).collect();
        let Some(item) = item_end(from).and_then(|end| from.get(..end)) else { continue };
        if !name.is_empty() && item.ends_with('}') {
            found.push((name, item.lines().count() as u64));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: String) -> TextFile {
        TextFile { path: path.to_owned(), text }
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let source = "trait T { fn declared(x: [u8; 4]) -> u8; }\nfn short() {}\nconst fn long<T>(\n    a: &'static str,\n) -> T\n\
                      where\n    T: Copy,\n{\n    let s = \"}\"; // }\n    inner()\n}\nlet f: fn(u8) = g;";
        assert_eq!(functions(source), [("short".to_owned(), 1), ("long".to_owned(), 9)]);
    }

    #[test]
    fn only_what_is_too_long_is_listed() {
        let body = |lines: u64| format!("fn f() {{\n{}}}\n", "    x();\n".repeat(usize::try_from(lines - 2).unwrap()));
        assert_eq!(offenders(&[file("a.rs", body(FUNCTION_LINES_MAX))]), Lengths::default());
        let over = offenders(&[file("a.rs", body(FUNCTION_LINES_MAX + 1) + &body(90))]);
        assert_eq!(over.functions["a.rs::f"], [90, 71]);
        assert!(over.files.is_empty());

        let lines = |n: u64| "//\n".repeat(usize::try_from(n).unwrap());
        assert_eq!(offenders(&[file("a.rs", lines(FILE_LINES_MAX))]), Lengths::default());
        assert_eq!(offenders(&[file("a.rs", lines(FILE_LINES_MAX + 1))]).files["a.rs"], 501);
        assert_eq!(offenders(&[file("a.md", lines(900))]), Lengths::default());
    }
}
