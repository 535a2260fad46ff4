//! The chain against definitions written out over sorted lists.

use super::*;

/// A sampler with all stages off.
fn sampler(change: impl FnOnce(&mut SamplerParams)) -> Sampler {
    let off = SamplerParams {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: Some(0),
        ..Default::default()
    };
    let mut params = off;
    change(&mut params);
    Sampler::new(params).unwrap()
}

/// The set of ids that 2,000 draws give.
fn drawn(sampler: &mut Sampler, logits: &[f32]) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..2000).map(|_| sampler.sample(&mut logits.to_vec(), &[]).unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn noise(n: usize) -> Vec<f32> {
    let mut random = Pcg32::new(7, 1);
    (0..n).map(|_| (random.unit() * 20.0 - 10.0) as f32).collect()
}

/// What the chain leaves to draw from: probabilities by id.
fn left(sampler: &mut Sampler, logits: &[f32]) -> Vec<(u32, f64)> {
    sampler.sample(&mut logits.to_vec(), &[]).unwrap();
    let total = sampler.candidates.weigh();
    let mut left: Vec<_> = sampler.candidates.list.iter().map(|c| (c.id, c.weight / total)).collect();
    left.sort_by_key(|c| c.0);
    left
}

/// The definitions, over a full list of (id, logit) with the highest first.
mod reference {
    pub type List = Vec<(u32, f64)>;

    pub fn list(logits: &[f32]) -> List {
        let mut list: List = logits.iter().zip(0..).map(|(&l, id)| (id, f64::from(l))).collect();
        list.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        list
    }

    pub fn softmax(list: &List) -> Vec<f64> {
        let total: f64 = list.iter().map(|c| (c.1 - list[0].1).exp()).sum();
        list.iter().map(|c| (c.1 - list[0].1).exp() / total).collect()
    }

    pub fn top_k(mut list: List, k: usize) -> List {
        list.truncate(k);
        list
    }

    /// How many it takes until their sum is enough; all if it never is.
    fn prefix(probabilities: &[f64], enough: impl Fn(f64) -> bool) -> usize {
        let n = (1..=probabilities.len()).find(|&n| enough(probabilities[..n].iter().sum()));
        n.unwrap_or(probabilities.len())
    }

    pub fn top_p(mut list: List, p: f64) -> List {
        let n = prefix(&softmax(&list), |mass| mass >= p);
        list.truncate(n);
        list
    }

    pub fn min_p(mut list: List, p: f64) -> List {
        let least = list[0].1 + p.ln();
        list.retain(|c| c.1 >= least);
        list
    }

    pub fn typical_p(list: List, p: f64) -> List {
        let probabilities = softmax(&list);
        let entropy: f64 = probabilities.iter().map(|q| -q * q.ln()).sum();
        let mut order: Vec<usize> = (0..list.len()).collect();
        let distance = |i: usize| (-probabilities[i].ln() - entropy).abs();
        order.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)).then(a.cmp(&b)));
        let n = prefix(&order.iter().map(|&i| probabilities[i]).collect::<Vec<_>>(), |mass| mass > p);
        let mut kept: List = order[..n].iter().map(|&i| list[i]).collect();
        kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        kept
    }

    pub fn top_n_sigma(mut list: List, n: f64) -> List {
        let mean = list.iter().map(|c| c.1).sum::<f64>() / list.len() as f64;
        let variance = list.iter().map(|c| (c.1 - mean).powi(2)).sum::<f64>() / list.len() as f64;
        let least = list[0].1 - n * variance.sqrt();
        list.retain(|c| c.1 >= least);
        list
    }

    pub fn xtc(list: List, threshold: f64) -> List {
        let n = softmax(&list).iter().filter(|&&q| q >= threshold).count();
        list[n.saturating_sub(1)..].to_vec()
    }

    pub fn temperature(list: List, t: f64) -> List {
        list.into_iter().map(|c| (c.0, c.1 / t)).collect()
    }

    pub fn dynamic_temperature(list: List, t: f64, range: f64, exponent: f64) -> List {
        let entropy: f64 = softmax(&list).iter().map(|q| -q * q.ln()).sum();
        let share = entropy / (list.len() as f64).ln();
        let low = (t - range).max(0.0);
        temperature(list, low + (t + range - low) * share.powf(exponent))
    }
}

