/** `chat.completions.create`: conversations over a generation. */
import type {
  ChatCompletion, ChatCompletionChunk, ChatCompletionParams, ChatDelta, ChatFinishReason, ChatLogprobs,
  ChatToolCall, ChatTokenLogprob, ChatUsage,
} from "./chat-types.js";
import { badArgument, BitpaneError } from "./errors.js";
import * as rule from "./options.js";
import { CallFilter } from "./tool-calls.js";
import type { GenerateOptions, Piece, TextStats, TokenLogprob } from "./types.js";

/** What a conversation needs from its model. */
export interface ChatHost {
  /** The name that completions carry. */
  name: string;
  contextLength: number;
  /** Continues the prompt of a conversation, given as the JSON that the runtime reads. */
  generate: (request: { chat: string }, options: GenerateOptions) => AsyncGenerator<Piece, void, void>;
  /** Figures of the generation that has just ended. */
  stats: () => Omit<TextStats, "wasmBytes">;
}

/** Data for the template: the runtime checks it, with the names of what is wrong. */
const data: rule.Rule<never> = (key, value) => {
  if (typeof value === "object" && value !== null) return value as never;
  throw badArgument(key, `"${key}" must be a list or an object`);
};

/** A word, or the name of a tool in OpenAI's wrapping. */
function toolChoice(key: string, value: unknown): NonNullable<ChatCompletionParams["tool_choice"]> {
  if (value === "auto" || value === "none" || value === "required") return value;
  if (nameOf(value) !== undefined) return value as Record<string, unknown>;
  throw badArgument(key, `"${key}" must be "auto", "none", "required" or { type: "function", function: { name } }`);
}

/** The schema that a `response_format` asks for; none for text. */
function schemaOf(format: unknown): object | undefined {
  const { type, json_schema } = (format ?? {}) as { type?: unknown; json_schema?: { schema?: unknown } | null };
  if (type === "json_object") return { type: "object" };
  const schema = type === "json_schema" ? json_schema?.schema : undefined;
  return typeof schema === "object" && schema !== null ? schema : undefined;
}

const responseFormat: rule.Rule<NonNullable<ChatCompletionParams["response_format"]>> = (key, value) => {
  if ((value as { type?: unknown } | null)?.type === "text" || schemaOf(value)) return value as { type: string };
  throw badArgument(key, `"${key}" must be of type "text", "json_object", or "json_schema" with a schema in json_schema.schema`);
};

const RULES: rule.Rules<ChatCompletionParams> = {
  messages: data,
  stream: rule.flag,
  stream_options: (key, value) => rule.readOptions(data(key, value), { include_usage: rule.flag }),
  tools: data,
  tool_choice: toolChoice,
  max_completion_tokens: rule.count,
  max_tokens: rule.count,
  temperature: rule.number,
  top_p: rule.number,
  top_k: rule.count,
  min_p: rule.number,
  repeat_penalty: rule.number,
  presence_penalty: rule.number,
  frequency_penalty: rule.number,
  logit_bias: data,
  stop: rule.textOrTexts,
  seed: rule.count,
  n: rule.positive,
  logprobs: rule.flag,
  top_logprobs: rule.count,
  response_format: responseFormat,
  enable_thinking: rule.flag,
  documents: data,
  context_shift: rule.flag,
  n_keep: rule.countOrAll,
  chat_template_kwargs: data,
  model: rule.text,
  user: rule.text,
  signal: rule.abortSignal,
};

/** `lm.chat`: OpenAI's shape for the loaded model. */
export class Chat {
  readonly completions: ChatCompletions;

  constructor(host: ChatHost) {
    this.completions = new ChatCompletions(host);
  }
}

/** `lm.chat.completions`. */
export class ChatCompletions {
  readonly #host: ChatHost;

  constructor(host: ChatHost) {
    this.#host = host;
  }

