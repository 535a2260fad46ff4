//! Chooses the next token from logits.
//!
//! Order, as in llama.cpp: repeat penalty, top-k, top-p, min-p, temperature, draw. All arithmetic that
//! decides is f64 built from additions, multiplications and exact operations, so a seed gives the same
//! tokens natively and in WebAssembly.

use crate::error::{Code, Error, Result};
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// How tokens are chosen. Every field may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SamplerParams {
    /// 0 takes the most probable token (of equals the one with the lowest id); up to 100. Default 0.8.
    pub temperature: f32,
    /// Only this many of the most probable tokens stay; 0 keeps all. Default 40.
    #[serde(deserialize_with = "whole")]
    pub top_k: i64,
    /// Of those, as few as reach this probability together (at least one); 0 to 1. Default 0.95.
    pub top_p: f32,
    /// Of those, the ones with at least this share of the highest probability; 0 to 1. Default 0.05.
    pub min_p: f32,
    /// Logits of recent tokens are divided by this where positive, multiplied where negative;
    /// 0.01 to 100. Default 1 (off).
    pub repeat_penalty: f32,
    /// How many of the last tokens count as recent. Default 64.
    #[serde(deserialize_with = "whole")]
    pub repeat_last_n: i64,
    /// Start of the random sequence, not negative. Default `None`, which is 0: who wants another text
    /// each time passes another seed.
    #[serde(deserialize_with = "optional_whole")]
    pub seed: Option<i64>,
}

impl Default for SamplerParams {
    fn default() -> Self {
        SamplerParams {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: None,
        }
    }
}

impl SamplerParams {
    /// Checks every field.
    ///
    /// # Errors
    /// `BadArgument` whose `key` is the first field outside its domain, in camel case.
    pub fn validate(&self) -> Result<()> {
        let real = |key: &str, value: f32, low: f32, high: f32| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(bad(key, format!("{key} must be a number from {low} to {high}, not {value}")))
        };
        let natural = |key: &str, value: i64| {
            if value >= 0 {
                Ok(())
            } else {
                Err(bad(key, format!("{key} must be a whole number, 0 or more")))
            }
        };
        real("temperature", self.temperature, 0.0, 100.0)?;
        natural("topK", self.top_k)?;
        real("topP", self.top_p, 0.0, 1.0)?;
        real("minP", self.min_p, 0.0, 1.0)?;
        real("repeatPenalty", self.repeat_penalty, 0.01, 100.0)?;
        natural("repeatLastN", self.repeat_last_n)?;
        natural("seed", self.seed.unwrap_or(0))
    }
}

fn bad(key: &str, message: String) -> Error {
    Error::new(Code::BadArgument, message).key(key)
}

/// What is not a whole number in range becomes this, so that `validate` can name the field: an error
/// of the deserializer could not.
const NOT_WHOLE: i64 = i64::MIN;

struct Whole;

impl Visitor<'_> for Whole {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<i64, E> {
        Ok(value)
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<i64, E> {
        Ok(i64::try_from(value).unwrap_or(NOT_WHOLE))
    }

    // JavaScript has only this type of number.
    fn visit_f64<E>(self, value: f64) -> std::result::Result<i64, E> {
        let exact = value.trunc() == value && value.abs() <= (1u64 << 53) as f64;
        Ok(if exact { value as i64 } else { NOT_WHOLE })
    }
}

fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<i64, D::Error> {
    deserializer.deserialize_any(Whole)
}

fn optional_whole<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    struct Given(#[serde(deserialize_with = "whole")] i64);
    Ok(Option::<Given>::deserialize(deserializer)?.map(|given| given.0))
}

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    logit: f32,
    id: u32,
    /// exp(logit - highest logit), at the end exp((logit - highest logit) / temperature).
    weight: f64,
}

/// Draws tokens. Its buffers are reused: no allocation after the first token of a vocabulary.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplerParams,
    random: Pcg32,
    candidates: Vec<Candidate>,
    recent: Vec<u32>,
}

