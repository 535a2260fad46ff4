//! The tokens of a vocabulary as a tree of bytes, so that what tokens share is looked at once.

use crate::tokenizer::Tokenizer;

/// One byte after those of the nodes above.
#[derive(Clone, Copy)]
pub(super) struct Byte {
    pub byte: u8,
    /// How many bytes lie above.
    pub depth: u32,
    /// The node after this one and all below it.
    pub skip: u32,
    /// Where its own tokens begin; they end where those of the next node begin.
    pub first: u32,
}

/// All tokens that stand for text, as nodes in depth-first order.
pub struct TokenTrie {
    pub(super) nodes: Vec<Byte>,
    /// Tokens in the order of their bytes.
    pub(super) tokens: Vec<u32>,
    /// Tokens that end a text.
    pub(super) ends: Vec<u32>,
    pub(super) n_vocab: usize,
}

impl TokenTrie {
    /// The tree of a tokenizer's vocabulary. Control tokens and those without a text are not in it.
    pub fn new(tokenizer: &Tokenizer) -> TokenTrie {
        let n_vocab = tokenizer.n_vocab();
        let ids = 0..n_vocab as u32;
        let ends = ids.clone().filter(|&id| tokenizer.is_eog(id)).collect();
        let text = |id: u32| tokenizer.token_bytes(id).unwrap_or_default();
        let is_text = |&id: &u32| !tokenizer.is_control(id) && !tokenizer.is_eog(id) && !text(id).is_empty();
        let tokens = ids.filter(is_text).map(|id| (text(id), id)).collect();
        TokenTrie::build(tokens, ends, n_vocab)
    }

    fn build(mut tokens: Vec<(&[u8], u32)>, ends: Vec<u32>, n_vocab: usize) -> TokenTrie {
        tokens.sort_unstable();
        let mut nodes: Vec<Byte> = Vec::new();
        // The nodes of the last token.
        let mut path: Vec<u32> = Vec::new();
        let mut last: &[u8] = &[];
        for (i, &(text, _)) in tokens.iter().enumerate() {
            let shared = last.iter().zip(text).take_while(|(a, b)| a == b).count();
            for node in path.drain(shared..) {
                nodes[node as usize].skip = nodes_len(&nodes);
            }
            for (depth, &byte) in text.iter().enumerate().skip(shared) {
                path.push(nodes_len(&nodes));
                nodes.push(Byte { byte, depth: depth as u32, skip: 0, first: i as u32 });
            }
            last = text;
        }
        for node in path {
            nodes[node as usize].skip = nodes_len(&nodes);
        }
        // The end of the last node's tokens.
        nodes.push(Byte { byte: 0, depth: 0, skip: nodes_len(&nodes) + 1, first: tokens.len() as u32 });
        TokenTrie { nodes, tokens: tokens.into_iter().map(|t| t.1).collect(), ends, n_vocab }
    }

    /// Number of nodes.
    pub(super) fn n_nodes(&self) -> usize {
        self.nodes.len() - 1
    }
}

fn nodes_len(nodes: &[Byte]) -> u32 {
    nodes.len() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_found_below_its_bytes() {
        let words: [&[u8]; 7] = [b"b", b"abc", b"a", b"ab", b"ab", b"xyz", b"abd"];
        let tokens = words.iter().copied().zip(0..).collect();
        let trie = TokenTrie::build(tokens, Vec::new(), 7);
        // a ab abc abd b x xy xyz
        assert_eq!(trie.n_nodes(), 8);
        let mut found = Vec::new();
        let mut text = Vec::new();
        for i in 0..trie.n_nodes() {
            let node = trie.nodes[i];
            text.truncate(node.depth as usize);
            text.push(node.byte);
            for at in node.first..trie.nodes[i + 1].first {
                found.push((trie.tokens[at as usize], text.clone()));
            }
            let below = trie.nodes[i + 1..].iter().take_while(|n| n.depth > node.depth).count();
            assert_eq!(node.skip as usize, i + 1 + below.min(trie.n_nodes() - i - 1), "{i}");
        }
        found.sort();
        let want: Vec<(u32, Vec<u8>)> = (0..).zip(words.map(<[u8]>::to_vec)).collect();
        assert_eq!(found, want);
    }
}