  /**
   * Answers a conversation. With `stream` the result is an async iterable of chunks; leaving its loop early
   * stops the computation.
   *
   * Only what is new is processed: messages that the model has just seen, and its own answer to them,
   * are still in its context (`usage.prompt_tokens_details.cached_tokens`).
   *
   * @throws {BitpaneError} `BadArgument` naming the message or option; `TemplateError` and `TemplateBudget`
   * for the model's template; `ContextOverflow` for a conversation that does not fit.
   */
  create(params: ChatCompletionParams & { stream: true }): Promise<AsyncGenerator<ChatCompletionChunk, void, void>>;
  create(params: ChatCompletionParams & { stream?: false }): Promise<ChatCompletion>;
  create(params: ChatCompletionParams): Promise<ChatCompletion | AsyncGenerator<ChatCompletionChunk, void, void>>;
  async create(params: ChatCompletionParams): Promise<ChatCompletion | AsyncGenerator<ChatCompletionChunk, void, void>> {
    const given = rule.readOptions<ChatCompletionParams>(params, RULES);
    if (!given.messages) throw badArgument("messages", "\"messages\" is missing");
    const task = new Task(this.#host, given as ChatCompletionParams);
    return given.stream ? task.stream() : task.whole();
  }
}

/** One call of `create`. */
class Task {
  readonly #host: ChatHost;
  readonly #params: ChatCompletionParams;
  readonly #request: string;
  /** Names of the tools on offer; none where the model may not call any. */
  readonly #tools: string[];
  /** What the answer has to keep to. */
  readonly #schema: object | undefined;
  readonly #head: { id: string; created: number; model: string };
  readonly #usage: ChatUsage = {
    prompt_tokens: 0, completion_tokens: 0, total_tokens: 0, prompt_tokens_details: { cached_tokens: 0 },
  };

  constructor(host: ChatHost, params: ChatCompletionParams) {
    this.#host = host;
    this.#params = params;
    const { messages, documents, enable_thinking, chat_template_kwargs } = params;
    const tools = params.tool_choice === "none" ? undefined : params.tools;
    this.#request = toJson({ messages, tools, documents, enable_thinking, chat_template_kwargs });
    this.#tools = tools ? toolNames(this.#request) : [];
    this.#schema = callSchema(this.#request, params.tool_choice) ?? schemaOf(params.response_format);
    this.#head = { id: `chatcmpl-${randomId(24)}`, created: Math.floor(Date.now() / 1000), model: host.name };
  }

