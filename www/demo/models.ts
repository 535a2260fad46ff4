/** The models view: what is in use, what can be had, anything of one's own. */
import type { ModelInfo } from "./pkg/index.js";
import { confirmed } from "./confirm.js";
import { byId, formatBytes, formatCount, make } from "./dom.js";
import { openAddress, openModel } from "./loading.js";
import { complain, say } from "./notice.js";
import { deviceBytes, fits, memoryOf, PRESETS, readLabels, type Preset } from "./presets.js";
import { listen } from "./session.js";
import { change, settings } from "./settings.js";

/** Bits of the float weights that models are trained in: the scale of the ruler. */
const FULL_BITS = 32;

function showModel(side: "story" | "photo", name: string, info: ModelInfo, wasmBytes: number): void {
  byId(`${side}-name`).textContent = name;
  const { backend, bitsPerWeight } = info;
  const threads = backend.threads === 1 ? "one thread" : `${backend.threads} threads`;
  const rows: [string, string, string?][] = [
    ["Weights", `${formatCount(info.parameters)} in ${formatBytes(info.weightBytes)}`],
    ["Memory", formatBytes(wasmBytes)],
    ["Architecture", info.architecture],
    ["Computes with", `${backend.isa}, ${threads}`, `${backend.kernel}: ${backend.kernelReason}; ${backend.buildReason}; ${backend.threadsReason}`],
  ];
  byId(`${side}-readings`).replaceChildren(bitsRow(bitsPerWeight), ...rows.map(([term, value, more]) => reading(term, value, more)));
}

function reading(term: string, value: string, more = ""): HTMLElement {
  const group = make("div");
  const description = make("dd", "", value);
  if (more) description.title = more;
  group.append(make("dt", "", term), description);
  return group;
}

/** Bits per weight against a full float, one cell a bit. */
function bitsRow(bitsPerWeight: number): HTMLElement {
  const group = make("div", "all");
  const value = make("dd", "", `${bitsPerWeight.toFixed(2)} bits a weight`);
  const ruler = make("div", "bits");
  ruler.setAttribute("aria-hidden", "true");
  for (let bit = 0; bit < FULL_BITS; bit += 1) {
    const filled = Math.min(1, Math.max(0, bitsPerWeight - bit));
    const cell = make("i");
    if (filled > 0) {
      const fill = make("b");
      fill.style.width = `${filled * 100}%`;
      cell.append(fill);
    }
    ruler.append(cell);
  }
  value.append(ruler);
  group.append(make("dt", "", "Precision"), value);
  return group;
}

const KINDS = { chat: "Converses", story: "Writes on", vision: "Sees" } as const;
const FITS = { yes: "Fits here", no: "Too large for here", unknown: "May fit here" } as const;

function presetCard(preset: Preset): HTMLElement {
  const card = make("li", "preset");
  const head = make("div");
  head.append(make("h3", "", preset.name), make("p", "", preset.about));
  const memory = memoryOf(preset);
  const list = make("dl");
  const rows = [
    ["Kind", KINDS[preset.kind]], ["Download", formatBytes(preset.bytes)], ["Memory", `about ${formatBytes(memory)}`],
    ["Licence", preset.licence], ["From", new URL(preset.url).host],
  ] as const;
  for (const [term, value] of rows) list.append(make("dt", "", term), make("dd", "", value));
  const foot = make("div", "preset-foot");
  const verdict = fits(memory);
  const fit = make("span", "fit", FITS[verdict]);
  fit.dataset["fits"] = verdict;
  const open = make("button", "quiet", "Load");
  open.type = "button";
  open.setAttribute("aria-label", `Load ${preset.name}`);
  open.addEventListener("click", () => void openPreset(preset));
  foot.append(fit, open);
  card.append(head, list, foot);
  return card;
}

async function openPreset(preset: Preset): Promise<void> {
  const url = new URL(preset.url);
  const licence = `${formatBytes(preset.bytes)}, licence: ${preset.licence}.`;
  if (!(await confirmed(url, licence))) return say("The model was not loaded.");
  const before = settings().quantize;
  if (preset.quantize && !before) change({ quantize: preset.quantize });
  try {
    const labels = preset.labels ? await fetchLabels(preset.labels) : undefined;
    await openModel(url, preset.name, labels && { labels });
  } finally {
    change({ quantize: before });
  }
}

/** Names are worth having, and not worth failing for. */
async function fetchLabels(address: string): Promise<string[] | undefined> {
  try {
    const answer = await fetch(address);
    return answer.ok ? readLabels(await answer.json()) : undefined;
  } catch {
    return undefined;
  }
}

/** Fills the view. */
export function start(): void {
  byId("presets").replaceChildren(...PRESETS.map(presetCard));
  const device = deviceBytes();
  byId("presets-memory").textContent = device === undefined
    ? "This browser does not tell how much memory there is."
    : `This device tells of ${formatBytes(device)} of memory or more.`;
  listen("text", ({ name, model }) => showModel("story", name, model.info, model.stats.wasmBytes));
  listen("vision", ({ name, model }) => showModel("photo", name, model.info, model.stats.wasmBytes));
  byId<HTMLFormElement>("open-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const address = byId<HTMLInputElement>("open-address").value.trim();
    if (address) openAddress(address).catch((error: unknown) => complain(error, "The model cannot be opened"));
  });
  const precision = byId<HTMLSelectElement>("open-precision");
  precision.value = settings().quantize;
  precision.addEventListener("change", () => change({ quantize: precision.value as "" | "Q8_0" | "Q4_0" }));
}
