/**
 * What a screen reader hears. Streaming text would flood it, so whole sentences are
 * collected and spoken at most every few seconds.
 */
const EVERY_MS = 3000;

let waiting = "";
let timer: ReturnType<typeof setTimeout> | undefined;

/** Adds streamed text; it is spoken once its sentence is complete. */
export function announceStream(text: string): void {
  waiting += text;
  timer ??= setTimeout(speakSentences, EVERY_MS);
}

/** Speaks a message, after whatever text is still waiting. */
export function announce(message: string): void {
  clearTimeout(timer);
  timer = undefined;
  speak(`${waiting} ${message}`.trim());
  waiting = "";
}

function speakSentences(): void {
  timer = undefined;
  const end = Math.max(...[". ", "! ", "? ", ".\n", "\n"].map((mark) => waiting.lastIndexOf(mark)));
  if (end < 0) return;
  speak(waiting.slice(0, end + 1));
  waiting = waiting.slice(end + 1);
}

function speak(text: string): void {
  const announcer = document.getElementById("announcer"); // the benchmark has none
  if (announcer) announcer.textContent = text;
}