fn assert_same(got: &[(u32, f64)], list: reference::List, what: &str) {
    let mut want: Vec<_> = list.iter().map(|c| c.0).zip(reference::softmax(&list)).collect();
    want.sort_by_key(|c| c.0);
    let ids = |list: &[(u32, f64)]| list.iter().map(|c| c.0).collect::<Vec<_>>();
    assert_eq!(ids(got), ids(&want), "{what}");
    for (g, w) in got.iter().zip(&want) {
        assert!((g.1 - w.1).abs() < 1e-6, "{what}: token {} has {}, not {}", g.0, g.1, w.1);
    }
}

#[test]
fn every_stage_leaves_what_its_definition_says() {
    use reference as r;
    for n in [1, 2, 50, 3000] {
        let logits = noise(n);
        let list = || r::list(&logits);
        for p in [0.1f32, 0.5, 0.9, 0.999] {
            let f = f64::from(p);
            let what = format!("{p} of {n}");
            assert_same(&left(&mut sampler(|s| s.top_p = p), &logits), r::top_p(list(), f), &what);
            assert_same(&left(&mut sampler(|s| s.min_p = p), &logits), r::min_p(list(), f), &what);
            assert_same(&left(&mut sampler(|s| s.typical_p = p), &logits), r::typical_p(list(), f), &what);
            let got = left(&mut sampler(|s| s.top_n_sigma = 2.0 * p), &logits);
            assert_same(&got, r::top_n_sigma(list(), 2.0 * f), &what);
            for threshold in [0.001f32, 0.02, 0.1, 0.5] {
                let got =
                    left(&mut sampler(|s| (s.xtc_probability, s.xtc_threshold) = (1.0, threshold)), &logits);
                assert_same(&got, r::xtc(list(), f64::from(threshold)), &what);
            }
            let got = left(&mut sampler(|s| s.temperature = 3.0 * p), &logits);
            assert_same(&got, r::temperature(list(), 3.0 * f), &what);
            let change = |s: &mut SamplerParams| {
                (s.temperature, s.dynatemp_range, s.dynatemp_exponent) = (1.0, 2.0 * p, 0.5 + p);
            };
            if n > 1 {
                let want = r::dynamic_temperature(list(), 1.0, 2.0 * f, 0.5 + f);
                assert_same(&left(&mut sampler(change), &logits), want, &what);
            }
        }
        for k in [1, 40, 64, 65, 2999, 9999] {
            let got = left(&mut sampler(|s| s.top_k = k), &logits);
            assert_same(&got, r::top_k(list(), k as usize), &format!("{k} of {n}"));
        }
    }
}

#[test]
fn stages_follow_the_order_that_is_asked_for() {
    use reference as r;
    let logits = noise(3000);
    let set = |s: &mut SamplerParams| {
        (s.temperature, s.top_k, s.top_p, s.min_p, s.typical_p) = (1.7, 30, 0.8, 0.02, 0.9);
        (s.top_n_sigma, s.xtc_probability, s.xtc_threshold) = (1.5, 1.0, 0.04);
    };
    let got = left(&mut sampler(set), &logits);
    let list = r::top_k(r::top_n_sigma(r::list(&logits), 1.5), 30);
    let list = r::min_p(r::top_p(r::typical_p(list, 0.9f32.into()), 0.8f32.into()), 0.02f32.into());
    let list = r::temperature(r::xtc(list, 0.04f32.into()), 1.7f32.into());
    assert_same(&got, list, "the default order");

    let order = ["temperature", "xtc", "min_p", "top_p", "typ_p", "top_k", "top_n_sigma"];
    let got = left(
        &mut sampler(|s| {
            set(s);
            s.samplers = order.map(String::from).to_vec();
        }),
        &logits,
    );
    let list = r::xtc(r::temperature(r::list(&logits), 1.7f32.into()), 0.04f32.into());
    let list = r::top_p(r::min_p(list, 0.02f32.into()), 0.8f32.into());
    let list = r::top_n_sigma(r::top_k(r::typical_p(list, 0.9f32.into()), 30), 1.5);
    assert_same(&got, list, "the reverse order");

    let none = left(&mut sampler(|s| (set(s), s.samplers.clear()).1), &logits);
    assert_same(&none, r::list(&logits), "no stage at all");
}