impl Sampler {
    /// A sampler at the start of its random sequence.
    ///
    /// # Errors
    /// `BadArgument` as [`SamplerParams::validate`].
    pub fn new(params: SamplerParams) -> Result<Sampler> {
        params.validate()?;
        let random = Pcg32::new(params.seed.unwrap_or(0) as u64, SEQUENCE);
        Ok(Sampler { params, random, candidates: Vec::new(), recent: Vec::new() })
    }

    /// Chooses a token.
    ///
    /// `logits` `[n_vocab]` are changed by the repeat penalty; -infinity rules a token out. `history` holds
    /// the tokens so far, the last one last; ids outside the vocabulary are passed over.
    ///
    /// # Errors
    /// `NumericFault` if a logit is NaN or +infinity or all are -infinity; `BadArgument` if there is none.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32> {
        if logits.is_empty() || logits.len() > u32::MAX as usize {
            return Err(bad("logits", format!("cannot choose among {} logits", logits.len())));
        }
        check(logits)?;
        self.penalize(logits, history);
        let best = argmax(logits);
        if self.params.temperature == 0.0 {
            return Ok(best);
        }
        let highest = logits[best as usize];
        self.keep_top_k(logits);
        for candidate in &mut self.candidates {
            candidate.weight = exp(f64::from(candidate.logit) - f64::from(highest));
        }
        let n_kept = self.keep_top_p();
        Ok(self.draw(n_kept, highest))
    }

    fn penalize(&mut self, logits: &mut [f32], history: &[u32]) {
        let penalty = self.params.repeat_penalty;
        let n_recent = usize::try_from(self.params.repeat_last_n).unwrap_or(usize::MAX).min(history.len());
        if penalty == 1.0 || n_recent == 0 {
            return;
        }
        self.recent.clear();
        self.recent.extend_from_slice(&history[history.len() - n_recent..]);
        self.recent.sort_unstable();
        self.recent.dedup();
        for &id in &self.recent {
            if let Some(logit) = logits.get_mut(id as usize) {
                let scaled = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
                // A finite logit must not become infinite: -infinity alone rules out.
                *logit = if logit.is_finite() { scaled.clamp(f32::MIN, f32::MAX) } else { scaled };
            }
        }
    }

    /// Fills `candidates` with the `top_k` most probable tokens in any order.
    ///
    /// One pass with a rising threshold: when the buffer is full it is cut to the best `top_k`, so memory
    /// and work stay near `top_k` however large the vocabulary is.
    fn keep_top_k(&mut self, logits: &[f32]) {
        let n_vocab = logits.len();
        let top_k = match usize::try_from(self.params.top_k) {
            Ok(0) | Err(_) => n_vocab,
            Ok(k) => k.min(n_vocab),
        };
        let capacity =
            if top_k == n_vocab { n_vocab } else { (top_k.saturating_mul(4)).clamp(256, n_vocab.max(256)) };
        let found = &mut self.candidates;
        found.clear();
        found.reserve(capacity);
        let mut threshold = f32::NEG_INFINITY;
        for (id, &logit) in logits.iter().enumerate() {
            // Not `>=`: of equal logits the lower id, which came first, stays.
            if logit > threshold {
                found.push(Candidate { logit, id: id as u32, weight: 0.0 });
                if found.len() == capacity && top_k < capacity {
                    found.select_nth_unstable_by(top_k - 1, by_rank);
                    found.truncate(top_k);
                    threshold = found[top_k - 1].logit;
                }
            }
        }
        if found.len() > top_k {
            found.select_nth_unstable_by(top_k - 1, by_rank);
            found.truncate(top_k);
        }
    }

    /// Moves the candidates that pass top-p and min-p to the front; returns how many do.
    ///
    /// Both keep a prefix of the ranking, so their order does not matter, and for top-p only that prefix is
    /// sorted: in chunks that grow, since how long it is shows on the way.
    fn keep_top_p(&mut self) -> usize {
        let (top_p, min_p) = (f64::from(self.params.top_p), f64::from(self.params.min_p));
        let candidates = &mut self.candidates;
        // Sums and draws go in order of id, because the order that a selection leaves is not specified.
        candidates.sort_unstable_by_key(|c| c.id);
        if top_p >= 1.0 {
            candidates.retain(|c| c.weight >= min_p);
            return candidates.len();
        }
        let wanted = top_p * candidates.iter().map(|c| c.weight).sum::<f64>();
        let mut mass = 0.0;
        let mut n_sorted = 0;
        for i in 0..candidates.len() {
            if i == n_sorted {
                n_sorted = sort_chunk(candidates, n_sorted);
            }
            if i > 0 && candidates[i].weight < min_p {
                return i;
            }
            mass += candidates[i].weight;
            if mass >= wanted {
                return i + 1;
            }
        }
        candidates.len()
    }

    /// Draws one of the first `n_kept` candidates in proportion to exp(logit / temperature).
    fn draw(&mut self, n_kept: usize, highest: f32) -> u32 {
        let temperature = f64::from(self.params.temperature);
        let candidates = &mut self.candidates[..n_kept];
        let mut total = 0.0;
        for candidate in candidates.iter_mut() {
            candidate.weight = exp((f64::from(candidate.logit) - f64::from(highest)) / temperature);
            total += candidate.weight;
        }
        let mut left = self.random.unit() * total;
        for candidate in candidates.iter() {
            if left < candidate.weight {
                return candidate.id;
            }
            left -= candidate.weight;
        }
        // Rounding can leave a little; the first candidate has a weight of 1.
        candidates[0].id
    }
}

