// Results to a markdown table.

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const mid = sorted.length >> 1;
  return sorted.length % 2 ? sorted[mid] : (sorted[mid - 1] + sorted[mid]) / 2;
}

// What each kind of case reports; `speed` turns a value into "more is better" for ratios.
const COLUMNS = {
  text: [
    { key: "promptTps", title: "prompt, tok/s", best: Math.max, speed: (v) => v },
    { key: "decodeTps", title: "decode, tok/s", best: Math.max, speed: (v) => v },
  ],
  vision: [{ key: "imageMs", title: "one image, ms", best: Math.min, speed: (v) => 1 / v }],
};

const number = (v) => (v >= 100 ? v.toFixed(0) : v.toFixed(1));

/** `{ key: { median, best } }` over the samples of one contender. */
export function summarize(kind, samples) {
  const entries = COLUMNS[kind].map(({ key, best }) => {
    const values = samples.map((s) => s[key]);
    return [key, { median: median(values), best: best(...values) }];
  });
  return Object.fromEntries(entries);
}

function row(result, contender, columns, reference) {
  const cells = columns.flatMap(({ key, speed }) => {
    if (contender.error) return ["-", "-"];
    const own = contender.summary[key];
    const other = reference?.summary?.[key];
    const ratio = other && `${(speed(other.median) / speed(own.median)).toFixed(2)}x`;
    return [`${number(own.median)} (${number(own.best)})`, ratio ?? "-"];
  });
  const { promptLen } = contender.work;
  const shorter = promptLen && promptLen !== result.contenders[0].work.promptLen ? `, prompt of ${promptLen}` : "";
  const note = contender.error ? ` (${contender.error.split("\n")[0]})` : "";
  return `| ${result.name} | ${contender.name}${shorter}${note} | ${cells.join(" | ")} |`;
}

/** One table per kind: median (best), and how many times faster the first contender is. */
export function markdown(run) {
  const parts = [
    `${run.machine.cpu}, ${run.machine.cores} cores; ${run.browser}; ${run.threads} thread(s); ` +
      `${run.rounds} rounds; ${run.date}. Each cell: median (best).`,
  ];
  for (const [kind, columns] of Object.entries(COLUMNS)) {
    const results = run.results.filter((r) => r.kind === kind);
    if (results.length === 0) continue;
    const titles = columns.flatMap(({ title }) => [title, "bitpane is faster by"]);
    parts.push(
      "",
      `| model | runtime | ${titles.join(" | ")} |`,
      `|---|---|${"---|".repeat(titles.length)}`,
    );
    for (const result of results) {
      const reference = result.contenders.find((c) => c.name === "bitpane");
      parts.push(...result.contenders.map((c) => row(result, c, columns, reference)));
    }
  }
  parts.push(...memory(run));
  return parts.join("\n") + "\n";
}

/** What the instance takes beside what it must hold. */
function memory(run) {
  const MIB = 2 ** 20;
  const rows = run.results.flatMap((result) =>
    result.contenders
      .filter((c) => c.info?.weightBytes && c.samples?.length)
      .map(({ name, info, samples }) => {
        const peak = Math.max(...samples.map((s) => s.wasmBytes ?? 0));
        const held = info.weightBytes + info.kvBytes;
        const cells = [info.weightBytes, info.kvBytes, peak, peak - held].map((b) => (b / MIB).toFixed(1));
        return `| ${result.name} | ${name} | ${cells.join(" | ")} | ${((peak - 32 * MIB) / held).toFixed(2)}x |`;
      }),
  );
  if (rows.length === 0) return [];
  const titles = "| model | runtime | weights, MiB | cache, MiB | WebAssembly memory, MiB | beyond both | (memory - 32 MiB) / both |";
  return ["", titles, "|---|---|---|---|---|---|---|", ...rows];
}
