//! One tree for YAML and JSON with the place of every node, in as little memory as a large file needs:
//! nodes lie in one vector in document order, scalars in one string.
//!
//! What a scalar means is not decided here but by the field it is read into.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::codes::Code;
use crate::finding::{Finding, Place, Severity};
use crate::variable;

/// What a node is. A plain scalar may become a number or a boolean, a quoted one is a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Plain,
    Quoted,
    Sequence,
    Mapping,
}

/// A parsed document.
#[derive(Debug)]
pub(crate) struct Tree {
    file: Arc<str>,
    yaml: bool,
    nodes: Vec<Slot>,
    text: String,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    kind: Kind,
    line: u32,
    column: u32,
    /// Index past this node and all below it.
    end: u32,
    /// Of a scalar, where its text starts in `Tree::text`; of a collection, its first child. What lies
    /// between a collection and its first child was replaced (`<<`) but may still have anchors.
    start: u32,
    /// Of a scalar.
    text_length: u32,
}

/// A node of a [`Tree`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node<'t> {
    tree: &'t Tree,
    index: u32,
}

impl Tree {
    /// Fills in `${VAR}` and `${VAR:-default}` in values, never in keys: what is filled in cannot change the structure.
    pub(crate) fn substitute(&mut self, environment: &HashMap<String, String>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut open = vec![0];
        let mut added = 0;
        while let Some(index) = open.pop() {
            let node = Node { tree: self, index };
            match node.kind() {
                Kind::Mapping => open.extend(node.entries().map(|(_, value)| value.index)),
                Kind::Sequence => open.extend(node.children().map(|item| item.index)),
                _ if !node.text().contains('$') => {}
                _ => {
                    let place = Some(node.place());
                    let error =
                        |code, message| Finding::new(Severity::Error, code, String::new(), place, message);
                    match variable::substitute(node.text(), environment) {
                        Ok(text) if added + text.len() > MAX_COPIED_TEXT => {
                            findings.push(error(
                                Code::TOO_LARGE,
                                "variables make this document too large".into(),
                            ));
                            break;
                        }
                        Ok(text) => {
                            added += text.len();
                            let start = self.text.len() as u32;
                            self.text.push_str(&text);
                            let slot = &mut self.nodes[index as usize];
                            (slot.start, slot.text_length) = (start, text.len() as u32);
                            if text.is_empty() {
                                slot.kind = Kind::Quoted;
                            }
                        }
                        Err((code, message)) => findings.push(error(code, message)),
                    }
                }
            }
        }
        findings
    }

    /// The outermost node.
    pub(crate) fn root(&self) -> Node<'_> {
        Node { tree: self, index: 0 }
    }
}

impl<'t> Node<'t> {
    pub(crate) fn kind(self) -> Kind {
        self.slot().kind
    }

    /// The text of a scalar; empty for a sequence or mapping.
    pub(crate) fn text(self) -> &'t str {
        let slot = self.slot();
        if matches!(slot.kind, Kind::Sequence | Kind::Mapping) {
            return "";
        }
        let start = slot.start as usize;
        &self.tree.text[start..start + slot.text_length as usize]
    }

    pub(crate) fn place(self) -> Place {
        let slot = self.slot();
        Place { file: self.tree.file.clone(), line: slot.line, column: slot.column }
    }

    /// From where to where the node with all below it stands, rather too far than not far enough.
    pub(crate) fn span(self) -> (Position, Position) {
        let slot = self.slot();
        let inside = &self.tree.nodes[self.index as usize..slot.end as usize];
        let at = |slot: &Slot| Position { line: slot.line, column: slot.column };
        let last = inside.iter().map(at).max().unwrap_or(at(slot));
        // A scalar does not tell its end; it is before what comes next, unless that comes from an alias.
        let next = self.tree.nodes.get(slot.end as usize).map(at).filter(|next| *next > last);
        (
            inside.iter().map(at).min().unwrap_or(last),
            next.unwrap_or(Position { line: u32::MAX, column: u32::MAX }),
        )
    }

    /// The file that it stands in.
    pub(crate) fn file(self) -> &'t Arc<str> {
        &self.tree.file
    }

    /// The elements of a sequence; of a mapping, its keys and values in turn.
    pub(crate) fn children(self) -> Children<'t> {
        let slot = self.slot();
        let next = if matches!(slot.kind, Kind::Sequence | Kind::Mapping) { slot.start } else { slot.end };
        Children { tree: self.tree, next, end: slot.end }
    }

    /// The entries of a mapping as (key, value).
    pub(crate) fn entries(self) -> Entries<'t> {
        let mut children = self.children();
        if self.kind() != Kind::Mapping {
            children.next = children.end;
        }
        Entries { children }
    }

    /// Whether the text was YAML, whose unquoted scalars may be strings.
    pub(crate) fn is_yaml(self) -> bool {
        self.tree.yaml
    }

    /// How a person would call this node.
    pub(crate) fn describe(self) -> &'static str {
        match self.kind() {
            Kind::Null => "null",
            Kind::Plain => match crate::scalar::Scalar::of(self) {
                crate::scalar::Scalar::Bool(_) => "a boolean",
                crate::scalar::Scalar::Integer(_) | crate::scalar::Scalar::Number(_) => "a number",
                crate::scalar::Scalar::Text(_) => "a string",
            },
            Kind::Quoted => "a string",
            Kind::Sequence => "a list",
            Kind::Mapping => "a mapping",
        }
    }

    fn slot(self) -> &'t Slot {
        &self.tree.nodes[self.index as usize]
    }
}

