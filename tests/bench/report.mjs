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
  const note = contender.error ? ` (${contender.error.split("\n")[0]})` : "";
  return `| ${result.name} | ${contender.name}${note} | ${cells.join(" | ")} |`;
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
  return parts.join("\n") + "\n";
}
