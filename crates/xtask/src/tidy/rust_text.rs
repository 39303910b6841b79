//! Just enough of Rust's lexical grammar to look at code without being fooled by comments and literals.

/// The source with comments and the insides of string and character literals replaced by spaces. Line breaks stay
/// where they were, so line numbers still hold.
pub(crate) fn code_only(source: &str) -> String {
    let mut scan = Scan { chars: source.chars().collect(), at: 0, out: String::with_capacity(source.len()) };
    while scan.at < scan.chars.len() {
        scan.step();
    }
    scan.out
}

struct Scan {
    chars: Vec<char>,
    at: usize,
    out: String,
}

impl Scan {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn keep(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(c) = self.peek(0) {
                self.out.push(c);
                self.at += 1;
            }
        }
    }

    fn blank(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(c) = self.peek(0) {
                self.out.push(if c == '\n' { '\n' } else { ' ' });
                self.at += 1;
            }
        }
    }

    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            (Some('/'), Some('/')) => {
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.blank(1);
                }
            }
            (Some('/'), Some('*')) => self.block_comment(),
            (Some('"'), _) => self.string(),
            (Some('r'), _) if !self.after_word() && self.raw_hashes().is_some() => {
                let hashes = self.raw_hashes().unwrap_or(0);
                self.raw_string(hashes);
            }
            (Some('\''), _) => self.quote(),
            _ => self.keep(1),
        }
    }

    /// Does the previous character belong to a word, apart from the literal prefixes `b` and `c`?
    fn after_word(&self) -> bool {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let before = |n: usize| self.at.checked_sub(n).and_then(|i| self.chars.get(i)).copied();
        match before(1) {
            Some('b' | 'c') => before(2).is_some_and(word),
            Some(c) => word(c),
            None => false,
        }
    }

    /// At an `r`: the number of `#` of the raw string that begins here, if one does.
    fn raw_hashes(&self) -> Option<usize> {
        let hashes = (1..).take_while(|&n| self.peek(n) == Some('#')).count();
        (self.peek(1 + hashes) == Some('"')).then_some(hashes)
    }

    fn raw_string(&mut self, hashes: usize) {
        self.keep(2 + hashes);
        while self.at < self.chars.len() {
            if self.peek(0) == Some('"') && (1..=hashes).all(|n| self.peek(n) == Some('#')) {
                self.keep(1 + hashes);
                return;
            }
            self.blank(1);
        }
    }

    fn string(&mut self) {
        self.keep(1);
        while let Some(c) = self.peek(0) {
            match c {
                '\\' => self.blank(2),
                '"' => return self.keep(1),
                _ => self.blank(1),
            }
        }
    }

    /// A character literal, or a lifetime, which has no closing quote.
    fn quote(&mut self) {
        if self.peek(1) == Some('\\') {
            self.keep(1);
            self.blank(2);
            while self.peek(0).is_some_and(|c| c != '\'') {
                self.blank(1);
            }
            self.keep(1);
        } else if self.peek(2) == Some('\'') {
            self.keep(1);
            self.blank(1);
            self.keep(1);
        } else {
            self.keep(1);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    depth += 1;
                    self.blank(2);
                }
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    self.blank(2);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.blank(1),
            }
        }
    }
}

/// `code` (as [`code_only`] gives it) without the items marked `#[cfg(test)]`.
pub(crate) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        let (before, marked) = rest.split_at(at);
        out.push_str(before);
        let end = item_end(marked.get(MARK.len()..).unwrap_or("")).map_or(marked.len(), |end| MARK.len() + end);
        let (item, after) = marked.split_at(end);
        out.extend(item.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The byte after the item that begins `code`: after its `;`, or after the brace that closes its first block.
pub(crate) fn item_end(code: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0_i64, 0_i64);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 {
                    return Some(at + 1);
                }
            }
            ';' if braces == 0 && brackets == 0 => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_go_and_lines_stay() {
        let source = "let a = \"x // {\\\" y\"; // {\nlet b = r#\"{\"}\"#; /* { /* */ } */ let c: &'a char = &'{'; let d = '\\'';\nend";
        let code = code_only(source);
        assert_eq!(code.lines().count(), source.lines().count());
        assert!(!code.contains('{') && !code.contains('}'), "{code}");
        assert!(code.contains("&'a char") && code.ends_with("end"), "{code}");
    }

    #[test]
    fn an_identifier_that_ends_in_r_is_no_raw_string() {
        assert_eq!(code_only("for\"x\" br\"{\" r#fn {"), "for\" \" br\" \" r#fn {");
    }

    #[test]
    fn test_modules_are_left_out() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod more;\nfn d() {}";
        let left = without_tests(code);
        assert!(left.contains("fn a") && left.contains("fn c") && left.contains("fn d"));
        assert!(!left.contains("fn b") && !left.contains("more"));
        assert_eq!(left.lines().count(), code.lines().count());
    }
}
