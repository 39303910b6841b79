//! Events → tree. One pass with its own stack, so that depth costs no call stack.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::{Entry, Kind, Node, Rule, path_key};
use crate::{
    limits::{DEPTH_MAX, EXPANDED_BYTES_MAX, FILE_BYTES_MAX, NODES_MAX, TEXT_BYTES_MAX},
    problem::{Collected, Place, Problem, excerpt},
};

/// What a subtree costs when it is put in once more.
#[derive(Clone, Copy, Default)]
struct Weight {
    nodes: usize,
    bytes: usize,
    height: usize,
}

struct Finished {
    node: Rc<Node>,
    weight: Weight,
}

enum Content {
    List(Vec<Rc<Node>>),
    Mapping { entries: Vec<Entry>, keys: BTreeMap<String, Place>, pending: Option<Pending>, merged: Vec<Entry> },
}

/// A key whose value has not come yet.
struct Pending {
    key: String,
    at: Place,
    /// A bare `<<`: the value is merged in.
    merge: bool,
    /// Given before: reported, and the value is dropped.
    duplicate: bool,
}

struct Frame {
    at: Place,
    rule: Rule,
    anchor: usize,
    weight: Weight,
    content: Content,
}

struct Loader<'f> {
    file: &'f str,
    total: Weight,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Finished>,
    root: Option<Rc<Node>>,
    documents: usize,
    problems: &'f mut Collected,
}

/// Reads one document. Duplicate keys are added to `problems` and reading goes on; everything else
/// ends it.
///
/// # Errors
/// The text is too large, not UTF-8, not YAML, or breaks a limit.
pub(crate) fn load(file: &str, source: u16, bytes: &[u8], problems: &mut Collected) -> Result<Rc<Node>, Problem> {
    let text = decode(file, bytes)?;
    let mut loader = Loader {
        file,
        total: Weight::default(),
        stack: Vec::new(),
        anchors: BTreeMap::new(),
        root: None,
        documents: 0,
        problems,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| scan_problem(file, text, &error))?;
        loader.event(event, Place { source, ..place(span.start) })?;
    }
    let nothing = || {
        Problem::new(file, Place::default(), "", "the file holds nothing")
            .with_hint("a Compose file has at least `services:` with one service and its `image:`")
    };
    loader.root.ok_or_else(nothing)
}

