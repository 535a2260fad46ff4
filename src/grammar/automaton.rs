//! Follows a program byte by byte, and remembers where each byte led.
//!
//! A state is the set of places where the program can be: a node and what is to be returned to, a chain of
//! frames that is stored once however many states have it. States and the steps between them are found when
//! they are first needed, as in a lazily built deterministic automaton.

use super::expr::over_budget;
use super::program::{END, Node, Program};
use crate::error::Result;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// No text can follow.
pub(super) const DEAD: u32 = 0;
/// Not looked at yet.
const UNKNOWN: u32 = u32::MAX;
/// The chain of frames that is empty.
const BOTTOM: u32 = 0;
/// Places of one state, and nodes passed to find them: more only in grammars that are ambiguous without bound.
const MAX_PLACES: usize = 4096;
const MAX_VISITS: usize = 1 << 16;
/// Remembered steps, frames and places; 20 MiB in all.
const MAX_STEPS: usize = 1 << 21;
const MAX_FRAMES: usize = 1 << 18;
const MAX_ALL_PLACES: usize = 1 << 19;

/// Where the program can be: a node that reads a byte, and a chain of frames.
type Place = (u32, u32);

/// Hashes few numbers quickly; who chose the grammar can only slow down their own text.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.write_u32(u32::from(b)));
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = (self.0.rotate_left(23) ^ u64::from(n)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u32(n as u32);
    }
}

type Mixed = BuildHasherDefault<Mix>;

struct State {
    places: Arc<[Place]>,
    /// The text may end here.
    accepts: bool,
}

/// Memory is full: [`Automaton::forget`], then try again.
#[derive(Debug)]
pub(super) enum Halt {
    Full,
    Failed(crate::error::Error),
}

pub(super) struct Automaton {
    program: Arc<Program>,
    /// (return to this node, then to this frame); the first is not used.
    frames: Vec<(u32, u32)>,
    frame_ids: HashMap<(u32, u32), u32, Mixed>,
    states: Vec<State>,
    state_ids: HashMap<(bool, Arc<[Place]>), u32, Mixed>,
    /// `[state, class]`: the state that follows.
    steps: Vec<u32>,
    n_places: usize,
    seen: HashSet<Place, Mixed>,
    todo: Vec<Place>,
    found: Vec<Place>,
}

impl Automaton {
    /// An automaton, and its state before the first byte.
    pub fn new(program: Arc<Program>) -> Result<(Automaton, u32)> {
        let mut this = Automaton {
            program,
            frames: Vec::new(),
            frame_ids: HashMap::default(),
            states: Vec::new(),
            state_ids: HashMap::default(),
            steps: Vec::new(),
            n_places: 0,
            seen: HashSet::default(),
            todo: Vec::new(),
            found: Vec::new(),
        };
        this.clear();
        this.todo.push((this.program.start, BOTTOM));
        let start = this.closure().map_err(|halt| match halt {
            Halt::Full => over_budget("a grammar with too many beginnings"),
            Halt::Failed(error) => error,
        })?;
        Ok((this, start))
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.frames.push((END, BOTTOM));
        self.frame_ids.clear();
        self.states.clear();
        self.state_ids.clear();
        self.steps.clear();
        self.n_places = 0;
        let dead = self.intern(false, &[]);
        debug_assert_eq!(dead, DEAD);
        self.steps.fill(DEAD);
    }

    /// Whether the text may end in a state.
    pub fn accepts(&self, state: u32) -> bool {
        self.states[state as usize].accepts
    }

    /// Whether no byte can follow.
    pub fn is_over(&self, state: u32) -> bool {
        self.states[state as usize].places.is_empty()
    }

    /// The state after a byte.
    #[inline]
    pub fn step(&mut self, state: u32, byte: u8) -> std::result::Result<u32, Halt> {
        let class = usize::from(self.program.class_of[usize::from(byte)]);
        let at = state as usize * self.program.class_bytes.len() + class;
        let next = self.steps[at];
        if next != UNKNOWN { Ok(next) } else { self.explore(state, byte, at) }
    }

