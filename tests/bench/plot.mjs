// Results to a picture: bars of the speeds of each case, as SVG that follows the reader's colour scheme.

const ROW = 16;
const GAP = 14;
const LEFT = 150;
const WIDTH = 760;
const BAR = WIDTH - LEFT - 70;
const STYLE = `
  text { font: 11px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 13px }
  .case { font-weight: 600 }
  .own { fill: #0b7a4b } .peer { fill: #9aa4af } .native { fill: #c98a1b }
  @media (prefers-color-scheme: dark) {
    text { fill: #d8dee4 } .own { fill: #35c58a } .peer { fill: #6b7580 } .native { fill: #d9a441 }
  }`;

// What is drawn of each kind; longer bars are better.
const PANELS = [
  { kind: "text", key: "decodeTps", title: "Decoding, tokens per second", speed: (v) => v },
  { kind: "text", key: "promptTps", title: "Prompt, tokens per second", speed: (v) => v },
  { kind: "vision", key: "imageMs", title: "Images per second", speed: (v) => 1000 / v },
];

const escape = (text) => text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
const text = (x, y, content, more = "") => `<text x="${x}" y="${y}" ${more}>${escape(content)}</text>`;
const number = (v) => (v >= 100 ? v.toFixed(0) : v.toFixed(1));
const kindOf = (name) => (name.startsWith("bitpane") ? "own" : name.includes("native") ? "native" : "peer");

/** The bars of one case, and the height that they take. Bars are relative to the case's longest. */
function bars(result, { key, speed }, y) {
  const rows = result.contenders
    .filter((c) => c.summary)
    .map((c) => ({ name: c.name, value: speed(c.summary[key].median) }));
  const longest = Math.max(...rows.map((r) => r.value));
  const parts = [text(8, y + 12, result.name, 'class="case"')];
  rows.forEach(({ name, value }, i) => {
    const top = y + ROW * (i + 1);
    const width = Math.max(1, (value / longest) * BAR);
    parts.push(text(LEFT - 6, top + 11, name, 'text-anchor="end"'));
    parts.push(`<rect class="${kindOf(name)}" x="${LEFT}" y="${top + 2}" width="${width.toFixed(1)}" height="${ROW - 5}" rx="2"/>`);
    parts.push(text(LEFT + width + 6, top + 11, number(value)));
  });
  return { parts, height: ROW * (rows.length + 1) + GAP };
}

/** The whole picture of a run. */
export function plot(run) {
  const parts = [];
  let y = 8;
  for (const panel of PANELS) {
    const results = run.results.filter((r) => r.kind === panel.kind && r.contenders.some((c) => c.summary));
    if (results.length === 0) continue;
    parts.push(text(8, y + 14, panel.title, 'class="title"'));
    y += 26;
    for (const result of results) {
      const drawn = bars(result, panel, y);
      parts.push(...drawn.parts);
      y += drawn.height;
    }
    y += GAP;
  }
  const note = `${run.machine.cpu}, ${run.browser}, ${run.threads} thread(s) unless named, medians of ${run.rounds} rounds, ${run.date}`;
  parts.push(text(8, y + 10, note));
  const size = `viewBox="0 0 ${WIDTH} ${y + 22}" width="${WIDTH}" height="${y + 22}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size}>\n<style>${STYLE}</style>\n${parts.join("\n")}\n</svg>\n`;
}
