//! Pictures and texts in one space: zero-shot classification and search (Radford et al. 2021, section 3.1).

use super::{Class, VisionModel, ranked, softmax};
use crate::error::{Code, Error, Result};
use crate::image::PixelView;
use crate::models::vision::{Output, TextTower};
use crate::tokenizer::Tokenizer;
use serde::Deserialize;

/// How labels become texts.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ZeroShotOptions {
    /// A sentence in which `{}` stands for the label.
    pub template: String,
}

impl Default for ZeroShotOptions {
    fn default() -> Self {
        ZeroShotOptions { template: "This is a photo of {}.".into() }
    }
}

/// Vectors of texts that are kept.
const MAX_KEPT_TEXTS: usize = 4096;

/// The cosine of the angle between two vectors of one length; 0 where one of them is zero.
pub fn similarity(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { (dot(a, b) / lengths) as f32 } else { 0.0 }
}

fn normalized(mut v: Vec<f32>) -> Vec<f32> {
    let length = v.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0.0 {
        v.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    v
}

impl VisionModel {
    /// Gives the model the tokenizer of its text tower.
    ///
    /// # Errors
    /// [`Code::BadArgument`] where the model reads no texts; [`Code::TokenizerInvalid`] where the vocabulary is larger
    /// than the embedding.
    pub fn set_tokenizer(&mut self, tokenizer: Tokenizer) -> Result<()> {
        let n_vocab = self.text()?.n_vocab();
        if tokenizer.n_vocab() > n_vocab {
            let what = format!("{} tokens, but the embedding has {n_vocab} rows", tokenizer.n_vocab());
            return Err(Error::new(Code::TokenizerInvalid, what).key("tokenizer"));
        }
        self.tokenizer = Some(tokenizer);
        self.info.reads_texts = true;
        Ok(())
    }

    /// Whether the model has a part that reads texts.
    pub fn has_text_tower(&mut self) -> bool {
        self.model.text().is_some()
    }

    fn text(&mut self) -> Result<&mut dyn TextTower> {
        let rule = "the model has no text tower: labels need one such as CLIP's or SigLIP's";
        self.model.text().ok_or_else(|| Error::new(Code::BadArgument, rule).key("labels"))
    }

    /// The vector of a picture, of length 1, that is compared with those of other pictures and of texts.
    ///
    /// # Errors
    /// As [`Self::features`].
    pub fn embed_image(&mut self, image: &PixelView) -> Result<Vec<f32>> {
        self.show(image, Output::Pooled).map(|out| normalized(out.values))
    }

    /// The vector of a text, of length 1. A text that is too long loses its end.
    ///
    /// # Errors
    /// [`Code::BadArgument`] where the model has no text tower or no tokenizer; [`Code::NumericFault`].
    pub fn embed_text(&mut self, text: &str) -> Result<Vec<f32>> {
        if let Some(known) = self.texts.get(text) {
            return Ok(known.clone());
        }
        self.text()?;
        let rule = "texts need the tokenizer.json that belongs to the model";
        let tokenizer = self.tokenizer.as_ref();
        let tokenizer = tokenizer.ok_or_else(|| Error::new(Code::BadArgument, rule).key("tokenizer"))?;
        let mut tokens = tokenizer.encode(text, true, false)?;
        let n_ctx = self.text()?.n_ctx();
        if let Some(&end) = tokens.last().filter(|_| tokens.len() > n_ctx) {
            tokens.truncate(n_ctx);
            tokens[n_ctx - 1] = end;
        }
        let vector = self.embed_text_tokens(&tokens)?;
        if self.texts.len() >= MAX_KEPT_TEXTS {
            self.texts.clear();
        }
        self.texts.insert(text.into(), vector.clone());
        Ok(vector)
    }

    /// The vector, of length 1, of a text given as tokens, special ones included.
    ///
    /// # Errors
    /// [`Code::BadArgument`], [`Code::ContextOverflow`], [`Code::NumericFault`].
    pub fn embed_text_tokens(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let mode = self.mode;
        let tower = self.text()?;
        let (n_ctx, n_vocab) = (tower.n_ctx(), tower.n_vocab());
        let bad = |rule: String| Err(Error::new(Code::BadArgument, rule).key("tokens"));
        if tokens.is_empty() {
            return bad("no tokens".into());
        }
        if let Some(token) = tokens.iter().find(|&&t| t as usize >= n_vocab) {
            return bad(format!("token {token} is not below {n_vocab}"));
        }
        if tokens.len() > n_ctx {
            let what = format!("{} tokens do not fit a text of {n_ctx}", tokens.len());
            return Err(Error::new(Code::ContextOverflow, what).key("tokens"));
        }
        let vector = tower.embed(tokens, mode)?;
        if vector.iter().any(|x| !x.is_finite()) {
            return Err(Error::new(Code::NumericFault, "the model computed NaN or infinity"));
        }
        Ok(normalized(vector))
    }

    /// The scores of texts for a picture: what the model makes of the similarities of `picture` with each of `texts`,
    /// and their probabilities, together 1 (CLIP) or each by itself (SigLIP).
    ///
    /// # Errors
    /// [`Code::BadArgument`] where the model has no text tower.
    pub fn compare(&mut self, picture: &[f32], texts: &[Vec<f32>]) -> Result<(Vec<f32>, Vec<f32>)> {
        let tower = self.text()?;
        let (scale, bias) = tower.scale_and_bias();
        let logits: Vec<f32> = texts.iter().map(|t| scale * similarity(picture, t) + bias).collect();
        let scores = match tower.is_sigmoid() {
            true => logits.iter().map(|&l| 1.0 / (1.0 + libm::expf(-l))).collect(),
            false => softmax(&logits),
        };
        Ok((logits, scores))
    }

    /// Which of some labels fits a picture: all of them, best first.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for no labels, a template without `{}`, or a model without text tower or tokenizer; else
    /// as [`Self::features`].
    pub fn zero_shot(
        &mut self,
        image: &PixelView,
        labels: &[String],
        options: &ZeroShotOptions,
    ) -> Result<Vec<Class>> {
        if labels.is_empty() {
            return Err(Error::new(Code::BadArgument, "no labels").key("labels"));
        }
        if !options.template.contains("{}") {
            let rule = format!("{:?} has no {{}} for the label", options.template);
            return Err(Error::new(Code::BadArgument, rule).key("template"));
        }
        let texts = labels
            .iter()
            .map(|label| self.embed_text(&options.template.replace("{}", label)))
            .collect::<Result<Vec<_>>>()?;
        let picture = self.embed_image(image)?;
        let (logits, scores) = self.compare(&picture, &texts)?;
        Ok(ranked(&logits, &scores, labels))
    }
}