#[test]
fn penalties_change_the_logits_by_hand_computed_amounts() {
    let penalized = |change: fn(&mut SamplerParams), history: &[u32]| {
        let mut logits = [4.0, 3.0, -1.0, 2.5];
        sampler(change).sample(&mut logits, history).unwrap();
        logits
    };
    assert_eq!(penalized(|p| p.repeat_penalty = 2.0, &[3, 0, 2, 0]), [2.0, 3.0, -2.0, 1.25]);
    assert_eq!(penalized(|p| (p.repeat_penalty, p.repeat_last_n) = (2.0, 1), &[3, 0]), [2.0, 3.0, -1.0, 2.5]);
    assert_eq!(penalized(|p| (p.repeat_penalty, p.repeat_last_n) = (2.0, 0), &[3, 0]), [4.0, 3.0, -1.0, 2.5]);
    assert_eq!(penalized(|p| p.frequency_penalty = 0.5, &[3, 0, 2, 0]), [3.0, 3.0, -1.5, 2.0]);
    assert_eq!(penalized(|p| p.presence_penalty = 0.5, &[3, 0, 2, 0]), [3.5, 3.0, -1.5, 2.0]);
    let all = |p: &mut SamplerParams| {
        (p.repeat_penalty, p.frequency_penalty, p.presence_penalty, p.repeat_last_n) = (2.0, 0.5, 0.25, -1);
    };
    assert_eq!(penalized(all, &[3, 0, 2, 0]), [0.75, 3.0, -2.75, 0.5]);
    let unknown_id = penalized(|p| p.repeat_penalty = 2.0, &[99]);
    assert_eq!(unknown_id, [4.0, 3.0, -1.0, 2.5]);
    let mut extreme = [f32::MIN, f32::MAX];
    let change = |p: &mut SamplerParams| (p.repeat_penalty, p.presence_penalty) = (2.0, 100.0);
    assert_eq!(sampler(change).sample(&mut extreme, &[0, 1]).unwrap(), 1);
    assert_eq!(extreme[0], f32::MIN);
}

#[test]
fn penalties_after_other_stages_do_what_they_do_before() {
    let logits = noise(200);
    let history: Vec<u32> = (0..150).map(|i| i * i % 200).collect();
    let probabilities = |order: [&str; 3]| {
        let mut sampler = sampler(|p| {
            p.samplers = order.map(String::from).to_vec();
            (p.repeat_penalty, p.presence_penalty, p.frequency_penalty) = (1.3, 0.4, 0.2);
            (p.dry_multiplier, p.dry_allowed_length, p.top_k) = (0.7, 0, 200);
        });
        sampler.sample(&mut logits.clone(), &history).unwrap();
        let total = sampler.candidates.weigh();
        let mut list: Vec<_> = sampler.candidates.list.iter().map(|c| (c.id, c.weight / total)).collect();
        list.sort_by_key(|c| c.0);
        list
    };
    let before = probabilities(["penalties", "dry", "top_k"]);
    let after = probabilities(["top_k", "penalties", "dry"]);
    assert_eq!(before, after);
}

#[test]
fn a_bias_is_added_first() {
    let biased = |bias: &[(i64, f32)]| {
        let bias = LogitBias::of_ids(bias.iter().copied());
        drawn(&mut sampler(|p| (p.logit_bias, p.top_k) = (bias, 1)), &[0.0, 3.0, 1.0, 2.0])
    };
    assert_eq!(biased(&[]), [1]);
    assert_eq!(biased(&[(2, 10.0)]), [2]);
    assert_eq!(biased(&[(1, f32::NEG_INFINITY)]), [3]);
    assert_eq!(biased(&[(1, -1.5), (1, -1.5)]), [3]);
    let far = sampler(|p| p.logit_bias = LogitBias::of_ids([(4, 1.0)])).sample(&mut [0.0; 4], &[]);
    assert_eq!(far.unwrap_err().key.as_deref(), Some("logitBias"));
}

#[test]
fn mirostat_keeps_to_its_target() {
    let logits = noise(3000);
    let mut sampler = sampler(|p| (p.mirostat, p.mirostat_tau, p.mirostat_eta, p.top_k) = (2, 4.0, 0.1, 1));
    assert_eq!(sampler.mu, 8.0);
    let mut sum = 0.0;
    for i in 0..600 {
        let (mu, limit) = (sampler.mu, 2f64.powf(-sampler.mu));
        let id = sampler.sample(&mut logits.clone(), &[]).unwrap();
        // What was left: all tokens with a surprise of at most mu, or the most probable one.
        let list = reference::list(&logits);
        let all = reference::softmax(&list);
        let n_left = all.iter().filter(|&&p| p >= limit).count().max(1);
        assert_eq!(sampler.candidates.list.len(), n_left);
        let kept: f64 = all[..n_left].iter().sum();
        let place = list.iter().position(|c| c.0 == id).unwrap();
        let surprise = -(all[place] / kept).log2();
        assert!((sampler.mu - (mu - 0.1 * (surprise - 4.0))).abs() < 1e-6);
        sum += if i >= 200 { surprise } else { 0.0 };
    }
    assert!((sum / 400.0 - 4.0).abs() < 0.3, "mean surprise {}", sum / 400.0);
}

