/**
 * Web Components: `<bitpane-chat src="model.gguf">` and `<bitpane-classify src="model.gguf">`. Importing this
 * defines both. They load their model when they are first used, or at once with the attribute `eager`.
 *
 * Colours and type are the page's own; `--bitpane-accent` changes the one colour that is theirs. Text of a
 * model is only ever text.
 */
import { BitpaneError, TextModel, VisionModel } from "./index.js";
import type { ChatMessage, Progress } from "./index.js";

/** In Node, where pages are rendered before they are sent, there are no elements to extend. */
const Base = (globalThis.HTMLElement ?? class {}) as typeof HTMLElement;

const STYLE = `
:host { display: grid; gap: .75rem; font: inherit; color: inherit; --accent: var(--bitpane-accent, #0a6b58); }
:host([hidden]) { display: none; }
.rows { display: grid; gap: .5rem; overflow-y: auto; }
.row { white-space: pre-wrap; overflow-wrap: anywhere; }
.row[data-role="user"] { justify-self: end; max-width: 85%; padding: .4rem .8rem; border-radius: .9rem; background: color-mix(in srgb, var(--accent) 15%, transparent); }
form { display: flex; gap: .5rem; }
input[type="text"] { flex: 1; min-width: 0; }
input, button { font: inherit; color: inherit; padding: .45rem .8rem; border: 1px solid color-mix(in srgb, currentColor 45%, transparent); border-radius: .4rem; background: transparent; }
button { cursor: pointer; }
button:disabled { opacity: .6; cursor: default; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.state:empty { display: none; }
.state { font-size: .875em; opacity: .8; }
label { display: block; padding: 1.2rem; border: 1px dashed color-mix(in srgb, currentColor 45%, transparent); border-radius: .5rem; text-align: center; cursor: pointer; }
label input { display: block; margin: .6rem auto 0; max-width: 100%; }
img { display: block; max-width: 100%; max-height: 16rem; margin-inline: auto; }
ol { display: grid; gap: .35rem; margin: 0; padding: 0; list-style: none; }
li { display: grid; grid-template-columns: 1fr auto; gap: 0 .75rem; }
meter { grid-column: 1 / -1; width: 100%; }
`;

function make<K extends keyof HTMLElementTagNameMap>(tag: K, parent: Node, text = ""): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  parent.appendChild(element);
  return element;
}

/** What both have in common: a model that is loaded when it is needed, and a line that says how things are. */
abstract class ModelElement<M extends { dispose: () => Promise<void> }> extends Base {
  static readonly observedAttributes = ["src"];
  readonly root: ShadowRoot;
  readonly #state = document.createElement("div");
  #isBuilt = false;
  #model: Promise<M> | undefined;
  #stop = new AbortController();

  constructor() {
    super();
    this.root = this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    this.root.adoptedStyleSheets = [sheet];
    this.#state.className = "state";
    this.#state.setAttribute("role", "status");
  }

  /** Makes the parts of the element. */
  protected abstract build(): void;
  protected abstract load(src: string, options: { signal: AbortSignal; onProgress: (progress: Progress) => void }): Promise<M>;

  connectedCallback(): void {
    if (!this.#isBuilt) {
      this.build();
      this.root.append(this.#state);
      this.#isBuilt = true;
    }
    if (this.hasAttribute("eager")) this.model().catch((error: unknown) => this.fail(error));
  }

  disconnectedCallback(): void {
    this.#forget();
  }

  attributeChangedCallback(_: string, before: string | null, now: string | null): void {
    if (before !== null && before !== now) this.#forget();
  }

  #forget(): void {
    this.#stop.abort();
    this.#stop = new AbortController();
    void this.#model?.then((model) => model.dispose(), () => undefined);
    this.#model = undefined;
  }

  /** The model, loaded once. */
  protected model(): Promise<M> {
    const src = this.getAttribute("src");
    if (!src) return Promise.reject(new BitpaneError("BadArgument", "the attribute \"src\" names no model", { key: "src" }));
    const onProgress = (progress: Progress): void => {
      if (progress.status === "download") this.say(`Loading: ${Math.round(progress.loaded / 1e6)} MB`);
    };
    this.#model ??= this.load(src, { signal: this.#stop.signal, onProgress }).then((model) => {
      this.say("");
      return model;
    });
    const loading = this.#model;
    loading.catch(() => {
      if (this.#model === loading) this.#model = undefined;
    });
    return loading;
  }

  protected say(text: string): void {
    this.#state.textContent = text;
  }

  protected fail(error: unknown): void {
    if (error instanceof DOMException && error.name === "AbortError") return this.say("");
    this.say(error instanceof BitpaneError ? `${error.message} [${error.code}]` : String(error));
    this.dispatchEvent(new CustomEvent("bitpane-error", { detail: error, bubbles: true, composed: true }));
  }
}

