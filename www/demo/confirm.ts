/** The question before a model is fetched from another site because a link says so. */
import { byId } from "./dom.js";

/** Asks whether a model may be fetched from another site. */
export function confirmed(url: URL): Promise<boolean> {
  const dialog = byId<HTMLDialogElement>("confirm");
  byId("confirm-host").textContent = url.host;
  byId("confirm-url").textContent = url.href;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