/// First by logit, highest first, then by id.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Brings the next best candidates after the first `n_sorted` into order; returns how many are in order now.
fn sort_chunk(candidates: &mut [Candidate], n_sorted: usize) -> usize {
    let end = (n_sorted * 4).max(64).min(candidates.len());
    let rest = &mut candidates[n_sorted..];
    let n_chunk = end - n_sorted;
    if n_chunk < rest.len() {
        rest.select_nth_unstable_by(n_chunk, by_rank);
    }
    rest[..n_chunk].sort_unstable_by(by_rank);
    end
}

fn check(logits: &[f32]) -> Result<()> {
    // Branchless over the vocabulary; the offender is looked for only when there is one.
    let fault = |x: f32| x.is_nan() | (x == f32::INFINITY);
    let faulty = logits.iter().fold(false, |any, &x| any | fault(x));
    if faulty {
        let id = logits.iter().position(|&x| fault(x)).unwrap_or(0);
        return Err(Error::new(Code::NumericFault, format!("the logit of token {id} is {}", logits[id])));
    }
    if logits.iter().all(|x| *x == f32::NEG_INFINITY) {
        return Err(Error::new(Code::NumericFault, "every token is ruled out"));
    }
    Ok(())
}

/// The index of the highest number, of equals the lowest. `logits` is not empty and holds no NaN.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// 1 / k! for k from 0 to 13: constants, because dividing at run time would take most of the time.
const INVERSE_FACTORIALS: [f64; 14] = {
    let mut inverse = [1.0; 14];
    let mut factorial = 1u64;
    let mut k = 1;
    while k < 14 {
        factorial *= k as u64;
        inverse[k] = 1.0 / factorial as f64;
        k += 1;
    }
    inverse
};