/// Iterator over the nodes directly below one.
pub(crate) struct Children<'t> {
    tree: &'t Tree,
    next: u32,
    end: u32,
}

impl<'t> Iterator for Children<'t> {
    type Item = Node<'t>;

    fn next(&mut self) -> Option<Node<'t>> {
        if self.next >= self.end {
            return None;
        }
        let node = Node { tree: self.tree, index: self.next };
        self.next = node.slot().end;
        Some(node)
    }
}

/// Iterator over the entries of a mapping.
pub(crate) struct Entries<'t> {
    children: Children<'t>,
}

impl<'t> Iterator for Entries<'t> {
    type Item = (Node<'t>, Node<'t>);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.children.next()?, self.children.next()?))
    }
}

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// Builds a tree from the events of a parser, with the limits that keep a hostile document small.
pub(crate) struct Builder {
    tree: Tree,
    open: Vec<u32>,
    anchors: HashMap<usize, u32>,
    /// Keys of entries that are to be skipped, in document order.
    ignored: Vec<u32>,
    copied_nodes: usize,
    copied_text: usize,
    findings: Vec<Finding>,
}

/// Parsing stops; the finding is in the builder.
#[derive(Debug)]
pub(crate) struct Stop;

impl Builder {
    pub(crate) fn new(file: Arc<str>, yaml: bool, size_hint: usize) -> Builder {
        let tree = Tree {
            file,
            yaml,
            nodes: Vec::with_capacity(size_hint / 16),
            text: String::with_capacity(size_hint / 2),
        };
        Builder {
            tree,
            open: Vec::new(),
            anchors: HashMap::new(),
            ignored: Vec::new(),
            copied_nodes: 0,
            copied_text: 0,
            findings: Vec::new(),
        }
    }

    /// The tree unless parsing stopped, and what was found.
    pub(crate) fn finish(mut self, parsed: Result<(), Stop>) -> (Option<Tree>, Vec<Finding>) {
        if parsed.is_ok() && self.tree.nodes.is_empty() {
            self.finding(
                Position { line: 1, column: 1 },
                Code::EMPTY_DOCUMENT,
                "the document is empty".to_owned(),
            );
        }
        let whole = parsed.is_ok() && !self.tree.nodes.is_empty();
        (whole.then_some(self.tree), self.findings)
    }

    pub(crate) fn scalar(&mut self, kind: Kind, text: &str, at: Position) -> Result<u32, Stop> {
        let start = self.tree.text.len();
        if start + text.len() > MAX_TEXT {
            return Err(self.stop(at, Code::TOO_LARGE, "the document is too large"));
        }
        self.tree.text.push_str(text);
        self.push(Slot {
            kind,
            line: at.line,
            column: at.column,
            end: 0,
            start: start as u32,
            text_length: text.len() as u32,
        })
    }

