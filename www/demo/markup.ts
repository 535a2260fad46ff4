/**
 * A model's answer as it meant to be seen: paragraphs, lists, headings, bold, code. Elements are made
 * one by one and every text is a text node: nothing that a model writes is ever parsed as HTML, and no
 * link or image is made of it.
 */
import { make } from "./dom.js";

const FENCE = /^\s{0,3}```(\S*)\s*$/;
const HEADING = /^#{1,6}\s+(.*)$/;
const BULLET = /^\s*[-*+]\s+(.*)$/;
const NUMBERED = /^\s*\d{1,9}[.)]\s+(.*)$/;

/** The elements for a text. */
export function elementsOf(text: string): HTMLElement[] {
  const elements: HTMLElement[] = [];
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; ) {
    const line = lines[at]!;
    if (FENCE.test(line)) {
      const end = lines.findIndex((other, i) => i > at && FENCE.test(other));
      const stop = end < 0 ? lines.length : end;
      elements.push(codeBlock(lines.slice(at + 1, stop).join("\n")));
      at = stop + 1;
    } else if (line.trim() === "") {
      at += 1;
    } else {
      const stop = endOfBlock(lines, at);
      elements.push(block(lines.slice(at, stop)));
      at = stop;
    }
  }
  return elements;
}

/** Where the lines of one kind that begin here end. */
function endOfBlock(lines: readonly string[], at: number): number {
  const kind = kindOf(lines[at]!);
  if (kind === "heading") return at + 1;
  let end = at + 1;
  while (end < lines.length && lines[end]!.trim() !== "" && kindOf(lines[end]!) === kind) end += 1;
  return end;
}

function kindOf(line: string): "heading" | "bullets" | "numbers" | "fence" | "text" {
  if (FENCE.test(line)) return "fence";
  if (HEADING.test(line)) return "heading";
  if (BULLET.test(line)) return "bullets";
  return NUMBERED.test(line) ? "numbers" : "text";
}

function block(lines: readonly string[]): HTMLElement {
  switch (kindOf(lines[0]!)) {
    case "heading":
      return withInline(make("h3"), HEADING.exec(lines[0]!)?.[1] ?? "");
    case "bullets":
      return list("ul", lines, BULLET);
    case "numbers":
      return list("ol", lines, NUMBERED);
    default: {
      const paragraph = make("p");
      lines.forEach((line, i) => {
        if (i > 0) paragraph.append(make("br"));
        withInline(paragraph, line);
      });
      return paragraph;
    }
  }
}

function list(tag: "ul" | "ol", lines: readonly string[], pattern: RegExp): HTMLElement {
  const element = make(tag);
  element.append(...lines.map((line) => withInline(make("li"), pattern.exec(line)?.[1] ?? line)));
  return element;
}

function codeBlock(code: string): HTMLElement {
  const box = make("div", "code");
  const pre = make("pre");
  pre.tabIndex = 0; // it scrolls
  pre.append(make("code", "", code));
  const copy = make("button", "bare", "Copy");
  copy.type = "button";
  copy.dataset["copy"] = "code";
  box.append(pre, copy);
  return box;
}

/** Code between backticks and bold between pairs of asterisks; the rest is plain. */
function withInline<E extends HTMLElement>(parent: E, text: string): E {
  let rest = text;
  for (;;) {
    const found = /`([^`]+)`|\*\*([^*]+)\*\*/.exec(rest);
    if (!found) break;
    parent.append(rest.slice(0, found.index));
    parent.append(found[1] !== undefined ? make("code", "", found[1]) : make("strong", "", found[2] ?? ""));
    rest = rest.slice(found.index + found[0].length);
  }
  parent.append(rest);
  return parent;
}
