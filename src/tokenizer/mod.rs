//! Text to token ids and back, from a model's own metadata and with llama.cpp's results.

mod agenda;
mod bpe;
mod clean;
mod json;
mod kind;
mod normalize;
mod partition;
mod pretokenize;
mod rwkv;
mod special;
mod spm;
mod stream;
mod trie;
mod unicode;
mod unigram;
mod vocab;
mod wordpiece;

pub use stream::StreamDecoder;

use crate::container::{Metadata, StrArray};
use crate::error::{Code, Error, Result};
use bpe::Bpe;
use kind::{Algorithm, Kind};
use normalize::Step;
use partition::{Fragment, Partition, Scope};
use rwkv::Rwkv;
use special::Specials;
use spm::Spm;
use unigram::Unigram;
use vocab::{TOKENS, Vocab, as_invalid, attr, invalid};
use wordpiece::WordPiece;

const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";

/// Longer texts are refused: offsets are 32 bits wide, and escaping a text can triple it.
const MAX_TEXT_LEN: usize = 1 << 30;

enum Model {
    Spm(Box<Spm>),
    Bpe(Box<Bpe>),
    WordPiece(WordPiece),
    Rwkv(Rwkv),
    Unigram(Unigram),
}

impl Model {
    /// Appends the ids of a text without special tokens.
    fn encode(&self, vocab: &Vocab, text: &str, space_prefix: bool, out: &mut Vec<u32>) {
        match self {
            Model::Spm(spm) => spm.encode(vocab, text, space_prefix, out),
            Model::Bpe(bpe) => bpe.encode(vocab, text, out),
            Model::WordPiece(wordpiece) => wordpiece.encode(text, out),
            Model::Rwkv(rwkv) => rwkv.encode(text, out),
            Model::Unigram(unigram) => unigram.encode(vocab, text, out),
        }
    }

    /// The bytes that token `id` stands for.
    fn piece(&self, vocab: &Vocab, id: u32) -> Vec<u8> {
        match self {
            Model::Spm(_) | Model::WordPiece(_) | Model::Unigram(_) => spm::piece(vocab, id),
            Model::Bpe(_) => bpe::piece(vocab, id),
            Model::Rwkv(_) => rwkv::piece(vocab, id),
        }
    }
}

/// The tokenizer of one model.
pub struct Tokenizer {
    vocab: Vocab,
    partition: Partition,
    specials: Specials,
    model: Model,
    /// The bytes that each token stands for.
    pieces: StrArray,
    add_space_prefix: bool,
    clean_spaces: bool,
    /// What happens to text between special tokens before anything else.
    normalizer: Vec<Step>,
}

impl Tokenizer {
    /// Reads the `tokenizer.*` metadata of a GGUF file.
    ///
    /// What the metadata leaves out holds as in llama.cpp: for `tokenizer.ggml.model` = "llama" these are
    /// BOS 1, EOS 2, unknown 0 (where the vocabulary has them), BOS added, EOS not, a space put before text;
    /// no `scores` mean 0 for all, no `token_type` means that all tokens are text. An id of -1 says that there
    /// is no such token.
    ///
    /// # Errors
    /// `TokenizerInvalid` naming the key that is missing, of a wrong type, too short or inconsistent.
    pub fn from_gguf(meta: &Metadata) -> Result<Tokenizer> {
        let kind = Kind::read(meta)?;
        let mut vocab = Vocab::read(meta)?;
        let specials = Specials::read(meta, &kind, &mut vocab)?;
        let space = meta.bool(ADD_SPACE_PREFIX).map_err(as_invalid)?.unwrap_or(kind.add_space_prefix);
        let model = match kind.algorithm {
            Algorithm::Spm => Model::Spm(Box::new(Spm::new(&vocab, specials.unk)?)),
            Algorithm::Bpe(pre) => Model::Bpe(Box::new(Bpe::read(meta, &vocab, pre)?)),
            Algorithm::WordPiece => Model::WordPiece(WordPiece::read(meta, &vocab, specials.unk)?),
            Algorithm::Rwkv => Model::Rwkv(Rwkv::new(&vocab, specials.unk)?),
            Algorithm::Unigram => Model::Unigram(Unigram::read(meta, &vocab, specials.unk, space)?),
        };
        Ok(Tokenizer::new(vocab, specials, model, space, kind.clean_spaces))
    }

    fn new(
        vocab: Vocab,
        specials: Specials,
        model: Model,
        add_space_prefix: bool,
        clean_spaces: bool,
    ) -> Tokenizer {
        let mut pieces = StrArray::default();
        for id in 0..vocab.len() as u32 {
            pieces.push(&model.piece(&vocab, id));
        }
        let partition = Partition::new(&vocab);
        let normalizer = Vec::new();
        Tokenizer { vocab, partition, specials, model, pieces, add_space_prefix, clean_spaces, normalizer }
    }

    /// Checks that the vocabulary has exactly as many tokens as the embedding has rows.
    ///
    /// # Errors
    /// `TokenizerInvalid` naming `tokenizer.ggml.tokens`.
    pub fn check_rows(&self, n_rows: usize) -> Result<()> {
        if self.n_vocab() == n_rows {
            return Ok(());
        }
        Err(invalid(TOKENS, format!("{} tokens, but the embedding has {n_rows} rows", self.n_vocab())))
    }

    /// Number of tokens.
    pub fn n_vocab(&self) -> usize {
        self.vocab.len()
    }