/// Checks what must hold before the scanner sees the text: it would take NUL for the end of the
/// file and silently drop the rest.
fn decode<'b>(file: &str, bytes: &'b [u8]) -> Result<&'b str, Problem> {
    if bytes.len() > FILE_BYTES_MAX {
        let message =
            format!("the file has {} bytes, more than the {FILE_BYTES_MAX} that a Compose file may have", bytes.len());
        return Err(Problem::new(file, Place::default(), "", message).with_hint("is this the right file?"));
    }
    let text = core::str::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
        Problem::new(file, place_after(&before), "", "the file is not UTF-8 text here").with_hint("save it as UTF-8")
    })?;
    if let Some(at) = text.find('\0') {
        return Err(Problem::new(file, place_after(&text[..at]), "", "the file has a NUL character here")
            .with_hint("remove it"));
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn place(mark: Marker) -> Place {
    Place { source: 0, line: number(mark.line()), column: number(mark.col()).saturating_add(1) }
}

fn place_after(before: &str) -> Place {
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Place { source: 0, line: number(line), column: number(column) }
}

fn scan_problem(file: &str, text: &str, error: &ScanError) -> Problem {
    let at = place(*error.marker());
    // The scanner reads ahead of its events in flow style, so its own limit (255) may come first.
    if error.info().contains("recursion limit") {
        return Problem::new(file, at, "", format!("nested deeper than {DEPTH_MAX} levels"));
    }
    let problem = Problem::new(file, at, "", format!("not valid YAML: {}", error.info()));
    // A text that goes on in the next line is at fault on the line before the tab.
    let near = text.lines().skip(error.marker().line().saturating_sub(1)).take(2);
    if near.into_iter().any(|line| line[..line.len() - line.trim_start().len()].contains('\t')) {
        return problem.with_hint("a line here is indented with a tab; YAML wants spaces");
    }
    problem.with_hint("look at this line and the one above it: indentation, a missing quote, a missing colon")
}

impl<'f> Loader<'f> {
    fn refuse<T>(&self, at: Place, message: impl Into<String>) -> Result<T, Problem> {
        Err(Problem::new(self.file, at, &self.path(), message))
    }

    /// Path of the node that comes next.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.stack {
            match &frame.content {
                Content::List(items) => path = format!("{path}[{}]", items.len()),
                Content::Mapping { pending: Some(Pending { key, .. }), .. } => path = path_key(&path, key),
                Content::Mapping { pending: None, .. } => {}
            }
        }
        path
    }

    fn event(&mut self, event: Event<'_>, at: Place) -> Result<(), Problem> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let problem = Problem::new(self.file, at, "", "a second YAML document begins here");
                    return Err(problem.with_hint("a Compose file is one document: remove the `---` between them"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => self.scalar(&text, style, anchor, tag.as_deref(), at),
            Event::SequenceStart(anchor, tag) => {
                let rule = self.check_tag(tag.as_deref(), &["seq"], at)?;
                self.open(at, anchor, rule, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                let rule = self.check_tag(tag.as_deref(), &["map"], at)?;
                let (entries, keys, merged) = (Vec::new(), BTreeMap::new(), Vec::new());
                self.open(at, anchor, rule, Content::Mapping { entries, keys, pending: None, merged })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => self.alias(id, at),
        }
    }

    fn check_tag(&self, tag: Option<&Tag>, known: &[&str], at: Place) -> Result<Rule, Problem> {
        let Some(tag) = tag else { return Ok(Rule::Merge) };
        if tag.is_yaml_core_schema() && known.contains(&tag.suffix.as_str()) {
            return Ok(Rule::Merge);
        }
        match (tag.handle.as_str(), tag.suffix.as_str()) {
            ("!", "reset") => return Ok(Rule::Reset),
            ("!", "override") => return Ok(Rule::Override),
            _ => {}
        }
        let shown = excerpt(&format!("{}{}", tag.handle, tag.suffix));
        self.refuse(at, format!("the tag {shown} is not understood here"))
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        at: Place,
    ) -> Result<(), Problem> {
        let rule = self.check_tag(tag, &["str", "int", "float", "bool", "null"], at)?;
        if text.len() > TEXT_BYTES_MAX {
            return self.refuse(at, format!("the text has {} bytes; {TEXT_BYTES_MAX} is the most", text.len()));
        }
        if text.contains('\0') {
            return self.refuse(at, "the text has a NUL character");
        }
        if self.take_key(text, style, at) {
            // An anchor on a key is legal, an alias to it is refused: nobody means it.
            return self.grow(Weight { nodes: 1, bytes: text.len(), height: 0 }, at);
        }
        let tagged_null = rule == Rule::Reset || tag.is_some_and(|tag| tag.suffix == "null");
        let plain_null = style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
        let kind = if tagged_null || (plain_null && (tag.is_none() || rule != Rule::Merge)) {
            Kind::Null
        } else {
            Kind::Text(text.to_owned())
        };
        let weight = Weight { nodes: 1, bytes: text.len(), height: 0 };
        self.grow(weight, at)?;
        self.attach(Rc::new(Node { at, rule, kind }), weight, anchor)
    }

    /// If the innermost mapping waits for a key, takes this text as one.
    fn take_key(&mut self, text: &str, style: ScalarStyle, at: Place) -> bool {
        let Some(Frame { content: Content::Mapping { keys, pending: None, .. }, .. }) = self.stack.last() else {
            return false;
        };
        let merge = text == "<<" && style == ScalarStyle::Plain;
        let first = keys.get(text).copied();
        if let Some(first) = first {
            let message = format!("the key {} is given twice; the first is on line {}", excerpt(text), first.line);
            let hint = if merge { "write one `<<: [*a, *b]`" } else { "remove one of them" };
            let path = path_key(&self.path(), text);
            self.problems.add(Problem::new(self.file, at, &path, message).with_hint(hint));
        }
        if let Some(Frame { content: Content::Mapping { keys, pending, .. }, .. }) = self.stack.last_mut() {
            keys.entry(text.to_owned()).or_insert(at);
            *pending = Some(Pending { key: text.to_owned(), at, merge, duplicate: first.is_some() });
        }
        true
    }

    fn refuse_key_that_is_no_text(&self, at: Place) -> Result<(), Problem> {
        match self.stack.last() {
            Some(Frame { content: Content::Mapping { pending: None, .. }, .. }) => {
                self.refuse(at, "a key must be a plain text, not a list, a mapping or an alias")
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, at: Place, anchor: usize, rule: Rule, content: Content) -> Result<(), Problem> {
        self.refuse_key_that_is_no_text(at)?;
        if self.stack.len() >= DEPTH_MAX {
            return self.refuse_depth(at);
        }
        let weight = Weight { nodes: 1, bytes: 0, height: 1 };
        self.grow(weight, at)?;
        self.stack.push(Frame { at, rule, anchor, weight, content });
        Ok(())
    }

    fn refuse_depth<T>(&self, at: Place) -> Result<T, Problem> {
        // The full path would be as deep as the file is hostile.
        Err(Problem::new(self.file, at, "", format!("nested deeper than {DEPTH_MAX} levels")))
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let kind = match frame.content {
            Content::List(items) => Kind::List(items),
            Content::Mapping { mut entries, mut keys, merged, .. } => {
                // The mapping's own keys win over merged ones, earlier merged ones over later.
                for entry in merged {
                    if !keys.contains_key(&entry.key) {
                        keys.insert(entry.key.clone(), entry.key_at);
                        entries.push(entry);
                    }
                }
                Kind::Mapping(entries)
            }
        };
        self.attach(Rc::new(Node { at: frame.at, rule: frame.rule, kind }), frame.weight, frame.anchor)
    }

    fn alias(&mut self, id: usize, at: Place) -> Result<(), Problem> {
        self.refuse_key_that_is_no_text(at)?;
        let Some(Finished { node, weight }) = self.anchors.get(&id) else {
            return self.refuse(at, "the alias refers to something that contains it, or to a key");
        };
        let (node, weight) = (Rc::clone(node), *weight);
        if self.stack.len() + weight.height > DEPTH_MAX {
            return self.refuse_depth(at);
        }
        self.grow(weight, at)?;
        self.attach(node, weight, 0)
    }

    fn grow(&mut self, by: Weight, at: Place) -> Result<(), Problem> {
        self.total.nodes = self.total.nodes.saturating_add(by.nodes);
        self.total.bytes = self.total.bytes.saturating_add(by.bytes);
        if self.total.nodes > NODES_MAX {
            return Err(Problem::new(
                self.file,
                at,
                "",
                format!("the file grows beyond {NODES_MAX} values when its aliases are put in"),
            ));
        }
        if self.total.bytes > EXPANDED_BYTES_MAX {
            let message = format!("the file grows beyond {EXPANDED_BYTES_MAX} bytes when its aliases are put in");
            return Err(Problem::new(self.file, at, "", message));
        }
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn attach(&mut self, node: Rc<Node>, weight: Weight, anchor: usize) -> Result<(), Problem> {
        if anchor > 0 {
            self.anchors.insert(anchor, Finished { node: Rc::clone(&node), weight });
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        frame.weight.nodes = frame.weight.nodes.saturating_add(weight.nodes);
        frame.weight.bytes = frame.weight.bytes.saturating_add(weight.bytes);
        frame.weight.height = frame.weight.height.max(weight.height + 1);
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Mapping { entries, pending, merged, .. } => {
                // Keys come first in every event stream; without one there is nothing to attach to.
                let Some(Pending { key, at, merge, duplicate }) = pending.take() else { return Ok(()) };
                frame.weight.bytes = frame.weight.bytes.saturating_add(key.len());
                frame.weight.nodes = frame.weight.nodes.saturating_add(1);
                if merge {
                    let wrong = || Problem::new(self.file, at, "", "`<<` takes a mapping or a list of mappings");
                    merged.extend(merge_sources(&node).ok_or_else(wrong)?);
                } else if !duplicate {
                    entries.push(Entry { key, key_at: at, value: node });
                }
            }
        }
        Ok(())
    }
}

/// The entries that `<<: node` brings, the first of each key winning.
fn merge_sources(node: &Node) -> Option<Vec<Entry>> {
    let mappings: Vec<&Node> = match &node.kind {
        Kind::Mapping(_) => vec![node],
        Kind::List(items) => items.iter().map(Rc::as_ref).collect(),
        Kind::Null => return Some(Vec::new()),
        Kind::Text(_) => return None,
    };
    let (mut entries, mut seen) = (Vec::new(), BTreeSet::new());
    for mapping in mappings {
        let Kind::Mapping(from) = &mapping.kind else { return None };
        entries.extend(from.iter().filter(|entry| seen.insert(entry.key.clone())).cloned());
    }
    Some(entries)
}