    #[cold]
    #[inline(never)]
    fn explore(&mut self, state: u32, byte: u8, at: usize) -> std::result::Result<u32, Halt> {
        let program = Arc::clone(&self.program);
        let places = Arc::clone(&self.states[state as usize].places);
        self.todo.clear();
        for &(node, frame) in places.iter() {
            if let Node::Byte { from, to } = program.nodes[node as usize] {
                let fits = program.edges_of(from, to).iter().filter(|e| (e.low..=e.high).contains(&byte));
                self.todo.extend(fits.map(|edge| (edge.to, frame)));
            }
        }
        let next = self.closure()?;
        self.steps[at] = next;
        Ok(next)
    }

    /// The state of all that `todo` leads to without a byte.
    fn closure(&mut self) -> std::result::Result<u32, Halt> {
        let program = Arc::clone(&self.program);
        self.seen.clear();
        self.found.clear();
        let mut accepts = false;
        while let Some(place) = self.todo.pop() {
            let (node, frame) = place;
            if !program.live[node as usize] || !self.seen.insert(place) {
                continue;
            }
            if self.seen.len() > MAX_VISITS || self.found.len() > MAX_PLACES {
                let what = "the grammar is too ambiguous: the text can be read in too many ways";
                return Err(Halt::Failed(over_budget(what)));
            }
            match program.nodes[node as usize] {
                Node::Byte { .. } => self.found.push(place),
                Node::Split(a, b) => self.todo.extend([(a, frame), (b, frame)]),
                // A rule that ends with a call leaves nothing to return to.
                Node::Call { start, next: END } => self.todo.push((start, frame)),
                Node::Call { start, next } if program.live[next as usize] => {
                    let frame = self.frame(next, frame)?;
                    self.todo.push((start, frame));
                }
                Node::Call { .. } => {}
                Node::End if frame == BOTTOM => accepts = true,
                Node::End => self.todo.push(self.frames[frame as usize]),
            }
        }
        if self.steps.len() >= MAX_STEPS || self.n_places >= MAX_ALL_PLACES {
            return Err(Halt::Full);
        }
        let mut found = std::mem::take(&mut self.found);
        found.sort_unstable();
        let state = self.intern(accepts, &found);
        self.found = found;
        Ok(state)
    }

    fn frame(&mut self, node: u32, parent: u32) -> std::result::Result<u32, Halt> {
        if let Some(&id) = self.frame_ids.get(&(node, parent)) {
            return Ok(id);
        }
        if self.frames.len() >= MAX_FRAMES {
            return Err(Halt::Full);
        }
        let id = self.frames.len() as u32;
        self.frames.push((node, parent));
        self.frame_ids.insert((node, parent), id);
        Ok(id)
    }

    fn intern(&mut self, accepts: bool, places: &[Place]) -> u32 {
        let key = (accepts, Arc::from(places));
        if let Some(&id) = self.state_ids.get(&key) {
            return id;
        }
        let id = self.states.len() as u32;
        self.states.push(State { places: Arc::clone(&key.1), accepts });
        self.state_ids.insert(key, id);
        self.n_places += places.len() + 4;
        self.steps.resize(self.steps.len() + self.program.class_bytes.len(), UNKNOWN);
        id
    }

    /// Forgets all states but one; gives its new number.
    ///
    /// # Errors
    /// `GrammarBudget` if that one alone is too large.
    pub fn forget(&mut self, keep: u32) -> Result<u32> {
        let state = &self.states[keep as usize];
        let (places, accepts) = (Arc::clone(&state.places), state.accepts);
        let old = std::mem::take(&mut self.frames);
        self.clear();
        let too_deep = || over_budget("the text nests too deep for the grammar's memory");
        let mut new_ids: HashMap<u32, u32, Mixed> = HashMap::default();
        new_ids.insert(BOTTOM, BOTTOM);
        let mut kept = Vec::with_capacity(places.len());
        for &(node, frame) in places.iter() {
            let mut chain = Vec::new();
            let mut at = frame;
            while !new_ids.contains_key(&at) {
                chain.push(at);
                at = old[at as usize].1;
            }
            for id in chain.into_iter().rev() {
                let (node, parent) = old[id as usize];
                let new = self.frame(node, new_ids[&parent]).map_err(|_| too_deep())?;
                new_ids.insert(id, new);
            }
            kept.push((node, new_ids[&frame]));
        }
        // Room for what comes must remain, else every step would forget again.
        if self.frames.len() > MAX_FRAMES / 2 {
            return Err(too_deep());
        }
        kept.sort_unstable();
        Ok(self.intern(accepts, &kept))
    }
}
