import { Chat, toJson } from "./chat.js";
import type { ChatPromptRequest } from "./chat-types.js";
import { badArgument } from "./errors.js";
import { forgotten, type Engine } from "./engine.js";
import { generation } from "./generation.js";
import { loadInto, LOAD_RULES } from "./load.js";
import * as rule from "./options.js";
import type {
  EmbedOptions, GenerateOptions, LoraOption, Perplexity, PerplexityOptions, Piece, Ranked, Source, TextLoadOptions, TextModelInfo, TextStats,
} from "./types.js";

const TEXT_LOAD_RULES: rule.Rules<TextLoadOptions> = {
  ...LOAD_RULES,
  contextLength: rule.positive,
  kvType: rule.text,
  lora: rule.listOf(loraOption),
  draft: (_, value) => value as Source, // judged as every source is
};

function loraOption(key: string, value: unknown): LoraOption {
  const given = rule.readOptions<LoraOption>(value, { source: (_, source) => source as Source, scale: rule.number });
  if (given.source === undefined) throw badArgument(key, `"${key}" needs a "source" for each adapter`);
  return given as LoraOption;
}

/** Options of {@link TextModel.tokenize}. */
export interface TokenizeOptions {
  /** Adds the tokens that the model wants around a text. Default false. */
  addSpecial?: boolean;
  /** Reads the text forms of special tokens as those tokens. Default false. */
  parseSpecial?: boolean;
}

/** Options of {@link TextModel.detokenize}. */
export interface DetokenizeOptions {
  /** Leaves out the tokens that the model puts around a text. Default false. */
  removeSpecial?: boolean;
  /** Writes special tokens in their text form instead of leaving them out. Default false. */
  unparseSpecial?: boolean;
}

/** Options of {@link TextModel.logits}. */
export interface LogitsOptions {
  /** How many of the last positions to return; all by default. */
  last?: number;
}

const EMBED_RULES: rule.Rules<EmbedOptions> = { pooling: rule.oneOf(["none", "mean", "cls", "last", "rank"]), normalize: rule.flag };
const PERPLEXITY_RULES: rule.Rules<PerplexityOptions> = {
  context: rule.positive, record: rule.flag, against: rule.bytes,
};
const TOKENIZE_RULES: rule.Rules<TokenizeOptions> = { addSpecial: rule.flag, parseSpecial: rule.flag };
const DETOKENIZE_RULES: rule.Rules<DetokenizeOptions> = { removeSpecial: rule.flag, unparseSpecial: rule.flag };

/**
 * A language model in a worker of its own.
 *
 * Calls on one model are served in the order in which they were made; a second `generate`
 * waits until the first has ended.
 */
