/** A file of fewer bits within a budget of bytes: the weights measured, a slider along what can be had, the file made here. */
import type { CurvePoint, QuantizationPlan, Quantizer, Source, WeightSurvey } from "./pkg/index.js";
import { byId, formatBytes, make } from "./dom.js";
import { explain, isAbort } from "./notice.js";
import { bitpane } from "./package.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, MARGIN] = [600, 180, 8];
/** Places of the slider. */
const STEPS = 200;

/** What the rest of the view does with a file that was made. */
export interface BudgetUses {
  /** The source that is to be measured. */
  source: () => Promise<Source>;
  /** Compares a made file with its original. */
  compare: (blob: Blob, title: string) => Promise<void>;
}

let quantizer: Quantizer | undefined;
let plan: QuantizationPlan | undefined;
let asked = 0;

function status(text: string, isBad = false): void {
  const line = byId("budget-status");
  line.textContent = text;
  if (isBad) line.dataset["kind"] = "bad";
  else delete line.dataset["kind"];
}

/** The curve of size against expected loss, with a mark at the budget. The loss is drawn in powers of ten. */
function drawCurve(curve: readonly CurvePoint[], bytes: number): SVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("class", "curve");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true"); // the figures beside it say the same
  const losses = curve.map(({ loss }) => Math.log10(Math.max(loss, 1e-9)));
  const [lowest, highest] = [Math.min(...losses), Math.max(...losses)];
  const [first, last] = [curve[0]?.bytes ?? 0, curve.at(-1)?.bytes ?? 1];
  const x = (value: number): number => MARGIN + ((value - first) / (last - first || 1)) * (WIDTH - 2 * MARGIN);
  const y = (value: number): number => HEIGHT - MARGIN - ((value - lowest) / (highest - lowest || 1)) * (HEIGHT - 2 * MARGIN);
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", curve.map((point, i) => `${x(point.bytes).toFixed(1)},${y(losses[i] ?? 0).toFixed(1)}`).join(" "));
  const mark = document.createElementNS(SVG, "line");
  mark.setAttribute("x1", String(x(bytes)));
  mark.setAttribute("x2", String(x(bytes)));
  mark.setAttribute("y1", "0");
  mark.setAttribute("y2", String(HEIGHT));
  svg.append(mark, line);
  return svg;
}

/** How many weights became which type. */
function typeShares(survey: WeightSurvey, planned: QuantizationPlan): HTMLElement {
  const sizes = new Map(survey.tensors.map(({ name, shape }) => [name, shape.reduce((a, b) => a * b, 1)]));
  const shares = new Map<string, number>();
  for (const { name, type } of planned.tensors) shares.set(type, (shares.get(type) ?? 0) + (sizes.get(name) ?? 0));
  const all = [...shares.values()].reduce((a, b) => a + b, 0) || 1;
  const list = make("ul", "shares");
  for (const [type, n] of [...shares].sort((a, b) => b[1] - a[1])) list.append(make("li", "", `${type} ${((100 * n) / all).toFixed(1)} %`));
  return list;
}

/** What was measured of each tensor, and what it becomes. */
function tensorTable(survey: WeightSurvey, planned: QuantizationPlan): HTMLElement {
  const types = new Map(planned.tensors.map(({ name, type }) => [name, type]));
  const box = make("details", "tensors");
  box.append(make("summary", "", `The ${survey.tensors.length} tensors`));
  const scroller = make("div", "scroller");
  scroller.tabIndex = 0;
  scroller.setAttribute("role", "region");
  scroller.setAttribute("aria-label", "Tensors");
  const table = make("table");
  const head = table.createTHead().insertRow();
  for (const title of ["Tensor", "Shape", "Becomes", "RMS", "Largest", "Outliers"]) {
    const cell = make("th", "", title);
    cell.scope = "col";
    head.append(cell);
  }
  const body = table.createTBody();
  for (const { name, shape, type, rms, maxAbs, outliers } of survey.tensors) {
    const row = body.insertRow();
    const cells = [name, shape.join(" × "), types.get(name) ?? type, rms.toPrecision(2), maxAbs.toPrecision(2), String(outliers.length)];
    for (const text of cells) row.append(make("td", "", text));
  }
  scroller.append(table);
  box.append(scroller);
  return box;
}

