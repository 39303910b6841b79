//! `docs/ATTACKERS.md` against the tests: a page that names a test which is gone would promise what nobody checks.

use crate::workspace::TextFile;

use super::Finding;

/// The page.
const PAGE: &str = "docs/ATTACKERS.md";

/// Every test that the page names is one, and every row names one.
pub(crate) fn check(files: &[TextFile]) -> Vec<Finding> {
    let Some(page) = files.iter().find(|file| file.path == PAGE) else { return Vec::new() };
    let finding =
        |line: usize, message: String| Finding { rule: "attackers", place: format!("{PAGE}:{line}"), message };
    let mut findings = Vec::new();
    for (at, line) in page.text.lines().enumerate() {
        let Some(tests) = row(line) else { continue };
        if tests.is_empty() {
            findings.push(finding(at + 1, "names an attacker without a test. Write one, or take the row away.".into()));
        }
        for test in tests.iter().filter(|test| !is_test(files, test)) {
            findings.push(finding(
                at + 1,
                format!("names `{test}`, which is no test. Name the one that plays this attacker."),
            ));
        }
    }
    findings
}

/// The tests of a row: what stands between backticks in its last column. `None` for what is no row.
fn row(line: &str) -> Option<Vec<&str>> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
    let tests = cells.last()?;
    let is_head = tests.trim() == "tests" || tests.trim().starts_with("---");
    (cells.len() == 2 && !is_head).then(|| tests.split('`').skip(1).step_by(2).collect())
}

/// Whether a function of that name follows an attribute that makes it a test, or stands among the properties of `proptest!`.
fn is_test(files: &[TextFile], name: &str) -> bool {
    let function = format!("fn {name}(");
    files.iter().filter(|file| file.path.ends_with(".rs")).any(|file| {
        file.text.match_indices(&function).any(|(at, _)| {
            let before = &file.text[..at];
            let lines: Vec<&str> = before.lines().rev().take(4).collect();
            lines.iter().any(|line| line.contains("#[test]") || line.contains("::test"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(page: &str, code: &str) -> Vec<String> {
        let file = |path: &str, text: &str| TextFile { path: path.to_owned(), text: text.to_owned() };
        let files = [file(PAGE, page), file("crates/x/tests/a.rs", code)];
        check(&files).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn each_row_names_tests_that_there_are() {
        let code =
            "#[test]\nfn a_thief_fails() {}\nfn a_helper() {}\n\n\n\n#[tokio::test]\nasync fn a_liar_fails() {}\n";
        let head = "| attacker | tests |\n|---|---|\n";
        assert_eq!(found(&format!("{head}| a `x` thief | `a_thief_fails`, `a_liar_fails` |\n"), code), [""; 0]);
        assert_eq!(found(&format!("{head}| a thief | `a_thief_wins` |\n"), code).len(), 1);
        assert_eq!(found(&format!("{head}| a thief | |\n"), code).len(), 1, "a row without a test");
        assert_eq!(found("words and `code`\n", code), [""; 0], "no row");
    }
}
