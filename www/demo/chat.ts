/** The chat view: a conversation with whatever text model is in use. */
import type { TextModel } from "./pkg/index.js";
import { announce, announceStream } from "./announce.js";
import { byId, formatRate, make } from "./dom.js";
import { History, type Conversation, type Turn } from "./history.js";
import { elementsOf } from "./markup.js";
import { explain, isAbort, isFatal, say } from "./notice.js";
import { inUse, listen, lose, need } from "./session.js";
import { chatOptions, generateOptions, settings } from "./settings.js";
import { TextSink } from "./sink.js";

const form = byId<HTMLFormElement>("chat-form");
const input = byId<HTMLTextAreaElement>("chat-input");
const send = byId<HTMLButtonElement>("chat-send");
const stop = byId<HTMLButtonElement>("chat-stop");
const messages = byId("messages");

const history = new History();
let conversation: Conversation = history.all[0] ?? history.begin();
let running: AbortController | undefined;

/** The text of an answer as it comes. A model whose file has no template of conversations writes on instead. */
async function* answer(model: TextModel, turns: readonly Turn[], signal: AbortSignal): AsyncGenerator<string> {
  if (!model.info.chatTemplate.startsWith("model")) {
    const prompt = turns.map(({ content }) => content).join("\n");
    for await (const { text } of model.generate(prompt, { ...generateOptions(), signal })) yield text;
    return;
  }
  const { system } = settings();
  const asked = turns.map(({ role, content }) => ({ role, content }));
  const all = system.trim() ? [{ role: "system" as const, content: system }, ...asked] : asked;
  for await (const chunk of await model.chat.completions.create({ ...chatOptions(), messages: all, stream: true, signal })) {
    yield chunk.choices[0]?.delta.content ?? "";
  }
}

/** Has the model answer the last message. */
async function reply(): Promise<void> {
  const current = new AbortController();
  running = current;
  setBusy(true);
  const asked = conversation;
  const turn: Turn = { role: "assistant", content: "" };
  asked.turns.push(turn);
  const row = messageRow(turn, asked.turns.length - 1);
  row.dataset["state"] = "writing";
  messages.append(row);
  messages.scrollTop = messages.scrollHeight;
  const body = row.querySelector<HTMLElement>(".message-body")!;
  const sink = new TextSink(messages, () => body.replaceChildren(...elementsOf(turn.content)));
  let failure = "";
  try {
    const { model } = await need("text", () => undefined);
    for await (const text of answer(model, asked.turns.slice(0, -1), current.signal)) {
      turn.content += text;
      sink.add(text);
      announceStream(text);
    }
    turn.note = noteOf(model);
    announce("Done.");
  } catch (error) {
    if (isAbort(error)) turn.note = "stopped";
    else failure = explain(error);
    if (isFatal(error)) lose("text");
  } finally {
    sink.flush();
    running = undefined;
    setBusy(false);
    if (failure && !turn.content) asked.turns.pop();
    history.keep(asked);
    showHistory();
    if (asked === conversation) showMessages(failure);
  }
}

function noteOf(model: TextModel): string {
  const { decodeTokens, decodeMs, finishReason } = model.stats;
  const rate = decodeTokens > 1 && decodeMs > 0 ? ((decodeTokens - 1) * 1000) / decodeMs : 0;
  const cut = finishReason === "length" ? ", cut off at the limit" : finishReason === "context" ? ", the context is full" : "";
  return `${decodeTokens} tokens, ${formatRate(rate)} a second${cut}`;
}

function setBusy(busy: boolean): void {
  send.hidden = busy;
  stop.hidden = !busy;
  if (busy && document.activeElement === document.body) stop.focus();
}

function ask(text: string): void {
  conversation.turns.push({ role: "user", content: text });
  history.keep(conversation);
  showMessages();
  showHistory();
  void reply();
}

function showMessages(failure = ""): void {
  messages.replaceChildren(...conversation.turns.map(messageRow));
  if (failure) {
    const row = make("div", "message");
    row.append(make("p", "bad", failure), toolRow([["Try again", () => void reply()]]));
    messages.append(row);
    announce(failure);
  }
  if (conversation.turns.length === 0) messages.append(blank());
  messages.scrollTop = messages.scrollHeight;
}

function blank(): HTMLElement {
  const box = make("div", "blank");
  const used = inUse("text");
  const converses = used?.model.info.chatTemplate.startsWith("model");
  const models = make("a", "button", used ? "Another model" : "Choose a model");
  models.href = "#models";
  const actions = make("div", "actions");
  actions.append(models);
  if (converses) {
    box.append(make("strong", "", `Talk with ${used?.name ?? ""}`), make("p", "", "It runs in this tab; what you write stays here."));
  } else if (used) {
    box.append(make("strong", "", "This model writes on"), make("p", "", "It was not made for conversations: it continues whatever you begin. A model that converses is a download away."), actions);
  } else {
    box.append(
      make("strong", "", "A conversation needs a model"),
      make("p", "", "The smallest that converses is a download of 145 MB. Without one, the built-in storyteller writes on from what you begin."), actions,
    );
  }
  return box;
}

