//! Splits a command line into words, as Compose does: quotes and backslashes as in POSIX `sh`
//! section 2.2, and nothing else. There is no shell, so an operator that only a shell understands
//! is refused instead of being handed to the program as text.

use zeroize::Zeroizing;

/// Splits `line`. The words are wiped when dropped, since a variable may have reached them.
///
/// # Errors
/// An open quote, a backslash at the end, or an unquoted shell operator.
pub(crate) fn split(line: &str) -> Result<Vec<Zeroizing<String>>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<Zeroizing<String>> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            ';' | '&' | '|' | '<' | '>' => {
                return Err("an unquoted shell operator (; & | < >), but no shell runs it");
            }
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err("a backslash at its end"),
            },
            '\'' => single_quoted(&mut chars, word.get_or_insert_default())?,
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn single_quoted(chars: &mut core::str::Chars<'_>, word: &mut String) -> Result<(), &'static str> {
    for c in chars {
        match c {
            '\'' => return Ok(()),
            c => word.push(c),
        }
    }
    Err("a single quote that is never closed")
}

fn double_quoted(chars: &mut core::str::Chars<'_>, word: &mut String) -> Result<(), &'static str> {
    const UNCLOSED: &str = "a double quote that is never closed";
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok(()),
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(next @ ('\\' | '"' | '$' | '`')) => word.push(next),
                Some(next) => word.extend(['\\', next]),
                None => return Err(UNCLOSED),
            },
            c => word.push(c),
        }
    }
    Err(UNCLOSED)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(line: &str, expected: Result<&[&str], &str>) {
        let words = split(line).map(|words| words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        let expected = expected.map(|words| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        match (words, expected) {
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{line}: {reason}"),
            (words, expected) => assert_eq!(words.map_err(str::to_owned), expected.map_err(str::to_owned), "{line}"),
        }
    }

    #[test]
    fn lines_are_split_as_a_shell_would() {
        check("", Ok(&[]));
        check("  nginx  -g 'daemon off;' ", Ok(&["nginx", "-g", "daemon off;"]));
        check(r#"sh -c "echo \"a b\" && exit 0""#, Ok(&["sh", "-c", r#"echo "a b" && exit 0"#]));
        check(r#"a\ b "c\d" '' e""f"#, Ok(&["a b", r"c\d", "", "ef"]));
        check("a \\\n b", Ok(&["a", "b"]));
        check("a && b", Err("shell operator"));
        check("a > b", Err("shell operator"));
        check("a 'b", Err("single quote"));
        check("a \"b", Err("double quote"));
        check("a \\", Err("backslash"));
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(words in proptest::collection::vec("[^\0]{0,12}", 0..6)) {
            let line: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
            let split: Vec<String> = split(&line.join(" ")).unwrap().iter().map(|word| word.to_string()).collect();
            prop_assert_eq!(split, words);
        }

        #[test]
        fn any_line_is_split_or_refused(line in any::<String>()) {
            let _ = split(&line);
        }
    }
}
