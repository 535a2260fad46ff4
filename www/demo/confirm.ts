/** The question before anything is fetched from another site. */
import { byId } from "./dom.js";

/** Asks whether a file may be fetched from another site; `more` says what comes with it. */
export function confirmed(url: URL, more = ""): Promise<boolean> {
  const dialog = byId<HTMLDialogElement>("confirm");
  byId("confirm-host").textContent = url.host;
  byId("confirm-url").textContent = url.href;
  const note = document.getElementById("confirm-more");
  if (note) note.textContent = more;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
