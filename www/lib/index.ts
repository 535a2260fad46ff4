/**
 * bitpane: quantized vision transformers and small language models in a web page.
 *
 * Everything heavy runs in a worker, one for each model; the page never blocks.
 *
 * @packageDocumentation
 */
export { TextModel } from "./text.js";
export type { DetokenizeOptions, LogitsOptions, TokenizeOptions } from "./text.js";
export { Chat, ChatCompletions } from "./chat.js";
export type {
  ChatCompletion, ChatCompletionChunk, ChatCompletionParams, ChatDelta, ChatFinishReason, ChatLogprobs,
  ChatMessage, ChatPromptRequest, ChatTextPart, ChatTokenLogprob, ChatTool, ChatToolCall, ChatUsage,
} from "./chat-types.js";
export { similarity, VisionModel } from "./vision.js";
export type { ClassifyOptions, ImageLogitsOptions } from "./vision.js";
export { inspect } from "./inspect.js";
export type { InspectOptions } from "./inspect.js";
export { cache } from "./cache.js";
export type { CacheEntry, CacheEstimate } from "./cache.js";
export type { DownloadOptions } from "./request.js";
export { inspectWeights, quantizeFile, Quantizer } from "./quantize.js";
export type { QuantizedFile, QuantizeFileOptions, QuantizerOptions, SurveyOptions, WriteOptions } from "./quantize.js";
export { compare } from "./compare.js";
export type { CompareOptions, Compared, Comparison } from "./compare.js";
export { pickedModel } from "./picked.js";
export type { PickedModel } from "./picked.js";
export { detectFeatures } from "./features.js";
export type { BuildName, Features } from "./features.js";
export { BitpaneError, ERROR_CODES } from "./errors.js";
export type { ErrorCode } from "./errors.js";
export { VERSION } from "./version.js";
export type {
  AttentionOptions, Backend, CacheOptions, Classification, CurvePoint, Divergence, EmbedOptions, FinishReason, GenerateOptions, ImageSource, Inspection, JsonSource, LoadOptions, LoraOption,
  KvType, ModelFiles, ModelInfo, Perplexity, PerplexityOptions, Piece, PieceLogprobs, PixelData, Pooling, Progress,
  QuantizationBudget, QuantizationPlan, QuantizationReport, QuantizeType, Ranked, Resizing, SamplerName, Source, SourceFile,
  SpeculationOptions, SurveyedTensor, Tensor, TensorSummary, TextLoadOptions, TextModelInfo, TextStats, TokenLogprob, Transfer, TypeChoice, VisionLoadOptions,
  VisionModelInfo, VisionStats, WeightSurvey, ZeroShotOptions,
} from "./types.js";
