/** The figures under each pane: what is loaded and what computes it. */
import type { ModelInfo } from "./pkg/index.js";
import { byId, formatBytes, formatCount, make } from "./dom.js";

/** Bits of the float weights that models are trained in: the scale of the ruler. */
const FULL_BITS = 32;

/** Which of the two models. */
export type Side = "story" | "photo";

/** Shows what was loaded. */
export function showModel(side: Side, name: string, info: ModelInfo, wasmBytes: number): void {
  byId(`${side}-name`).textContent = name;
  const list = byId(`${side}-readings`);
  const { backend, bitsPerWeight } = info;
  const threads = backend.threads === 1 ? "one thread" : `${backend.threads} threads`;
  const rows: [string, string, string][] = [
    ["Speed", "not run yet", "speed"],
    ["Weights", `${formatCount(info.parameters)} in ${formatBytes(info.weightBytes)}`, "weights"],
    ["WebAssembly memory", formatBytes(wasmBytes), "memory"],
    ["Kernel", `${backend.isa} ${backend.kernel}, ${threads}`, "kernel"],
  ];
  list.replaceChildren(bitsRow(bitsPerWeight), ...rows.map(([term, value, key]) => row(side, term, value, key)));
  byId(`${side}-kernel`).title = `${backend.buildReason}; ${backend.threadsReason}`;
}

/** Shows one figure anew. */
export function showReading(side: Side, key: "speed" | "memory", value: string): void {
  byId(`${side}-${key}`).textContent = value;
}

function row(side: Side, term: string, value: string, key: string): HTMLElement {
  const group = make("div");
  const description = make("dd", "", value);
  description.id = `${side}-${key}`;
  group.append(make("dt", "", term), description);
  return group;
}

/** Bits per weight against a full float, one cell a bit. */
function bitsRow(bitsPerWeight: number): HTMLElement {
  const group = make("div", "wide");
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