    /// The token that begins a text, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.specials.bos
    }

    /// The token that ends a text, if the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.specials.eos
    }

    /// The token for text that is not in the vocabulary, if the model has one.
    pub fn unk(&self) -> Option<u32> {
        self.specials.unk
    }

    /// Whether `encode` with `add_special` puts BOS first.
    pub fn add_bos(&self) -> bool {
        self.specials.add_bos
    }

    /// Whether the token ends a generation: EOS, end of turn and their like.
    pub fn is_eog(&self, id: u32) -> bool {
        self.specials.end_of_generation.binary_search(&id).is_ok()
    }

    /// Whether the token steers the model and is no text.
    pub fn is_control(&self, id: u32) -> bool {
        (id as usize) < self.n_vocab() && self.vocab.attr(id) & (attr::CONTROL | attr::UNKNOWN) != 0
    }

    /// The id of the token with exactly this text, as the vocabulary writes it.
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.vocab.id(text.as_bytes())
    }

    /// The bytes that a token stands for (a control token's own text included); not always whole characters.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.pieces.get(id as usize)
    }

    /// The token ids of `text`.
    ///
    /// `add_special` adds BOS and EOS as the model wants them. With `parse_special` the texts of control
    /// tokens (`</s>`, `<|im_end|>`) become those tokens; without it they are plain text, which is what
    /// text from users must be.
    ///
    /// # Errors
    /// `BadArgument` for a text longer than 1 GiB.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT_LEN {
            return Err(Error::new(Code::BadArgument, "the text is longer than 1 GiB").key("text"));
        }
        let specials = &self.specials;
        let mut ids = Vec::new();
        ids.extend(specials.bos.filter(|_| add_special && specials.add_bos));
        self.encode_into(text, Scope { parse_special, plain: &[] }, true, &mut ids);
        ids.extend(specials.sep.filter(|_| add_special && specials.add_sep));
        ids.extend(specials.eos.filter(|_| add_special && specials.add_eos));
        Ok(ids)
    }

    /// The token ids of a text of which some parts come from users.
    ///
    /// The texts of control tokens become those tokens, except where they touch one of `plain`: ascending
    /// ranges of bytes. Nothing is added around the text; `continues` says that it goes on from another one,
    /// so that no space is put before it either.
    ///
    /// # Errors
    /// `BadArgument` for a text longer than 1 GiB.
    pub fn encode_mixed(&self, text: &str, plain: &[(usize, usize)], continues: bool) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT_LEN {
            return Err(Error::new(Code::BadArgument, "the text is longer than 1 GiB").key("text"));
        }
        let mut ids = Vec::new();
        self.encode_into(text, Scope { parse_special: true, plain }, !continues, &mut ids);
        Ok(ids)
    }

    /// The parts of a text from a user that could be taken for control tokens, also with what stands before
    /// or after it: ranges of bytes, ascending and apart, for [`Tokenizer::encode_mixed`].
    pub fn control_texts(&self, text: &str) -> Vec<(usize, usize)> {
        self.partition.control_texts(&self.vocab, text)
    }

    fn encode_into(&self, text: &str, scope: Scope, mut after_token: bool, ids: &mut Vec<u32>) {
        for fragment in self.partition.split(&self.vocab, text, scope) {
            match fragment {
                Fragment::Token(id) => ids.push(id),
                Fragment::Text(text) => {
                    let normalized;
                    let text = if self.normalizer.is_empty() {
                        text
                    } else {
                        normalized = self.normalizer.iter().fold(text.to_owned(), |t, step| step.apply(t));
                        &normalized
                    };
                    self.model.encode(&self.vocab, text, self.add_space_prefix && after_token, ids);
                }
            }
            after_token = matches!(fragment, Fragment::Token(_));
        }
    }

    /// The token ids of two texts, as cross-encoders read them, and where the second begins: BOS, the first,
    /// an end, the second, an end, where the end is what the model puts after a text (EOS, or the separator).
    /// Models that want it have a separator beside that end between the texts.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<(Vec<u32>, usize)> {
        let specials = &self.specials;
        let mut ids = self.encode(first, true, false)?;
        ids.extend(specials.sep.filter(|_| specials.sep_between));
        let start = ids.len();
        ids.extend(self.encode(second, false, false)?);
        ids.extend(specials.sep.filter(|_| specials.add_sep));
        ids.extend(specials.eos.filter(|_| specials.add_eos));
        Ok((ids, start))
    }

    /// The bytes of a whole text, as `llama_detokenize` gives them.
    ///
    /// `remove_special` drops the BOS and EOS that the model adds; `unparse_special` writes control tokens
    /// as their text instead of leaving them out. The space that encoding put before the text is removed
    /// (except after a removed BOS, where llama.cpp keeps it).
    ///
    /// # Errors
    /// `BadArgument` for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32], remove_special: bool, unparse_special: bool) -> Result<Vec<u8>> {
        let specials = &self.specials;
        let mut ids = ids;
        let mut strip_space = self.add_space_prefix;
        if remove_special && specials.add_bos && !ids.is_empty() && ids.first().copied() == specials.bos {
            ids = &ids[1..];
            strip_space = false;
        }
        if remove_special && specials.add_eos && !ids.is_empty() && ids.last().copied() == specials.eos {
            ids = &ids[..ids.len() - 1];
        }
        let mut bytes = Vec::new();
        for &id in ids {
            let Some(piece) = self.token_bytes(id) else {
                let message = format!("token {id} is outside the vocabulary of {}", self.n_vocab());
                return Err(Error::new(Code::BadArgument, message).key("ids"));
            };
            if unparse_special || !self.is_control(id) {
                bytes.extend_from_slice(piece.strip_prefix(b" ").filter(|_| strip_space).unwrap_or(piece));
            }
            strip_space = false;
        }
        Ok(if self.clean_spaces { clean::clean_spaces(&bytes) } else { bytes })
    }
}