async function measure(uses: BudgetUses): Promise<void> {
  const button = byId<HTMLButtonElement>("budget-measure");
  button.disabled = true;
  byId("budget-plan").hidden = true;
  status("Measuring");
  try {
    const { Quantizer } = await bitpane();
    void quantizer?.dispose();
    quantizer = undefined;
    quantizer = await Quantizer.open(await uses.source(), {
      onProgress: (p) => {
        if (p.status === "download") status(`Measuring: ${formatBytes(p.loaded)}`);
      },
    });
    status("");
    byId("budget-plan").hidden = false;
    await choose();
  } catch (error) {
    status(isAbort(error) ? "Stopped." : explain(error), !isAbort(error));
  } finally {
    button.disabled = false;
  }
}

/** Plans for the place of the slider. */
async function choose(): Promise<void> {
  if (!quantizer) return;
  const { curve, survey } = quantizer;
  const share = byId<HTMLInputElement>("budget-slider").valueAsNumber / STEPS;
  const [first, last] = [curve[0]?.bytes ?? 0, curve.at(-1)?.bytes ?? 0];
  const targetBytes = Math.ceil(first + share * (last - first));
  const mine = ++asked;
  const made = await quantizer.plan({ targetBytes });
  if (mine !== asked) return; // the slider has moved on
  plan = made;
  const unit = survey.lossUnit === "nats" ? " nats a token" : "";
  byId("budget-said").textContent =
    `${formatBytes(made.bytes ?? targetBytes)}, ${(made.bitsPerWeight ?? 0).toFixed(2)} bits a weight, expected loss ${(made.expectedLoss ?? 0).toPrecision(2)}${unit}`;
  byId("budget-slider").setAttribute("aria-valuetext", byId("budget-said").textContent ?? "");
  const open = document.querySelector<HTMLDetailsElement>(".tensors")?.open ?? false;
  const table = tensorTable(survey, made);
  table.toggleAttribute("open", open);
  byId("budget-picture").replaceChildren(drawCurve(curve, targetBytes), typeShares(survey, made), table);
}

async function write(): Promise<Blob | undefined> {
  if (!quantizer || !plan) return undefined;
  status("Writing the file");
  try {
    const { blob, report } = await quantizer.write(plan, { allowRequantize: true });
    status(`Written: ${formatBytes(report.bytesBefore)} of weights became a file of ${formatBytes(report.bytesAfter)}.`);
    return blob;
  } catch (error) {
    status(explain(error), true);
    return undefined;
  }
}

async function save(): Promise<void> {
  const blob = await write();
  if (!blob) return;
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  link.download = "smaller.gguf";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** The pane. */
export function budgetPane(uses: BudgetUses): HTMLElement {
  const pane = make("section", "pane budget");
  const head = make("h2", "", "Within a budget");
  head.id = "budget-title";
  pane.setAttribute("aria-labelledby", head.id);
  const measureButton = make("button", "", "Measure the weights");
  measureButton.type = "button";
  measureButton.id = "budget-measure";
  measureButton.addEventListener("click", () => void measure(uses));
  const line = make("p", "reading-line");
  line.id = "budget-status";
  line.setAttribute("role", "status");
  const planned = make("div", "plan");
  planned.id = "budget-plan";
  planned.hidden = true;
  const label = make("label", "field-label", "Size of the file");
  label.htmlFor = "budget-slider";
  const slider = make("input");
  slider.type = "range";
  slider.id = "budget-slider";
  slider.min = "0";
  slider.max = String(STEPS);
  slider.value = String(STEPS / 2);
  slider.addEventListener("input", () => void choose().catch((error: unknown) => status(explain(error), true)));
  const said = make("output", "said");
  said.id = "budget-said";
  said.htmlFor.add(slider.id);
  const picture = make("div", "picture");
  picture.id = "budget-picture";
  const actions = make("div", "actions");
  const compare = make("button", "primary", "Make it and compare");
  compare.type = "button";
  compare.id = "budget-compare";
  compare.addEventListener("click", async () => {
    const blob = await write();
    if (blob) await uses.compare(blob, `Within ${formatBytes(blob.size)}`);
  });
  const saveButton = make("button", "", "Save the file");
  saveButton.type = "button";
  saveButton.addEventListener("click", () => void save());
  actions.append(compare, saveButton);
  planned.append(label, slider, said, picture, actions);
  const hint = make("p", "hint", "Each tensor gets the type that loses least, so that the file keeps within the size. The file above, or the model in use, is measured first; nothing leaves this tab.");
  pane.append(head, hint, measureButton, line, planned);
  return pane;
}
