/** Files that a person picked or dropped together, sorted into what a model is made of. */
import { badArgument } from "./errors.js";
import type { ModelFiles, SourceFile } from "./types.js";

/** A model among picked files. */
export interface PickedModel {
  /** Its weights: one file, or the shards of one model with the index that lists them. */
  source: SourceFile | readonly SourceFile[];
  /** What lies beside the weights, where there is any of it. */
  files?: ModelFiles;
}

/** Names of the files beside the weights, and where they go. */
const BESIDE: Readonly<Record<string, keyof ModelFiles>> = {
  "config.json": "config",
  "tokenizer.json": "tokenizer",
  "tokenizer_config.json": "tokenizerConfig",
  "chat_template.jinja": "chatTemplate",
};

/** What is read of a model's weights. */
const WEIGHTS = /\.(gguf|safetensors|tflite)$/i;
const INDEX = /\.safetensors\.index\.json$/i;
/** Longest text file that is read. */
const MAX_TEXT = 64 << 20;

/**
 * Sorts the files of a model that were picked or dropped together: those with weights, in order, and its `config.json`,
 * `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`, as {@link quantizeFile} wants them. Other files are
 * left out.
 *
 * @throws {BitpaneError} `BadArgument` where none of them holds weights, or one is too long to be what its name says.
 */
export async function pickedModel(files: Iterable<File>): Promise<PickedModel> {
  const all = [...files];
  const weights = all.filter(({ name }) => WEIGHTS.test(name)).sort((a, b) => (a.name < b.name ? -1 : 1));
  const [first, ...more] = weights;
  if (!first) throw badArgument("source", "none of the files holds weights: a .gguf or .safetensors file is needed");
  const index = all.find(({ name }) => INDEX.test(name));
  const beside: ModelFiles = {};
  for (const file of all) {
    const key = Object.hasOwn(BESIDE, file.name) ? BESIDE[file.name] : undefined;
    if (!key) continue;
    if (file.size > MAX_TEXT) throw badArgument("files", `${file.name} has ${file.size} bytes; the limit is ${MAX_TEXT}`);
    beside[key] = await file.text();
  }
  const isOne = more.length === 0 && !index;
  const source = isOne ? first : [...weights, ...(index ? [index] : [])];
  return Object.keys(beside).length > 0 ? { source, files: beside } : { source };
}