export class TextModel {
  readonly #engine: Engine;
  /** What was loaded. */
  readonly info: TextModelInfo;
  /** Conversations, in OpenAI's shape. */
  readonly chat: Chat;
  #stats: Omit<TextStats, "wasmBytes"> = {
    promptTokens: 0, cachedTokens: 0, forgottenTokens: 0, promptMs: 0, decodeTokens: 0, decodeMs: 0, seed: null, guessedTokens: 0, acceptedTokens: 0, finishReason: null,
  };

  private constructor(engine: Engine, info: TextModelInfo) {
    this.#engine = engine;
    this.info = info;
    this.chat = new Chat({
      name: info.name ?? info.architecture,
      contextLength: info.contextLength,
      generate: (request, options) => generation(engine, request, options, (result) => {
        this.#stats = result;
      }),
      stats: () => this.#stats,
    });
    forgotten.register(this, engine, this);
  }

  /**
   * Loads a GGUF language model, or an encoder, which only makes vectors.
   *
   * @throws {BitpaneError} with the code of what is wrong with the source, the file or the options.
   */
  static async load(source: Source, options: TextLoadOptions = {}): Promise<TextModel> {
    const given = rule.readOptions<TextLoadOptions>(options, TEXT_LOAD_RULES);
    const { quantize, contextLength, kvType, lora, draft } = given;
    const wire = { quantize, contextLength, kvType };
    const { engine, loaded } = await loadInto("text", source, given, wire, { lora, draft });
    return new TextModel(engine, loaded.info as TextModelInfo);
  }

  /** Figures of the last generation that ended. */
  get stats(): TextStats {
    return { ...this.#stats, wasmBytes: this.#engine.wasmBytes };
  }

  /**
   * Continues a prompt, given as text or as token ids. Pieces arrive as they are computed.
   * Leaving the loop early stops the computation.
   */
  generate(prompt: string | readonly number[] | Uint32Array, options: GenerateOptions = {}): AsyncGenerator<Piece, void, void> {
    return generation(this.#engine, prompt, options, (result) => {
      this.#stats = result;
    });
  }

  /**
   * A conversation as the prompt that the model's chat template makes of it: for a look at what the model
   * reads. `chat.completions.create` takes the same messages.
   */
  async chatPrompt(request: ChatPromptRequest): Promise<string> {
    return this.#engine.call("chatPrompt", { request: toJson(request) });
  }

  /**
   * What the model has in its context, as bytes: a long prompt or a conversation, to be taken up later without
   * processing it again.
   */
  async saveSession(): Promise<Uint8Array> {
    return this.#engine.call("saveSession", {});
  }

  /**
   * Takes up a context that {@link saveSession} gave, with the same model loaded with the same options; resolves to
   * the number of its tokens. A prompt that begins as it did costs only what is new.
   *
   * @throws {BitpaneError} `BadMagic`, `UnsupportedVersion`, `Truncated` or `IntegrityError` for bytes that are no
   * whole session, `BadArgument` for one of another model, `ContextOverflow` for one that is too long. The context
   * is then what it was.
   */
  async restoreSession(bytes: Uint8Array): Promise<number> {
    return this.#engine.call("restoreSession", { bytes: rule.bytes("bytes", bytes) });
  }

  /** The token ids of a text. */
  async tokenize(text: string, options: TokenizeOptions = {}): Promise<number[]> {
    const { addSpecial = false, parseSpecial = false } = rule.readOptions(options, TOKENIZE_RULES);
    return this.#engine.call("tokenize", { text: rule.text("text", text), addSpecial, parseSpecial });
  }

  /** The text of token ids; bytes that are not UTF-8 become U+FFFD. */
  async detokenize(tokens: readonly number[] | Uint32Array, options: DetokenizeOptions = {}): Promise<string> {
    const { removeSpecial = false, unparseSpecial = false } = rule.readOptions(options, DETOKENIZE_RULES);
    const ids = rule.tokenIds("tokens", tokens);
    return this.#engine.call("detokenize", { tokens: ids, removeSpecial, unparseSpecial });
  }

  /** The logits after each of the last positions, the last position last; each of the vocabulary's length. */
  async logits(tokens: readonly number[] | Uint32Array, options: LogitsOptions = {}): Promise<Float32Array[]> {
    const ids = rule.tokenIds("tokens", tokens);
    const { last = ids.length } = rule.readOptions<LogitsOptions>(options, { last: rule.positive });
    return this.#engine.call("logits", { tokens: ids, last });
  }

  /**
   * A text as a vector, or each of several; between texts other messages of the worker get in. Encoders
   * and language models alike: those give the state after the last token unless `pooling` says otherwise.
   */
  embed(text: string | Uint32Array, options?: EmbedOptions): Promise<Float32Array>;
  embed(texts: readonly (string | Uint32Array)[], options?: EmbedOptions): Promise<Float32Array[]>;
  async embed(
    texts: string | Uint32Array | readonly (string | Uint32Array)[], options: EmbedOptions = {},
  ): Promise<Float32Array | Float32Array[]> {
    const given = rule.readOptions<EmbedOptions>(options, EMBED_RULES);
    const one = typeof texts === "string" || texts instanceof Uint32Array;
    const list = rule.textsOrTokens("texts", one ? [texts] : texts);
    const vectors = await this.#engine.call("embed", { texts: list, options: given });
    return one ? vectors[0]! : vectors;
  }

  /**
   * Scores documents against a query, best first. For encoders with a classification head
   * (`info.pooling` is "rank").
   */
  async rerank(query: string, documents: readonly string[]): Promise<Ranked[]> {
    const given = { query: rule.text("query", query), documents: rule.texts("documents", documents) };
    const scores = await this.#engine.call("rerank", given);
    return scores.map((score, index) => ({ index, score })).sort((a, b) => b.score - a.score || a.index - b.index);
  }

  /**
   * How well the model predicts a text. The text is tokenized without special tokens and cut
   * into pieces of `context - 1` tokens; each is scored after the start token alone.
   *
   * With `record` the result holds the distributions; given to another model as `against`, it tells
   * how far that model's are from them: what a quantization did.
   */
  async perplexity(text: string, options: PerplexityOptions = {}): Promise<Perplexity> {
    const given = rule.readOptions<PerplexityOptions>(options, PERPLEXITY_RULES);
    return this.#engine.call("perplexity", { text: rule.text("text", text), ...given });
  }

  /** Ends the worker and frees its memory. Calls under way, and later ones, reject with `Disposed`. */
  async dispose(): Promise<void> {
    forgotten.unregister(this);
    this.#engine.dispose();
  }
}