    pub(crate) fn open(&mut self, kind: Kind, at: Position) -> Result<u32, Stop> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.stop(at, Code::TOO_DEEP, &format!("nested more than {MAX_DEPTH} levels deep")));
        }
        let start = self.tree.nodes.len() as u32 + 1;
        let slot = Slot { kind, line: at.line, column: at.column, end: 0, start, text_length: 0 };
        let index = self.push(slot)?;
        self.open.push(index);
        Ok(index)
    }

    pub(crate) fn close(&mut self) -> Result<(), Stop> {
        let Some(index) = self.open.pop() else { return Ok(()) };
        self.tree.nodes[index as usize].end = self.tree.nodes.len() as u32;
        if self.tree.nodes[index as usize].kind == Kind::Mapping {
            self.close_mapping(index)?;
        }
        Ok(())
    }

    pub(crate) fn anchor(&mut self, anchor: usize, node: u32) {
        self.anchors.insert(anchor, node);
    }

    /// The entry whose key `node` is does not count.
    pub(crate) fn ignore(&mut self, node: u32) {
        self.ignored.push(node);
    }

    /// Copies the node that `anchor` names, with its places.
    pub(crate) fn alias(&mut self, anchor: usize, at: Position) -> Result<(), Stop> {
        let Some(&from) = self.anchors.get(&anchor) else {
            return Err(self.stop(
                at,
                Code::UNKNOWN_ANCHOR,
                "alias to an anchor that is not in this document",
            ));
        };
        if self.open.contains(&from) {
            return Err(self.stop(
                at,
                Code::UNKNOWN_ANCHOR,
                "an alias must not lie inside what it stands for",
            ));
        }
        let end = self.tree.nodes[from as usize].end;
        self.expand(from, end, at)
    }

    /// As `copy`, within what aliases may add.
    fn expand(&mut self, from: u32, end: u32, at: Position) -> Result<(), Stop> {
        let range = from as usize..end as usize;
        self.copied_nodes += range.len();
        self.copied_text +=
            self.tree.nodes[range].iter().map(|slot| slot.text_length as usize).sum::<usize>();
        if self.copied_nodes > MAX_COPIED_NODES || self.copied_text > MAX_COPIED_TEXT {
            return Err(self.stop(at, Code::TOO_LARGE, "aliases make this document too large"));
        }
        let depth = self.open.len() + self.height(from, end);
        if depth > MAX_DEPTH {
            return Err(self.stop(at, Code::TOO_DEEP, &format!("nested more than {MAX_DEPTH} levels deep")));
        }
        self.copy(from, end, at)
    }

    /// Appends a copy of a finished subtree.
    fn copy(&mut self, from: u32, end: u32, at: Position) -> Result<(), Stop> {
        let range = from as usize..end as usize;
        if self.tree.nodes.len() + range.len() > MAX_NODES {
            return Err(self.stop(at, Code::TOO_LARGE, "the document is too large"));
        }
        let shift = self.tree.nodes.len() as u32 - from;
        self.tree.nodes.extend_from_within(range);
        for slot in &mut self.tree.nodes[(from + shift) as usize..] {
            slot.end += shift;
            if matches!(slot.kind, Kind::Sequence | Kind::Mapping) {
                slot.start += shift;
            }
        }
        Ok(())
    }

    /// Levels of collections in the subtree.
    fn height(&self, from: u32, end: u32) -> usize {
        let mut ends: Vec<u32> = Vec::new();
        let mut height = 0;
        for index in from..end {
            let slot = &self.tree.nodes[index as usize];
            while ends.last().is_some_and(|end| *end <= index) {
                ends.pop();
            }
            if matches!(slot.kind, Kind::Mapping | Kind::Sequence) {
                ends.push(slot.end);
                height = height.max(ends.len());
            }
        }
        height
    }

    fn push(&mut self, mut slot: Slot) -> Result<u32, Stop> {
        let index = self.tree.nodes.len();
        if index >= MAX_NODES {
            let at = Position { line: slot.line, column: slot.column };
            return Err(self.stop(at, Code::TOO_LARGE, "the document is too large"));
        }
        slot.end = index as u32 + 1;
        self.tree.nodes.push(slot);
        Ok(index as u32)
    }

    fn close_mapping(&mut self, index: u32) -> Result<(), Stop> {
        let mapping = Node { tree: &self.tree, index };
        let mut seen = Keys::default();
        let mut twice = Vec::new();
        let mut bad = Vec::new();
        let mut rewrite = false;
        for (key, _) in mapping.entries() {
            if matches!(key.kind(), Kind::Sequence | Kind::Mapping) {
                bad.push(key.index);
            } else if key.kind() == Kind::Plain && key.text() == "<<" {
                rewrite = true;
            } else if let Some(first) = seen.insert(key) {
                twice.push((key.index, first));
            }
        }
        rewrite |= self.ignored.last().is_some_and(|node| *node > index);
        for key in bad {
            self.finding(self.position(key), Code::BAD_KEY, "a mapping key must be a scalar".to_owned());
        }
        for (key, first) in twice {
            let Position { line, column } = self.position(first);
            let text = Node { tree: &self.tree, index: key }.text().to_owned();
            let message = format!("`{text}` is given twice, first at line {line}, column {column}");
            self.finding(self.position(key), Code::DUPLICATE_KEY, message);
        }
        if rewrite { self.rewrite_mapping(index) } else { Ok(()) }
    }

    /// Drops ignored entries and replaces `<<` by the entries it stands for, own entries first. The new
    /// entries are appended, so that anchors keep naming the old ones.
    fn rewrite_mapping(&mut self, index: u32) -> Result<(), Stop> {
        let first_child = self.tree.nodes.len() as u32;
        let at = self.position(index);
        if let Some(at) = self.merge_key(index) {
            let message = "a merge key, which Envoy does not know";
            self.finding(at, Code::MERGE_KEY, message.to_owned());
        }
        let (own, sources, wrong) = self.merge_parts(index);
        for node in wrong {
            self.finding(
                self.position(node),
                Code::BAD_MERGE,
                "`<<` takes a mapping or a list of them".to_owned(),
            );
        }
        let text = |node| Node { tree: &self.tree, index: node }.text();
        let mut keys: HashSet<&str> = own.iter().map(|(key, _)| text(*key)).collect();
        let mut merged = Vec::new();
        for source in sources {
            for (key, value) in (Node { tree: &self.tree, index: source }).entries() {
                if keys.insert(key.text()) {
                    merged.push((key.index, value.slot().end));
                }
            }
        }
        for (key, end) in own {
            self.copy(key, end, at)?;
        }
        for (key, end) in merged {
            self.expand(key, end, at)?;
        }
        let end = self.tree.nodes.len() as u32;
        let mapping = &mut self.tree.nodes[index as usize];
        (mapping.start, mapping.end) = (first_child, end);
        while self.ignored.last().is_some_and(|node| *node > index) {
            self.ignored.pop();
        }
        Ok(())
    }

    fn merge_key(&self, index: u32) -> Option<Position> {
        let mapping = Node { tree: &self.tree, index };
        let mut keys = mapping.entries().map(|(key, _)| key);
        let key = keys.find(|key| key.kind() == Kind::Plain && key.text() == "<<")?;
        Some(self.position(key.index))
    }

    /// Of a mapping: its own entries as (key, end of the value), the mappings that `<<` names, and what
    /// `<<` cannot take.
    fn merge_parts(&self, index: u32) -> (Vec<(u32, u32)>, Vec<u32>, Vec<u32>) {
        let (mut own, mut sources, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
        let mut sort = |node: Node<'_>| {
            if node.kind() == Kind::Mapping { sources.push(node.index) } else { wrong.push(node.index) }
        };
        for (key, value) in (Node { tree: &self.tree, index }).entries() {
            if self.ignored.binary_search(&key.index).is_ok() {
                continue;
            }
            if key.kind() != Kind::Plain || key.text() != "<<" {
                own.push((key.index, value.slot().end));
            } else if value.kind() == Kind::Sequence {
                value.children().for_each(&mut sort);
            } else {
                sort(value);
            }
        }
        (own, sources, wrong)
    }

    fn position(&self, index: u32) -> Position {
        let slot = &self.tree.nodes[index as usize];
        Position { line: slot.line, column: slot.column }
    }

    pub(crate) fn stop(&mut self, at: Position, code: Code, message: &str) -> Stop {
        self.finding(at, code, message.to_owned());
        Stop
    }

    fn finding(&mut self, at: Position, code: Code, message: String) {
        if self.findings.len() < crate::finding::MAX_FINDINGS {
            let place = Some(Place { file: self.tree.file.clone(), line: at.line, column: at.column });
            let severity = if code == Code::MERGE_KEY { Severity::Warning } else { Severity::Error };
            self.findings.push(Finding::new(severity, code, String::new(), place, message));
        }
    }
}