  async whole(): Promise<ChatCompletion> {
    const choices: ChatCompletion["choices"] = [];
    for (let index = 0; index < (this.#params.n ?? 1); index += 1) {
      let content = "";
      const calls: ChatToolCall[] = [];
      const logprobs: ChatLogprobs = { content: [] };
      let finish: ChatFinishReason = "stop";
      for await (const part of this.#answer(index)) {
        content += part.delta.content ?? "";
        for (const { id, type, function: called } of part.delta.tool_calls ?? []) calls.push({ id, type, function: called });
        logprobs.content.push(...(part.logprobs?.content ?? []));
        finish = part.finish_reason ?? finish;
      }
      const message = calls.length > 0
        ? { role: "assistant" as const, content: content === "" ? null : content, tool_calls: calls }
        : { role: "assistant" as const, content };
      choices.push({ index, message, logprobs: this.#params.logprobs ? logprobs : null, finish_reason: finish });
    }
    return { ...this.#head, object: "chat.completion", choices, usage: this.#usage };
  }

  async *stream(): AsyncGenerator<ChatCompletionChunk, void, void> {
    const object = "chat.completion.chunk" as const;
    for (let index = 0; index < (this.#params.n ?? 1); index += 1) {
      yield { ...this.#head, object, choices: [{ index, delta: { role: "assistant", content: "" }, logprobs: null, finish_reason: null }] };
      for await (const part of this.#answer(index)) {
        yield { ...this.#head, object, choices: [{ index, ...part }] };
      }
    }
    if (this.#params.stream_options?.include_usage) {
      yield { ...this.#head, object, choices: [], usage: this.#usage };
    }
  }

  /** The parts of one answer; the last one says why it ended. */
  async *#answer(index: number): AsyncGenerator<Part, void, void> {
    const filter = this.#tools.length > 0 ? new CallFilter(this.#tools) : undefined;
    let logprobs: ChatLogprobs["content"] = [];
    const take = (delta: ChatDelta, finish_reason: ChatFinishReason | null = null): Part => {
      const part = { delta, logprobs: logprobs.length > 0 ? { content: logprobs } : null, finish_reason };
      logprobs = [];
      return part;
    };
    for await (const piece of this.#host.generate({ chat: this.#request }, this.#options(index))) {
      if (piece.logprobs) logprobs.push({ ...scored(piece.logprobs), top_logprobs: piece.logprobs.top.map(scored) });
      const content = filter ? filter.push(piece.text) : piece.text;
      if (content !== "") yield take({ content });
    }
    const stats = this.#host.stats();
    this.#count(stats);
    const rest = filter?.finish();
    if (rest && rest.content !== "") yield take({ content: rest.content });
    const calls = (rest?.calls ?? []).map((call, at) =>
      ({ index: at, id: randomId(9), type: "function" as const, function: call }));
    if (calls.length > 0) yield take({ tool_calls: calls });
    const ended = stats.finishReason === "stop" ? "stop" : "length";
    yield take({}, calls.length > 0 ? "tool_calls" : ended);
  }

  #options(index: number): GenerateOptions {
    const given = this.#params;
    const options: { [K in keyof GenerateOptions]: GenerateOptions[K] | undefined } = {
      maxTokens: given.max_completion_tokens ?? given.max_tokens ?? this.#host.contextLength,
      temperature: given.temperature,
      topP: given.top_p,
      topK: given.top_k,
      minP: given.min_p,
      repeatPenalty: given.repeat_penalty,
      presencePenalty: given.presence_penalty,
      frequencyPenalty: given.frequency_penalty,
      logitBias: given.logit_bias,
      stop: given.stop,
      seed: given.seed === undefined ? undefined : given.seed + index,
      logprobs: given.logprobs ? given.top_logprobs ?? 0 : undefined,
      jsonSchema: this.#schema as GenerateOptions["jsonSchema"],
      contextShift: given.context_shift,
      nKeep: given.n_keep,
      signal: given.signal,
    };
    return options as GenerateOptions;
  }

  #count(stats: Omit<TextStats, "wasmBytes">): void {
    const usage = this.#usage;
    // Several answers share one prompt, as OpenAI counts them.
    usage.prompt_tokens = stats.promptTokens;
    if (usage.completion_tokens === 0) usage.prompt_tokens_details.cached_tokens = stats.cachedTokens;
    usage.completion_tokens += stats.decodeTokens;
    usage.total_tokens = usage.prompt_tokens + usage.completion_tokens;
  }
}

type Part = Omit<ChatCompletionChunk["choices"][number], "index">;

function scored({ bytes, logprob }: TokenLogprob): ChatTokenLogprob {
  return { token: new TextDecoder().decode(Uint8Array.from(bytes)), logprob, bytes };
}

/** JSON for the runtime, which takes no half of a surrogate pair: each becomes U+FFFD. */
export function toJson(value: object): string {
  let json: string;
  try {
    json = JSON.stringify(value);
  } catch (cause) {
    throw new BitpaneError("BadArgument", "the messages cannot be written as JSON", { key: "messages", cause });
  }
  // Halves are the only characters that are written as an escape that begins with d8 to df.
  return json.replace(/\\\\|\\ud[89a-f][0-9a-f]{2}/g, (found) => (found === "\\\\" ? found : "\ufffd"));
}

/** The names in the tools of a request, as far as there are any: the runtime checks them. */
function toolNames(request: string): string[] {
  const { tools } = JSON.parse(request) as { tools?: unknown };
  if (!Array.isArray(tools)) return [];
  return tools.flatMap((tool: unknown) => nameOf(tool) ?? []);
}

/** The name of a tool's function. */
function nameOf(tool: unknown): string | undefined {
  if (typeof tool !== "object" || tool === null) return undefined;
  const { function: inner, name: outer } = tool as { function?: { name?: unknown } | null; name?: unknown };
  const name = inner?.name ?? outer;
  return typeof name === "string" ? name : undefined;
}

/**
 * The schema of one call, where `tool_choice` wants one: an object with the name of a tool and its arguments, which
 * is what a model's own format has within its marks.
 */
function callSchema(request: string, choice: ChatCompletionParams["tool_choice"]): object | undefined {
  if (choice === undefined || choice === "auto" || choice === "none") return undefined;
  const { tools } = JSON.parse(request) as { tools?: unknown };
  const wanted = nameOf(choice);
  // References within a tool's schema are from its own root.
  const $defs: Record<string, unknown> = {};
  const calls = (Array.isArray(tools) ? tools : []).flatMap((tool: unknown) => {
    const name = nameOf(tool);
    if (name === undefined || (wanted !== undefined && name !== wanted)) return [];
    const { function: inner } = tool as { function?: unknown };
    const { parameters } = (inner ?? tool) as { parameters?: unknown };
    Object.assign($defs, (parameters as { $defs?: object } | undefined)?.$defs);
    const properties = { name: { const: name }, arguments: parameters ?? { type: "object" } };
    return [{ type: "object", properties, required: ["name", "arguments"], additionalProperties: false }];
  });
  if (calls.length === 0) {
    throw badArgument("tool_choice", wanted === undefined ? "there are no tools to choose from" : `there is no tool ${JSON.stringify(wanted)}`);
  }
  return { ...(calls.length === 1 ? calls[0] : { anyOf: calls }), $defs };
}

/** Letters and digits without a pattern. */
function randomId(length: number): string {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  const random = crypto.getRandomValues(new Uint8Array(length));
  return Array.from(random, (byte) => letters[byte % letters.length]).join("");
}
