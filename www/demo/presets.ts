/** Models on public hubs that are known to fit, and whether they fit here. */

/** A model to offer. */
export interface Preset {
  name: string;
  about: string;
  kind: "chat" | "story" | "vision";
  url: string;
  /** Of the file, as its hub tells it; the download says what it really is. */
  bytes: number;
  /** An SPDX expression, or the name of the terms. */
  licence: string;
  /** Bytes that the keys and values of one token take, as codes of 8 bits: about 2 * layers * heads of keys * their width. */
  kvBytesPerToken: number;
  /** Float weights are best made smaller on the way. */
  quantize?: "Q8_0";
  /** Where the names of the classes are: a configuration of Hugging Face. */
  labels?: string;
}

const HUB = "https://huggingface.co";
const KV_TOKENS = 2048;
/** What the runtime and its workspaces take beside weights and cache. */
const RUNTIME_BYTES = 40e6;
/** A memory of 32-bit addresses has no more. */
const MOST_BYTES = 4e9;

export const PRESETS: readonly Preset[] = [
  {
    name: "SmolLM2 135M Instruct", about: "The smallest that holds a conversation.", kind: "chat", bytes: 144_811_456, licence: "Apache-2.0",
    url: `${HUB}/bartowski/SmolLM2-135M-Instruct-GGUF/resolve/main/SmolLM2-135M-Instruct-Q8_0.gguf`, kvBytesPerToken: 2 * 30 * 3 * 64,
  },
  {
    name: "Gemma 3 270M", about: "Google's smallest; good at short, well-told tasks.", kind: "chat", bytes: 291_545_600, licence: "Gemma terms of use",
    url: `${HUB}/ggml-org/gemma-3-270m-it-GGUF/resolve/main/gemma-3-270m-it-Q8_0.gguf`, kvBytesPerToken: 2 * 18 * 256,
  },
  {
    name: "Qwen2.5 0.5B Instruct", about: "Many languages, in 4 bits.", kind: "chat", bytes: 428_730_208, licence: "Apache-2.0",
    url: `${HUB}/Qwen/Qwen2.5-0.5B-Instruct-GGUF/resolve/main/qwen2.5-0.5b-instruct-q4_0.gguf`, kvBytesPerToken: 2 * 24 * 2 * 64,
  },
  {
    name: "Qwen3 0.6B", about: "Thinks before it answers; the best of these.", kind: "chat", bytes: 639_446_688, licence: "Apache-2.0",
    url: `${HUB}/Qwen/Qwen3-0.6B-GGUF/resolve/main/Qwen3-0.6B-Q8_0.gguf`, kvBytesPerToken: 2 * 28 * 8 * 128,
  },
  {
    name: "Stories 15M", about: "Tells stories for children, better than the built-in one.", kind: "story", bytes: 19_077_344, licence: "MIT",
    url: `${HUB}/ggml-org/models/resolve/main/tinyllamas/stories15M-q4_0.gguf`, kvBytesPerToken: 2 * 6 * 6 * 48,
  },
  {
    name: "DeiT tiny", about: "A thousand kinds of things in photos.", kind: "vision", bytes: 22_883_360, licence: "Apache-2.0", quantize: "Q8_0",
    url: `${HUB}/facebook/deit-tiny-patch16-224/resolve/main/model.safetensors`, kvBytesPerToken: 0,
    labels: `${HUB}/facebook/deit-tiny-patch16-224/resolve/main/config.json`,
  },
  {
    name: "DeiT small", about: "The same thousand, more surely.", kind: "vision", bytes: 88_214_496, licence: "Apache-2.0", quantize: "Q8_0",
    url: `${HUB}/facebook/deit-small-patch16-224/resolve/main/model.safetensors`, kvBytesPerToken: 0,
    labels: `${HUB}/facebook/deit-small-patch16-224/resolve/main/config.json`,
  },
  {
    name: "ViT base", about: "Large and accurate; slower.", kind: "vision", bytes: 346_293_852, licence: "Apache-2.0", quantize: "Q8_0",
    url: `${HUB}/google/vit-base-patch16-224/resolve/main/model.safetensors`, kvBytesPerToken: 0,
    labels: `${HUB}/google/vit-base-patch16-224/resolve/main/config.json`,
  },
];

/** Bytes of memory that a model takes in this page: its weights, its cache, the runtime. */
export function memoryOf({ bytes, kvBytesPerToken, quantize }: Preset): number {
  const weights = quantize ? bytes * (8.5 / 32) : bytes;
  return weights + kvBytesPerToken * KV_TOKENS + RUNTIME_BYTES;
}

/** Bytes of memory that the device has, where the browser tells (roughly, and never more than 8 GiB). */
export function deviceBytes(): number | undefined {
  const { deviceMemory } = navigator as { deviceMemory?: unknown };
  return typeof deviceMemory === "number" ? deviceMemory * 2 ** 30 : undefined;
}

/** Whether so much memory can be had here: a tab may well get a third of what the device has. */
export function fits(bytes: number): "yes" | "no" | "unknown" {
  if (bytes > MOST_BYTES) return "no";
  const all = deviceBytes();
  if (all === undefined) return "unknown";
  return bytes < all / 3 ? "yes" : "no";
}

const LONGEST_NAME = 200;

/** The names of classes in a configuration of Hugging Face, if it has them: `{ id2label: { "0": "tench", ... } }`. */
export function readLabels(config: unknown): string[] | undefined {
  const map: unknown = typeof config === "object" && config !== null ? (config as Record<string, unknown>)["id2label"] : undefined;
  if (typeof map !== "object" || map === null) return undefined;
  const names = Object.entries(map).flatMap(([id, name]) => (/^\d{1,5}$/.test(id) && typeof name === "string" ? [[Number(id), name] as const] : []));
  if (names.length === 0) return undefined;
  const list = Array.from({ length: Math.max(...names.map(([id]) => id)) + 1 }, (_, id) => `class ${id}`);
  for (const [id, name] of names) list[id] = name.slice(0, LONGEST_NAME);
  return list;
}