/// The keys of one mapping seen so far; a scan while they are few.
#[derive(Default)]
struct Keys<'t> {
    few: Vec<(&'t str, u32)>,
    many: HashMap<&'t str, u32>,
}

impl<'t> Keys<'t> {
    /// The node of an equal earlier key, if there is one.
    fn insert(&mut self, key: Node<'t>) -> Option<u32> {
        if self.few.len() < 16 {
            if let Some((_, first)) = self.few.iter().find(|(text, _)| *text == key.text()) {
                return Some(*first);
            }
            self.few.push((key.text(), key.index));
            return None;
        }
        if self.many.is_empty() {
            self.many.extend(self.few.iter().copied());
        }
        match self.many.entry(key.text()) {
            std::collections::hash_map::Entry::Occupied(first) => Some(*first.get()),
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(key.index);
                None
            }
        }
    }
}

/// Deepest nesting of lists and mappings; protobuf's own limit for messages.
pub(crate) const MAX_DEPTH: usize = 100;
/// 24 bytes each.
const MAX_NODES: usize = 16 << 20;
const MAX_TEXT: usize = 256 << 20;
/// What aliases may add to a document.
const MAX_COPIED_NODES: usize = 1 << 20;
const MAX_COPIED_TEXT: usize = 16 << 20;
