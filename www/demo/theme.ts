// A plain script, run before the page is drawn: a module would come too late and flash.
{
  const KEY = "bitpane:theme";
  const root = document.documentElement;
  const stored = (): string | null => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage can be switched off; the choice then lasts for this visit
    }
  };
  const isDark = (): boolean =>
    root.dataset["theme"] ? root.dataset["theme"] === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

  const saved = stored();
  if (saved === "dark" || saved === "light") root.dataset["theme"] = saved;

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = (): void => button?.setAttribute("aria-pressed", String(isDark()));
    show();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
    button?.addEventListener("click", () => {
      const next = isDark() ? "light" : "dark";
      root.dataset["theme"] = next;
      try {
        localStorage.setItem(KEY, next);
      } catch {
        // as above
      }
      show();
    });
  });
}
