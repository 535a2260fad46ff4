/** Conversations, kept in this browser and judged when they are read. */
import { isRecord, keep, recall } from "./store.js";

/** A message as it is kept. */
export interface Turn {
  role: "user" | "assistant";
  content: string;
  /** What the answer cost, for people. */
  note?: string;
}

/** A conversation as it is kept. */
export interface Conversation {
  id: string;
  title: string;
  /** Milliseconds since 1970. */
  changed: number;
  turns: Turn[];
}

const KEY = "conversations";
/** Limits of what is kept: the oldest conversations go first. */
const MOST_CONVERSATIONS = 50;
const MOST_TURNS = 400;
const LONGEST_TEXT = 100_000;
const LONGEST_TITLE = 80;

function readTurn(value: unknown): Turn | undefined {
  if (!isRecord(value)) return undefined;
  const { role, content, note } = value;
  if ((role !== "user" && role !== "assistant") || typeof content !== "string") return undefined;
  const turn: Turn = { role, content: content.slice(0, LONGEST_TEXT) };
  if (typeof note === "string") turn.note = note.slice(0, LONGEST_TITLE);
  return turn;
}

function readConversation(value: unknown): Conversation | undefined {
  if (!isRecord(value)) return undefined;
  const { id, title, changed, turns } = value;
  if (typeof id !== "string" || !/^[\w-]{1,64}$/.test(id)) return undefined;
  if (typeof title !== "string" || typeof changed !== "number" || !Number.isFinite(changed) || !Array.isArray(turns)) return undefined;
  const clean = turns.slice(0, MOST_TURNS).map(readTurn);
  if (clean.some((turn) => turn === undefined)) return undefined;
  return { id, title: title.slice(0, LONGEST_TITLE), changed, turns: clean as Turn[] };
}

/** The conversations in a kept value; what is malformed is left out. */
export function readConversations(value: unknown): Conversation[] | undefined {
  if (!Array.isArray(value)) return undefined;
  const seen = new Set<string>();
  return value.slice(0, MOST_CONVERSATIONS).flatMap((item) => {
    const conversation = readConversation(item);
    if (!conversation || seen.has(conversation.id)) return [];
    seen.add(conversation.id);
    return [conversation];
  });
}

/** All conversations, the latest first. */
export class History {
  #all = recall(KEY, readConversations) ?? [];

  get all(): readonly Conversation[] {
    return this.#all;
  }

  /** A conversation without a turn; it is kept once it has one. */
  begin(): Conversation {
    return { id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.floor(Math.random() * 1e9)}`, title: "", changed: Date.now(), turns: [] };
  }

  /** Keeps a conversation as it is now. */
  keep(conversation: Conversation): void {
    conversation.changed = Date.now();
    conversation.title ||= titleOf(conversation);
    this.#all = [conversation, ...this.#all.filter(({ id }) => id !== conversation.id)].slice(0, MOST_CONVERSATIONS);
    this.#write();
  }

  remove(id: string): void {
    this.#all = this.#all.filter((conversation) => conversation.id !== id);
    this.#write();
  }

  /** Where the storage is full, the oldest conversations make room. */
  #write(): void {
    while (!keep(KEY, this.#all) && this.#all.length > 1) this.#all = this.#all.slice(0, -1);
  }
}

function titleOf({ turns }: Conversation): string {
  const first = turns[0]?.content.trim().replace(/\s+/g, " ") ?? "";
  return first.length > 48 ? `${first.slice(0, 47)}…` : first || "Conversation";
}
