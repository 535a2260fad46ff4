/** What the person at the page has set: for every load, for every text. */
import type { ChatCompletionParams, GenerateOptions, TextLoadOptions } from "./pkg/index.js";
import { forget, isRecord, keep, recall } from "./store.js";

/** All settings, with null where the default of the runtime is wanted. */
export interface Settings {
  threads: number | null;
  contextLength: number | null;
  quantize: "" | "Q8_0" | "Q4_0";
  temperature: number;
  topP: number;
  topK: number;
  minP: number;
  repeatPenalty: number;
  maxTokens: number;
  seed: number | null;
  system: string;
}

const DEFAULTS: Settings = {
  threads: null, contextLength: null, quantize: "", temperature: 0.6, topP: 0.9, topK: 40, minP: 0.05, repeatPenalty: 1,
  maxTokens: 200, seed: null, system: "",
};

/** What each number may be: the least, the most, and the step of its control. */
export const RANGES = {
  threads: [1, 16, 1], contextLength: [64, 131072, 64], temperature: [0, 1.5, 0.05], topP: [0.05, 1, 0.05], topK: [0, 200, 1],
  minP: [0, 0.5, 0.01], repeatPenalty: [1, 1.5, 0.01], maxTokens: [1, 8192, 1], seed: [0, 4294967295, 1],
} as const satisfies Partial<Record<keyof Settings, readonly [number, number, number]>>;

const LONGEST_SYSTEM = 8000;

/** The settings in a kept value; what is missing or out of its range is as at first. */
function read(value: unknown): Settings {
  const clean = { ...DEFAULTS };
  if (!isRecord(value)) return clean;
  for (const key of Object.keys(RANGES) as (keyof typeof RANGES)[]) {
    const given = value[key];
    const [least, most, step] = RANGES[key];
    const whole = !Number.isInteger(step) || Number.isInteger(given);
    if (typeof given === "number" && given >= least && given <= most && whole) clean[key] = given;
  }
  const { quantize, system } = value;
  if (quantize === "Q8_0" || quantize === "Q4_0") clean.quantize = quantize;
  if (typeof system === "string") clean.system = system.slice(0, LONGEST_SYSTEM);
  return clean;
}

let current = recall("settings", read) ?? { ...DEFAULTS };

/** The settings. */
export function settings(): Readonly<Settings> {
  return current;
}

/** Changes settings; what is out of its range is as at first. */
export function change(some: Partial<Settings>): void {
  current = read({ ...current, ...some });
  keep("settings", current);
}

/** Makes all settings as they were at first. */
export function resetSettings(): void {
  current = { ...DEFAULTS };
  forget("settings");
}

/** The options of a load. */
export function loadOptions(): TextLoadOptions {
  const { threads, contextLength } = current;
  return { ...(threads && { threads }), ...(contextLength && { contextLength }) };
}

/** The options of a text. */
export function generateOptions(): GenerateOptions {
  const { temperature, topP, topK, minP, repeatPenalty, maxTokens, seed } = current;
  return { temperature, topP, topK, minP, repeatPenalty, maxTokens, ...(seed !== null && { seed }) };
}

/** The same for an answer in a conversation. */
export function chatOptions(): Omit<ChatCompletionParams, "messages" | "stream"> {
  const { temperature, topP, topK, minP, repeatPenalty, maxTokens, seed } = current;
  return {
    temperature, top_p: topP, top_k: topK, min_p: minP, repeat_penalty: repeatPenalty, max_tokens: maxTokens, ...(seed !== null && { seed }),
  };
}