/// exp(x) for x <= 0, within 2 units in the last place. The standard library's may round differently on
/// each platform; this uses only operations that IEEE 754 defines exactly.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, then a Taylor series in r, whose rest is below 2^-56 at 13 terms.
fn exp(x: f64) -> f64 {
    // Below this the result is no normal number, and no draw would hit it.
    if x < -708.0 {
        return 0.0;
    }
    // ln 2 in two parts: n * LN2_HIGH is exact for every n that occurs.
    const LN2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let n = (x * std::f64::consts::LOG2_E).round();
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let sum = INVERSE_FACTORIALS.iter().rev().fold(0.0, |sum, c| sum * r + c);
    sum * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// Which of PCG's sequences is used: any number would do.
const SEQUENCE: u64 = 54;

/// PCG-XSH-RR with 64 bits of state and 32 of output.
/// Source: M. E. O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for
/// Random Number Generation", HMC-CS-2014-0905, section 6.3.1.
#[derive(Clone, Debug)]
struct Pcg32 {
    state: u64,
    increment: u64,
}

impl Pcg32 {
    fn new(seed: u64, sequence: u64) -> Pcg32 {
        let mut this = Pcg32 { state: 0, increment: sequence << 1 | 1 };
        this.next();
        this.state = this.state.wrapping_add(seed);
        this.next();
        this
    }

    fn next(&mut self) -> u32 {
        let old = self.state;
        self.state = old.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(self.increment);
        ((((old >> 18) ^ old) >> 27) as u32).rotate_right((old >> 59) as u32)
    }

    /// A number from 0 to below 1 with 53 random bits.
    fn unit(&mut self) -> f64 {
        let high = u64::from(self.next() >> 5);
        let low = u64::from(self.next() >> 6);
        (high << 26 | low) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(change: impl FnOnce(&mut SamplerParams)) -> Sampler {
        let off = SamplerParams { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Default::default() };
        let mut params = off;
        change(&mut params);
        Sampler::new(params).unwrap()
    }

    /// The set of ids that 2,000 draws give.
    fn drawn(sampler: &mut Sampler, logits: &[f32]) -> Vec<u32> {
        let mut ids: Vec<u32> =
            (0..2000).map(|_| sampler.sample(&mut logits.to_vec(), &[]).unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn noise(n: usize) -> Vec<f32> {
        let mut random = Pcg32::new(7, 1);
        (0..n).map(|_| (random.unit() * 20.0 - 10.0) as f32).collect()
    }

    #[test]
    fn pcg_gives_its_published_sequence() {
        // The first outputs of the reference program's demo (seed 42, sequence 54).
        let mut random = Pcg32::new(42, 54);
        let expected = [0xa15c_02b7, 0x7b47_f409, 0xba1d_3330, 0x83d2_f293, 0xbfa4_784b, 0xcbed_606e];
        assert_eq!(std::array::from_fn(|_| random.next()), expected);
    }

    #[test]
    fn exp_is_close_to_the_exact_one() {
        for i in 0..70_000 {
            let x = -f64::from(i) / 100.0;
            let (got, want) = (exp(x), x.exp());
            assert!((got - want).abs() <= want * 4.5e-16, "exp({x}) = {got}, not {want}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e300), 0.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
    }

    #[test]
    fn a05_a_bad_field_is_named() {
        type Change = fn(&mut SamplerParams);
        let cases: &[(&str, Change)] = &[
            ("temperature", |p| p.temperature = -1.0),
            ("temperature", |p| p.temperature = f32::NAN),
            ("temperature", |p| p.temperature = f32::INFINITY),
            ("topK", |p| p.top_k = -1),
            ("topP", |p| p.top_p = 2.0),
            ("topP", |p| p.top_p = -0.1),
            ("topP", |p| p.top_p = f32::NAN),
            ("minP", |p| p.min_p = 1.5),
            ("minP", |p| p.min_p = f32::NAN),
            ("repeatPenalty", |p| p.repeat_penalty = 0.0),
            ("repeatPenalty", |p| p.repeat_penalty = f32::NAN),
            ("repeatLastN", |p| p.repeat_last_n = -1),
            ("seed", |p| p.seed = Some(-1)),
        ];
        for (key, change) in cases {
            let mut params = SamplerParams::default();
            change(&mut params);
            let error = Sampler::new(params.clone()).expect_err(&format!("{params:?}"));
            assert_eq!((error.code, error.key.as_deref()), (Code::BadArgument, Some(*key)), "{params:?}");
        }
    }

    #[test]
    fn a05_numbers_that_are_not_whole_are_named_too() {
        for (json, key) in [
            (r#"{"topK": 3.5}"#, "topK"),
            (r#"{"topK": 1e300}"#, "topK"),
            (r#"{"repeatLastN": 0.5}"#, "repeatLastN"),
            (r#"{"seed": 1.25}"#, "seed"),
            (r#"{"seed": -1}"#, "seed"),
            (r#"{"seed": 18446744073709551616}"#, "seed"),
        ] {
            let params: SamplerParams = serde_json::from_str(json).unwrap();
            assert_eq!(params.validate().unwrap_err().key.as_deref(), Some(key), "{json}");
        }
        let params: SamplerParams = serde_json::from_str(r#"{"seed": 7.0, "topK": 5, "seed2": 1}"#).unwrap();
        assert_eq!(params, SamplerParams { seed: Some(7), top_k: 5, ..Default::default() });
        let none: SamplerParams = serde_json::from_str(r#"{"seed": null}"#).unwrap();
        assert_eq!(none, SamplerParams::default());
    }

    #[test]
    fn a05_the_ends_of_each_domain_work() {
        let logits = [0.0, 3.0, 1.0, 2.0];
        assert_eq!(drawn(&mut sampler(|p| p.temperature = 1e-30), &logits), [1]);
        assert_eq!(drawn(&mut sampler(|p| p.temperature = f32::from_bits(1)), &logits), [1]);
        assert_eq!(drawn(&mut sampler(|p| p.temperature = 100.0), &logits), [0, 1, 2, 3]);
        assert_eq!(drawn(&mut sampler(|p| p.top_p = 0.0), &logits), [1]);
        assert_eq!(drawn(&mut sampler(|p| p.min_p = 1.0), &logits), [1]);
        assert_eq!(drawn(&mut sampler(|p| p.top_k = i64::MAX), &logits), [0, 1, 2, 3]);
        assert_eq!(drawn(&mut sampler(|p| p.top_k = 1), &logits), [1]);
        assert_eq!(drawn(&mut sampler(|p| p.repeat_last_n = i64::MAX), &logits), [0, 1, 2, 3]);
    }

    #[test]
    fn a06_faulty_logits_are_an_error() {
        for temperature in [0.0, 1.0] {
            for fault in [f32::NAN, f32::INFINITY] {
                for at in [0, 150, 299] {
                    let mut logits = noise(300);
                    logits[at] = fault;
                    let error =
                        sampler(|p| p.temperature = temperature).sample(&mut logits, &[]).unwrap_err();
                    assert_eq!(error.code, Code::NumericFault);
                    assert!(error.message.contains(&format!("token {at} ")), "{}", error.message);
                }
            }
            for all in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let error = sampler(|p| p.temperature = temperature).sample(&mut [all; 8], &[]).unwrap_err();
                assert_eq!(error.code, Code::NumericFault);
            }
        }
        assert_eq!(sampler(|_| ()).sample(&mut [], &[]).unwrap_err().code, Code::BadArgument);
    }

    #[test]
    fn temperature_0_takes_the_first_of_the_highest() {
        let mut greedy = sampler(|p| p.temperature = 0.0);
        assert_eq!(greedy.sample(&mut [1.0, 5.0, 5.0, -2.0], &[]).unwrap(), 1);
        assert_eq!(greedy.sample(&mut [f32::NEG_INFINITY, -1e30], &[]).unwrap(), 1);
    }

    #[test]
    fn minus_infinity_is_never_drawn() {
        let logits = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 0.1];
        assert_eq!(drawn(&mut sampler(|_| ()), &logits), [1, 3]);
        assert_eq!(drawn(&mut sampler(|p| p.top_k = 3), &logits), [1, 3]);
    }

    #[test]
    fn top_k_keeps_what_a_full_sort_keeps() {
        let mut logits = noise(10_000);
        for i in 0..5_000 {
            logits[2 * i] = logits[i].round();
        }
        for shape in 0..3 {
            match shape {
                1 => logits.sort_by(f32::total_cmp),
                2 => logits.reverse(),
                _ => (),
            }
            let mut ranked: Vec<u32> = (0..logits.len() as u32).collect();
            ranked.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
            for top_k in [1, 2, 40, 63, 64, 65, 3_000, 9_999, 10_000, 20_000] {
                let mut sampler = sampler(|p| p.top_k = top_k);
                sampler.keep_top_k(&logits);
                sampler.candidates.sort_by(by_rank);
                let kept: Vec<u32> = sampler.candidates.iter().map(|c| c.id).collect();
                assert_eq!(kept, ranked[..ranked.len().min(top_k as usize)], "top_k {top_k}, shape {shape}");
            }
        }
    }

    #[test]
    fn top_p_and_min_p_keep_what_their_definitions_say() {
        let logits = noise(3_000);
        let highest = logits.iter().copied().fold(f32::MIN, f32::max);
        let mut ranked: Vec<(f64, u32)> =
            logits.iter().zip(0..).map(|(&l, id)| (f64::from(l - highest).exp(), id)).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let total: f64 = ranked.iter().map(|r| r.0).sum();
        for (top_p, min_p) in
            [(0.1, 0.0), (0.5, 0.0), (0.999, 0.0), (1.0, 0.01), (1.0, 0.9), (0.9, 0.5), (0.3, 0.01)]
        {
            let mut mass = 0.0;
            let mut expected: Vec<u32> = Vec::new();
            for &(weight, id) in &ranked {
                if weight < f64::from(min_p) || (mass >= total * f64::from(top_p) && !expected.is_empty()) {
                    break;
                }
                mass += weight;
                expected.push(id);
            }
            let mut sampler = sampler(|p| (p.top_p, p.min_p) = (top_p, min_p));
            sampler.keep_top_k(&logits);
            for candidate in &mut sampler.candidates {
                candidate.weight = exp(f64::from(candidate.logit - highest));
            }
            let n_kept = sampler.keep_top_p();
            let mut kept: Vec<u32> = sampler.candidates[..n_kept].iter().map(|c| c.id).collect();
            kept.sort_unstable();
            expected.sort_unstable();
            assert_eq!(kept, expected, "top_p {top_p}, min_p {min_p}");
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        // Probabilities 1/2, 1/4, 1/8, 1/8 at temperature 1.
        let logits = [4f32.ln(), 2f32.ln(), 0.0, 0.0];
        let mut sampler = sampler(|p| p.seed = Some(1));
        let mut counts = [0i32; 4];
        for _ in 0..80_000 {
            counts[sampler.sample(&mut logits.clone(), &[]).unwrap() as usize] += 1;
        }
        // Five standard deviations of the largest are 707.
        for (count, expected) in counts.into_iter().zip([40_000, 20_000, 10_000, 10_000]) {
            assert!((count - expected).abs() < 707, "{counts:?}");
        }
    }

    #[test]
    fn the_penalty_applies_once_to_each_recent_token() {
        let mut sampler = sampler(|p| (p.repeat_penalty, p.repeat_last_n, p.temperature) = (2.0, 3, 0.0));
        let mut logits = [4.0, 3.0, -1.0, 2.5];
        assert_eq!(sampler.sample(&mut logits, &[3, 0, 2, 0]).unwrap(), 1);
        assert_eq!(logits, [2.0, 3.0, -2.0, 2.5]);
        let mut unknown_id = [1.0, 2.0];
        assert_eq!(sampler.sample(&mut unknown_id, &[99]).unwrap(), 1);
        let mut extreme = [f32::MIN, f32::MAX];
        assert_eq!(sampler.sample(&mut extreme, &[0, 1]).unwrap(), 1);
        assert_eq!(extreme, [f32::MIN, f32::MAX / 2.0]);
    }

    #[test]
    fn a_seed_gives_one_sequence_and_buffers_stay() {
        let logits = noise(5_000);
        let run = |seed| {
            let mut sampler =
                Sampler::new(SamplerParams { seed, temperature: 2.0, ..Default::default() }).unwrap();
            let first = sampler.sample(&mut logits.clone(), &[]).unwrap();
            let capacity = sampler.candidates.capacity();
            let rest: Vec<u32> = (0..50).map(|_| sampler.sample(&mut logits.clone(), &[]).unwrap()).collect();
            assert_eq!(sampler.candidates.capacity(), capacity);
            (first, rest)
        };
        assert_eq!(run(Some(5)), run(Some(5)));
        assert_ne!(run(Some(5)), run(Some(6)));
        assert_eq!(run(None), run(Some(0)));
    }
}