#[test]
fn xtc_happens_as_often_as_asked() {
    // Probabilities 1/2, 1/4, 1/4: with XTC the first is out.
    let logits = [2f32.ln(), 0.0, 0.0];
    let mut sampler = sampler(|p| (p.xtc_probability, p.xtc_threshold) = (0.3, 0.26));
    let first = (0..20_000).filter(|_| sampler.sample(&mut logits.clone(), &[]).unwrap() == 0).count();
    // Only one token reaches the threshold, so nothing is ever taken out: half of the draws, 5 sigma are 354.
    assert!(first.abs_diff(10_000) < 354, "{first}");
    sampler.params.xtc_threshold = 0.2;
    let first = (0..20_000).filter(|_| sampler.sample(&mut logits.clone(), &[]).unwrap() == 0).count();
    // 0.7 * 1/2, 5 sigma are 338.
    assert!(first.abs_diff(7_000) < 338, "{first}");
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
    assert_eq!(drawn(&mut sampler(|p| p.typical_p = 0.0), &logits).len(), 1);
    assert_eq!(drawn(&mut sampler(|p| p.top_n_sigma = 1000.0), &logits), [0, 1, 2, 3]);
    assert_eq!(drawn(&mut sampler(|p| (p.temperature, p.dynatemp_range) = (0.0, 100.0)), &logits).len(), 4);
    let xtc = |p: &mut SamplerParams| (p.xtc_probability, p.xtc_threshold) = (1.0, 0.0);
    assert_eq!(drawn(&mut sampler(xtc), &logits), [0]);
    let mirostat = |p: &mut SamplerParams| (p.mirostat, p.mirostat_tau, p.mirostat_eta) = (2, 0.0, 10.0);
    assert_eq!(drawn(&mut sampler(mirostat), &logits), [1]);
}

#[test]
fn a06_faulty_logits_are_an_error() {
    for temperature in [0.0, 1.0] {
        for fault in [f32::NAN, f32::INFINITY] {
            for at in [0, 150, 299] {
                let mut logits = noise(300);
                logits[at] = fault;
                let error = sampler(|p| p.temperature = temperature).sample(&mut logits, &[]).unwrap_err();
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
    // With a stage that may take the highest out, what it leaves counts.
    let mut xtc = sampler(|p| (p.temperature, p.xtc_probability, p.xtc_threshold) = (0.0, 1.0, 0.1));
    assert_eq!(xtc.sample(&mut [1.0, 1.1, 0.9], &[]).unwrap(), 2);
}

#[test]
fn minus_infinity_is_never_drawn() {
    let logits = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 0.1];
    assert_eq!(drawn(&mut sampler(|_| ()), &logits), [1, 3]);
    assert_eq!(drawn(&mut sampler(|p| p.top_k = 3), &logits), [1, 3]);
    assert_eq!(drawn(&mut sampler(|p| p.top_n_sigma = 1000.0), &logits), [1, 3]);
    assert_eq!(drawn(&mut sampler(|p| p.min_p = 1e-30), &logits), [1, 3]);
}

#[test]
fn ties_and_sorted_rows_do_not_confuse_top_k() {
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
        for top_k in [1, 2, 40, 63, 64, 65, 156, 157, 3_000, 9_999, 10_000, 20_000] {
            let got = left(&mut sampler(|p| p.top_k = top_k), &logits);
            let want = reference::top_k(reference::list(&logits), top_k as usize);
            assert_same(&got, want, &format!("top_k {top_k}, shape {shape}"));
        }
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
fn a_seed_gives_one_sequence_and_buffers_stay() {
    let logits = noise(5_000);
    let run = |seed| {
        let mut sampler =
            Sampler::new(SamplerParams { seed, temperature: 2.0, ..Default::default() }).unwrap();
        let first = sampler.sample(&mut logits.clone(), &[]).unwrap();
        let capacity = sampler.candidates.list.capacity();
        let rest: Vec<u32> = (0..50).map(|_| sampler.sample(&mut logits.clone(), &[]).unwrap()).collect();
        assert_eq!(sampler.candidates.list.capacity(), capacity);
        (sampler.seed(), first, rest)
    };
    assert_eq!(run(Some(5)), run(Some(5)));
    assert_ne!(run(Some(5)), run(Some(6)));
    // Without a seed one is made up, and told.
    let made_up = run(None);
    assert_eq!(run(Some(made_up.0 as i64)), made_up);
    assert_ne!(run(None).0, made_up.0);
}
