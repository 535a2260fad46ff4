//! Text that follows a grammar: GBNF or a JSON Schema, down to which tokens may come next.
//!
//! A grammar becomes rules over code points (`expr`), these a network that reads bytes (`program`), and
//! this an automaton that finds its states when they are needed (`automaton`). [`Constraint`] follows it
//! along a vocabulary. Memory and steps are bounded: what goes beyond is `GrammarBudget`.

mod automaton;
mod constraint;
mod expr;
mod gbnf;
mod program;
mod schema;
mod trie;
mod utf8;

pub use constraint::Constraint;
pub use trie::TokenTrie;

use crate::error::Result;
use program::Program;
use std::sync::Arc;

/// A grammar that is ready to be followed.
#[derive(Clone, Debug)]
pub struct Grammar {
    program: Arc<Program>,
}

impl Grammar {
    /// Reads a grammar in llama.cpp's format, GBNF; its rule `root` is what the whole text follows.
    ///
    /// # Errors
    /// `GrammarError` with the offset of the fault, for a rule that is left recursive, or where no text
    /// follows the grammar; `GrammarBudget` for one that is too large.
    pub fn from_gbnf(text: &str) -> Result<Grammar> {
        Ok(Grammar { program: Arc::new(Program::new(&gbnf::parse(text)?)?) })
    }

    /// The JSON texts that a JSON Schema (draft 2020-12) allows, or a part of them.
    ///
    /// # Errors
    /// `GrammarError` naming the keyword that is malformed or not supported; `GrammarBudget` for a schema
    /// that is too large.
    pub fn from_json_schema(text: &str) -> Result<Grammar> {
        Ok(Grammar { program: Arc::new(Program::new(&schema::rules(text)?)?) })
    }

    /// Whether a whole text follows the grammar.
    ///
    /// # Errors
    /// `GrammarBudget` if the grammar is too ambiguous.
    pub fn matches(&self, text: &str) -> Result<bool> {
        let (mut automaton, mut state) = automaton::Automaton::new(Arc::clone(&self.program))?;
        for byte in text.bytes() {
            let next = match automaton.step(state, byte) {
                Err(automaton::Halt::Full) => {
                    state = automaton.forget(state)?;
                    automaton.step(state, byte)
                }
                next => next,
            };
            state = match next {
                Ok(next) => next,
                Err(automaton::Halt::Full) => return Err(expr::over_budget("too many states for one byte")),
                Err(automaton::Halt::Failed(error)) => return Err(error),
            };
        }
        Ok(automaton.accepts(state))
    }
}
