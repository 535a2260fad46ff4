/** Collects text and shows it once a frame: a fast model writes many tokens in each. */
export class TextSink {
  readonly #show: (text: string) => void;
  readonly #scroller: HTMLElement;
  #waiting = "";
  #frame = 0;

  /** `show` takes what is new; `scroller` stays at its end if it was there. */
  constructor(scroller: HTMLElement, show: (text: string) => void) {
    this.#scroller = scroller;
    this.#show = show;
  }

  add(text: string): void {
    this.#waiting += text;
    this.#frame ||= requestAnimationFrame(() => this.flush());
  }

  flush(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    const atEnd = scrollHeight - scrollTop - clientHeight < 40;
    this.#show(this.#waiting);
    this.#waiting = "";
    if (atEnd) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }
}