/** A conversation. Attributes: `src`, `system`, `max-tokens`, `eager`. Fires `bitpane-answer` with the text. */
export class BitpaneChat extends ModelElement<TextModel> {
  #rows!: HTMLElement;
  #input!: HTMLInputElement;
  #button!: HTMLButtonElement;
  #running: AbortController | undefined;
  /** The conversation so far. */
  readonly messages: ChatMessage[] = [];

  protected build(): void {
    this.#rows = make("div", this.root);
    this.#rows.className = "rows";
    this.#rows.setAttribute("role", "log");
    const form = make("form", this.root);
    this.#input = make("input", form);
    this.#input.type = "text";
    this.#input.setAttribute("aria-label", "Message");
    this.#button = make("button", form, "Send");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#running) this.#running.abort();
      else void this.send(this.#input.value);
    });
  }

  protected load(src: string, options: Parameters<typeof TextModel.load>[1]): Promise<TextModel> {
    return TextModel.load(src, options);
  }

  /** Sends a message and resolves with the answer. */
  async send(text: string): Promise<string> {
    if (!text.trim() || this.#running) return "";
    this.#input.value = "";
    this.messages.push({ role: "user", content: text });
    this.#row("user", text);
    const row = this.#row("assistant", "");
    const running = new AbortController();
    this.#running = running;
    this.#button.textContent = "Stop";
    let answer = "";
    try {
      const model = await this.model();
      const system = this.getAttribute("system");
      const messages: ChatMessage[] = system ? [{ role: "system", content: system }, ...this.messages] : this.messages;
      const max_tokens = Number(this.getAttribute("max-tokens")) || 256;
      for await (const chunk of await model.chat.completions.create({ messages, max_tokens, stream: true, signal: running.signal })) {
        answer += chunk.choices[0]?.delta.content ?? "";
        row.textContent = answer;
      }
    } catch (error) {
      if (!running.signal.aborted) this.fail(error);
    } finally {
      this.#running = undefined;
      this.#button.textContent = "Send";
    }
    if (!answer) row.remove();
    else this.messages.push({ role: "assistant", content: answer });
    this.dispatchEvent(new CustomEvent("bitpane-answer", { detail: answer, bubbles: true, composed: true }));
    return answer;
  }

  #row(role: string, text: string): HTMLElement {
    const row = make("div", this.#rows, text);
    row.className = "row";
    row.dataset["role"] = role;
    row.scrollIntoView({ block: "nearest" });
    return row;
  }
}

/** A photo and what is in it. Attributes: `src`, `top-k`, `eager`. Fires `bitpane-classes` with the classes. */
export class BitpaneClassify extends ModelElement<VisionModel> {
  #image!: HTMLImageElement;
  #list!: HTMLElement;

  protected build(): void {
    const label = make("label", this.root, "Choose a photo, or drop it here");
    const input = make("input", label);
    input.type = "file";
    input.accept = "image/*";
    input.addEventListener("change", () => {
      const file = input.files?.[0];
      if (file) void this.classify(file);
    });
    this.#image = make("img", this.root);
    this.#image.hidden = true;
    this.#image.alt = "";
    this.#list = make("ol", this.root);
    label.addEventListener("dragover", (event) => event.preventDefault());
    label.addEventListener("drop", (event) => {
      event.preventDefault();
      const file = event.dataTransfer?.files[0];
      if (file) void this.classify(file);
    });
  }

  protected load(src: string, options: Parameters<typeof VisionModel.load>[1]): Promise<VisionModel> {
    return VisionModel.load(src, options);
  }

  /** Shows an image and says what is in it. */
  async classify(image: Blob): Promise<void> {
    URL.revokeObjectURL(this.#image.src);
    this.#image.src = URL.createObjectURL(image);
    this.#image.hidden = false;
    this.#list.replaceChildren();
    try {
      const model = await this.model();
      const classes = await model.classify(image, { topK: Number(this.getAttribute("top-k")) || 5 });
      for (const { label, score } of classes) {
        const item = make("li", this.#list, label);
        make("span", item, `${(score * 100).toFixed(1)} %`);
        const meter = make("meter", item);
        meter.value = score;
        meter.setAttribute("aria-label", label);
      }
      this.dispatchEvent(new CustomEvent("bitpane-classes", { detail: classes, bubbles: true, composed: true }));
    } catch (error) {
      this.fail(error);
    }
  }
}

if (globalThis.customElements) {
  if (!customElements.get("bitpane-chat")) customElements.define("bitpane-chat", BitpaneChat);
  if (!customElements.get("bitpane-classify")) customElements.define("bitpane-classify", BitpaneClassify);
}