type Tool = [label: string, act: (button: HTMLButtonElement) => void];

function toolRow(tools: readonly Tool[], note = ""): HTMLElement {
  const row = make("div", "message-tools");
  for (const [label, act] of tools) {
    const button = make("button", "bare", label);
    button.type = "button";
    button.addEventListener("click", () => act(button));
    row.append(button);
  }
  if (note) row.append(make("span", "", note));
  return row;
}

function messageRow(turn: Turn, index: number): HTMLElement {
  const row = make("article", "message");
  row.dataset["role"] = turn.role;
  row.setAttribute("aria-label", turn.role === "user" ? "You" : "The model");
  const body = make("div", "message-body");
  if (turn.role === "user") body.textContent = turn.content;
  else body.append(...elementsOf(turn.content));
  const tools: Tool[] = [["Copy", (button) => void copy(turn.content, button)]];
  if (turn.role === "user") tools.push(["Edit", () => edit(row, turn, index)]);
  else if (index === conversation.turns.length - 1) tools.push(["Regenerate", () => regenerate(index)]);
  row.append(body, toolRow(tools, turn.note));
  return row;
}

async function copy(text: string, button: HTMLElement): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    announce("Copied.");
    setTimeout(() => {
      button.textContent = "Copy";
    }, 1500);
  } catch {
    say("The browser does not let this page use the clipboard.");
  }
}

function regenerate(index: number): void {
  if (running) return;
  conversation.turns.length = index;
  showMessages();
  void reply();
}

function edit(row: HTMLElement, turn: Turn, index: number): void {
  if (running) return;
  const box = make("form", "message-edit");
  const field = make("textarea");
  field.value = turn.content;
  field.rows = Math.min(10, turn.content.split("\n").length + 1);
  field.setAttribute("aria-label", "The message, changed");
  const cancel = make("button", "quiet", "Cancel");
  cancel.type = "button";
  const save = make("button", "primary quiet", "Send again");
  const actions = make("div", "actions");
  actions.append(cancel, save);
  box.append(field, actions);
  row.replaceChildren(box);
  field.focus();
  cancel.addEventListener("click", () => row.replaceWith(messageRow(turn, index)));
  box.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (!text) return;
    conversation.turns.length = index; // what followed belongs to the message as it was
    ask(text);
  });
}

function showHistory(): void {
  const rows = history.all.map((item) => {
    const row = make("li");
    row.toggleAttribute("data-current", item.id === conversation.id);
    const open = make("button", "history-open");
    open.type = "button";
    open.append(make("span", "", item.title));
    if (item.id === conversation.id) open.setAttribute("aria-current", "true");
    open.addEventListener("click", () => turnTo(item));
    const remove = make("button", "icon-button", "×");
    remove.type = "button";
    remove.setAttribute("aria-label", `Delete "${item.title}"`);
    remove.addEventListener("click", () => {
      history.remove(item.id);
      if (item.id === conversation.id) turnTo(history.begin());
      else showHistory();
    });
    row.append(open, remove);
    return row;
  });
  byId("history-list").replaceChildren(...rows);
}

function turnTo(next: Conversation): void {
  running?.abort();
  conversation = next;
  openHistory(false);
  showHistory();
  showMessages();
}

function openHistory(open: boolean): void {
  document.querySelector(".chat")?.toggleAttribute("data-history", open);
  byId("history-toggle").setAttribute("aria-expanded", String(open));
}

/** Fills the view. */
export function start(): void {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text || running) return;
    input.value = "";
    ask(text);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  stop.addEventListener("click", () => {
    running?.abort();
    input.focus();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
  });
  messages.addEventListener("click", (event) => {
    const button = event.target instanceof HTMLElement ? event.target.closest<HTMLElement>("[data-copy]") : null;
    if (button) void copy(button.previousElementSibling?.textContent ?? "", button);
  });
  byId("chat-new").addEventListener("click", () => {
    turnTo(history.begin());
    input.focus();
  });
  byId("history-toggle").addEventListener("click", (event) => {
    openHistory((event.currentTarget as HTMLElement).getAttribute("aria-expanded") !== "true");
  });
  listen("text", ({ name }) => {
    byId("chat-chip").textContent = name;
    if (conversation.turns.length === 0) showMessages();
  });
  showHistory();
  showMessages();
}
