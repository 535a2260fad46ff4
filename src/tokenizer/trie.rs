//! A prefix tree over token texts.

pub(super) const NONE: u32 = u32::MAX;
/// The node of the empty text.
pub(super) const ROOT: usize = 0;

/// A node: the text spelled on the way to it.
pub(super) struct Node {
    byte: u8,
    pub first_child: u32,
    pub sibling: u32,
    /// The token with this text, or `NONE`.
    pub token: u32,
}

/// Nodes in order of insertion; a node's children form a list.
pub(super) struct Trie {
    pub nodes: Vec<Node>,
    /// The root has the most children by far and is left most often.
    root: Box<[u32; 256]>,
}

impl Trie {
    pub fn new() -> Trie {
        let root = Node { byte: 0, first_child: NONE, sibling: NONE, token: NONE };
        Trie { nodes: vec![root], root: Box::new([NONE; 256]) }
    }

    /// Adds a token; of equal texts the last stays.
    pub fn insert(&mut self, text: &[u8], token: u32) {
        let mut node = ROOT;
        for &byte in text {
            node = match self.child(node, byte) {
                Some(child) => child,
                None => {
                    let child = self.nodes.len() as u32;
                    let sibling = std::mem::replace(&mut self.nodes[node].first_child, child);
                    self.nodes.push(Node { byte, first_child: NONE, sibling, token: NONE });
                    if node == ROOT {
                        self.root[byte as usize] = child;
                    }
                    child as usize
                }
            };
        }
        self.nodes[node].token = token;
    }

    /// The node one byte further.
    pub fn child(&self, node: usize, byte: u8) -> Option<usize> {
        let mut child = if node == ROOT { self.root[byte as usize] } else { self.nodes[node].first_child };
        while child != NONE {
            let candidate = &self.nodes[child as usize];
            if candidate.byte == byte {
                return Some(child as usize);
            }
            child = candidate.sibling;
        }
        None
    }

    pub fn byte(&self, node: usize) -> u8 {
        self.nodes[node].byte
    }

    /// The longest token with which `text` begins, and its length.
    pub fn longest(&self, text: &[u8]) -> Option<(u32, usize)> {
        let mut node = ROOT;
        let mut found = None;
        for (i, &byte) in text.iter().enumerate() {
            match self.child(node, byte) {
                Some(child) => node = child,
                None => break,
            }
            if self.nodes[node].token != NONE {
                found = Some((self.nodes[node].token, i + 1));
            }
        }
        found
    }
}
