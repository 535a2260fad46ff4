/** Conversations, in the shape that OpenAI's chat completions have. */

/** A part of a message. Only text is supported. */
export interface ChatTextPart {
  type: "text";
  text: string;
}

/** A call of a tool that the model asks for. */
export interface ChatToolCall {
  /** Nine letters and digits: some templates want exactly that. */
  id: string;
  type: "function";
  /** `arguments` is JSON as the model wrote it: it may fit no schema, and has to be checked. */
  function: { name: string; arguments: string };
}

/** One message of a conversation. */
export type ChatMessage =
  | { role: "system" | "developer" | "user"; content: string | readonly ChatTextPart[]; name?: string }
  | { role: "assistant"; content?: string | readonly ChatTextPart[] | null; tool_calls?: readonly ChatToolCall[]; name?: string }
  | { role: "tool"; content: string | readonly ChatTextPart[]; tool_call_id?: string; name?: string }
  | { role: "function"; content: string; name?: string };

/** A tool that the model may call. */
export interface ChatTool {
  type: "function";
  function: { name: string; description?: string; parameters?: Readonly<Record<string, unknown>> };
}

/** What to complete, and how. */
export interface ChatCompletionParams {
  messages: readonly ChatMessage[];
  /** Chunks as they are computed instead of one answer. */
  stream?: boolean;
  /** `include_usage` adds a last chunk without choices that has the usage. */
  stream_options?: { include_usage?: boolean };
  tools?: readonly ChatTool[];
  /**
   * "none" hides the tools. "required", or `{ type: "function", function: { name } }`, has the answer be one call, of
   * any tool or of that one, whose arguments keep to the schema in its `parameters`.
   */
  tool_choice?: "auto" | "none" | "required" | (string & {}) | Readonly<Record<string, unknown>>;
  /** At most so many new tokens; by default as many as fit. */
  max_completion_tokens?: number;
  /** The older name of `max_completion_tokens`. */
  max_tokens?: number;
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  repeat_penalty?: number;
  presence_penalty?: number;
  frequency_penalty?: number;
  logit_bias?: Readonly<Record<number, number>>;
  stop?: string | readonly string[];
  seed?: number;
  /** So many answers, computed one after another; 1 by default. */
  n?: number;
  /** Gives the log-probability of each token. */
  logprobs?: boolean;
  /** With `logprobs`: also those of so many of the likeliest tokens at each place (0 to 20). */
  top_logprobs?: number;
  /**
   * `{ type: "text" }`, `{ type: "json_object" }`, or `{ type: "json_schema", json_schema: { schema } }`: then
   * only tokens come that keep the answer to the schema. An answer cut off by a limit is not whole JSON.
   */
  response_format?: { type: string } & Readonly<Record<string, unknown>>;
  /** For models that can think before they answer: whether they do. Their thoughts are part of the content. */
  enable_thinking?: boolean;
  /** Texts that templates for retrieval take. */
  documents?: readonly Readonly<Record<string, unknown>>[];
  /** Where the context is full, forgets half of it and goes on: {@link GenerateOptions.contextShift}. */
  context_shift?: boolean;
  /** With `context_shift`: the first so many tokens are never forgotten; -1 for the whole prompt. */
  n_keep?: number;
  /** Whatever else the model's template knows. */
  chat_template_kwargs?: Readonly<Record<string, unknown>>;
  /** Ignored: the model is the one that is loaded. */
  model?: string;
  /** Ignored. */
  user?: string;
  /** Stops the answer; the call then rejects with an `AbortError`. */
  signal?: AbortSignal;
}

/** What {@link TextModel.chatPrompt} shows. */
export type ChatPromptRequest =
  & Pick<ChatCompletionParams, "messages" | "tools" | "documents" | "enable_thinking" | "chat_template_kwargs">
  /** Whether the start of an answer follows. Default true. */
  & { add_generation_prompt?: boolean };

/** The log-probability of a token, in OpenAI's shape. */
export interface ChatTokenLogprob {
  token: string;
  logprob: number;
  bytes: number[];
}

/** The log-probabilities of an answer. */
export interface ChatLogprobs {
  content: (ChatTokenLogprob & { top_logprobs: ChatTokenLogprob[] })[];
}

/** Why an answer ended; "length" also where the context is full. */
export type ChatFinishReason = "stop" | "length" | "tool_calls";

/** Tokens that were processed and written. */
export interface ChatUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  /** `cached_tokens` were still in the context from the turn before and cost nothing. */
  prompt_tokens_details: { cached_tokens: number };
}

interface Head {
  id: string;
  /** Seconds since 1970. */
  created: number;
  /** The name in the model's file, else its architecture. */
  model: string;
}

/** A whole answer. */
export interface ChatCompletion extends Head {
  object: "chat.completion";
  choices: {
    index: number;
    message: { role: "assistant"; content: string | null; tool_calls?: ChatToolCall[] };
    logprobs: ChatLogprobs | null;
    finish_reason: ChatFinishReason;
  }[];
  usage: ChatUsage;
}

/** What a chunk adds to an answer. */
export interface ChatDelta {
  role?: "assistant";
  content?: string;
  tool_calls?: (ChatToolCall & { index: number })[];
}

/** A part of an answer. */
export interface ChatCompletionChunk extends Head {
  object: "chat.completion.chunk";
  choices: {
    index: number;
    delta: ChatDelta;
    logprobs: ChatLogprobs | null;
    finish_reason: ChatFinishReason | null;
  }[];
  /** Only in the chunk that `stream_options.include_usage` adds. */
  usage?: ChatUsage;
}
