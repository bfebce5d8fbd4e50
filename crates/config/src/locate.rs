//! From a field path to the place in the file that one would edit.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::finding::{Path, Place, Step};
use crate::tree::{Kind, Node, Tree};

/// Looks places up in the trees that a message was read from. Later trees were merged over earlier
/// ones as protobuf merges: lists appended, mappings joined, scalars replaced.
#[derive(Debug, Default, Clone)]
pub struct Locator {
    trees: Vec<Arc<Tree>>,
}

/// A node and the key it stands under.
#[derive(Debug, Clone, Copy)]
struct Spot<'t> {
    key: Option<Node<'t>>,
    node: Node<'t>,
}

impl Locator {
    /// A locator for what was read from `trees`, merged in this order.
    pub(crate) fn new(trees: Vec<Arc<Tree>>) -> Locator {
        Locator { trees }
    }

    /// The place of the node at `path`, or of its nearest existing ancestor. A value that begins below
    /// its key is shown by the key.
    pub fn place(&self, path: &Path<'_>) -> Option<Place> {
        let spot = self.find(path)?;
        let (value, key) = (spot.node.place(), spot.key.map(Node::place));
        Some(key.filter(|key| key.line != value.line).unwrap_or(value))
    }

    /// The place of the key of the field at `path`, if it has one; else as [`Locator::place`].
    pub fn key_place(&self, path: &Path<'_>) -> Option<Place> {
        self.find(path)?.key.map(Node::place).or_else(|| self.place(path))
    }

    fn find(&self, path: &Path<'_>) -> Option<Spot<'_>> {
        let roots = self.trees.iter().map(|tree| Spot { key: None, node: tree.root() });
        let mut spots: SmallVec<[Spot<'_>; 2]> = roots.collect();
        for step in path.steps() {
            let next = match step {
                Step::Root => continue,
                Step::Field(name) => spots.iter().filter_map(|spot| field(spot.node, name)).collect(),
                Step::Key(key) => spots.iter().filter_map(|spot| entry(spot.node, key)).collect(),
                Step::Index(index) => element(&spots, index),
            };
            if next.is_empty() {
                break;
            }
            spots = next;
            // Messages and lists of all trees were merged; of anything else the last one counts.
            let merged = spots.iter().rposition(|spot| !mergeable(spot.node)).unwrap_or(0);
            spots.drain(..merged);
        }
        spots.last().copied()
    }
}

/// An `Any` is replaced as a whole.
fn mergeable(node: Node<'_>) -> bool {
    match node.kind() {
        Kind::Sequence => true,
        Kind::Mapping => !node.entries().any(|(key, _)| key.text() == "@type"),
        _ => false,
    }
}

fn field<'t>(node: Node<'t>, name: &str) -> Option<Spot<'t>> {
    let found =
        node.entries().filter(|(key, _)| key.text() == name || is_camel_case_of(key.text(), name)).last();
    if let Some((key, node)) = found {
        return Some(Spot { key: Some(key), node });
    }
    // A TypedStruct holds the fields one level further down.
    let (_, url) = node.entries().find(|(key, _)| key.text() == "@type")?;
    let (_, value) = node.entries().find(|(key, _)| key.text() == "value")?;
    if url.text().ends_with(".TypedStruct") { field(value, name) } else { None }
}

fn entry<'t>(node: Node<'t>, name: &str) -> Option<Spot<'t>> {
    let (key, node) = node.entries().filter(|(key, _)| key.text() == name).last()?;
    Some(Spot { key: Some(key), node })
}

fn element<'t>(spots: &[Spot<'t>], mut index: usize) -> SmallVec<[Spot<'t>; 2]> {
    let mut found = SmallVec::new();
    for spot in spots {
        // One element in place of a list.
        if spot.node.kind() != Kind::Sequence {
            if index == 0 {
                found.push(*spot);
                break;
            }
            index -= 1;
            continue;
        }
        match spot.node.children().nth(index) {
            Some(node) => {
                found.push(Spot { key: None, node });
                break;
            }
            None => index -= spot.node.children().count(),
        }
    }
    found
}

/// Whether `camel` is the lowerCamelCase form of `snake`.
fn is_camel_case_of(camel: &str, snake: &str) -> bool {
    let mut upper = false;
    let mut letters = camel.bytes();
    for byte in snake.bytes() {
        if byte == b'_' {
            upper = true;
            continue;
        }
        let expected = if upper { byte.to_ascii_uppercase() } else { byte };
        upper = false;
        if letters.next() != Some(expected) {
            return false;
        }
    }
    letters.next().is_none()
}
