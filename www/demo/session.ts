/** The two models in use: one that writes, one that sees. Views ask for them and hear of changes. */
import type { ModelInfo, Progress, Source, TextModel, VisionModel } from "./pkg/index.js";
import { bitpane } from "./package.js";
import { loadOptions } from "./settings.js";

/** A model in use. */
export interface Used<M> {
  model: M;
  name: string;
  /** What it was loaded from, where it can be loaded again. */
  source: Source | undefined;
  builtIn: boolean;
}

/** Both kinds of model. */
export interface Models {
  text: TextModel;
  vision: VisionModel;
}

/** What one needs to know of any model: it can be shown and let go. */
export type AnyModel = { info: ModelInfo; stats: { wasmBytes: number }; dispose: () => Promise<void> };

type Kind = keyof Models;
type Listener<K extends Kind> = (used: Used<Models[K]>) => void;

const BUILT_IN = {
  text: { entry: "story", name: "Built-in storyteller" },
  vision: { entry: "photo", name: "Built-in photo classifier" },
} as const;

const used: { [K in Kind]?: Used<Models[K]> } = {};
const wanted: { [K in Kind]?: Promise<Used<Models[K]>> } = {};
const listeners: { [K in Kind]: Listener<K>[] } = { text: [], vision: [] };
let files: Promise<Record<string, string | null>> | undefined;

/** Hears of each model that is put to use, and of the one in use now. */
export function listen<K extends Kind>(kind: K, listener: Listener<K>): void {
  listeners[kind].push(listener);
  const now = used[kind];
  if (now) listener(now);
}

/** The model in use, if there is one. */
export function inUse<K extends Kind>(kind: K): Used<Models[K]> | undefined {
  return used[kind];
}

/** Puts a model to use; the one before it is let go. */
export function use<K extends Kind>(kind: K, next: Used<Models[K]>): void {
  void used[kind]?.model.dispose();
  // TypeScript does not follow a key from one side of an assignment to the other.
  (used as Record<Kind, unknown>)[kind] = next;
  for (const listener of listeners[kind]) listener(next);
}

/** Lets a model go that has crashed; the built-in one is loaded anew when it is next needed. */
export function lose(kind: Kind): void {
  void used[kind]?.model.dispose();
  delete used[kind];
  delete wanted[kind];
}

/** The model in use, or the built-in one. */
export function need<K extends Kind>(kind: K, onProgress: (progress: Progress) => void): Promise<Used<Models[K]>> {
  const now = used[kind];
  if (now) return Promise.resolve(now);
  const loading = wanted[kind] ?? loadBuiltIn(kind, onProgress);
  (wanted as Record<Kind, unknown>)[kind] = loading;
  loading.catch(() => delete wanted[kind]);
  return loading as Promise<Used<Models[K]>>;
}

async function loadBuiltIn<K extends Kind>(kind: K, onProgress: (progress: Progress) => void): Promise<Used<Models[K]>> {
  const { entry, name } = BUILT_IN[kind];
  const [{ TextModel, VisionModel }, list] = await Promise.all([bitpane(), builtInFiles()]);
  const file = list[entry];
  if (!file) throw new Error("this copy of the page has no built-in model of this kind: open or drop one");
  const source = `models/${file}`;
  const { threads } = loadOptions();
  // The service worker keeps the files of the page.
  const options = { onProgress, cache: false, ...(threads && { threads }) };
  const model = kind === "text" ? await TextModel.load(source, options) : await VisionModel.load(source, options);
  const now = used[kind];
  if (now) {
    // Meanwhile another one was opened.
    void model.dispose();
    return now as Used<Models[K]>;
  }
  const next = { model, name, source, builtIn: true } as Used<Models[K]>;
  use(kind, next);
  return next;
}

function builtInFiles(): Promise<Record<string, string | null>> {
  files ??= fetch("models/models.json").then((answer) => answer.json() as Promise<Record<string, string | null>>);
  files.catch(() => {
    files = undefined;
  });
  return files;
}
