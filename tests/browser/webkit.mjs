/** WebKit by its own driver (WebKitGTK), on a display of its own: a page with an `evaluate` like Playwright's. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createServer } from "node:net";

const DRIVER = "/usr/bin/WebKitWebDriver";
const DISPLAY_SERVER = "/usr/bin/Xvfb";
const START_MS = 20_000;
const SCRIPT_MS = 120_000;

/** Why nothing can be tested in WebKit here, or false: for the `skip` option of a test. */
export const noWebKit = existsSync(DRIVER) && existsSync(DISPLAY_SERVER) ? false : "no WebKitGTK with its driver and Xvfb here";

/** Starts the browser with one page; `close` ends all of it. */
export async function launchWebKit() {
  const display = await startDisplay();
  const port = await freePort();
  // Only pages of this repository are opened; the sandbox needs more rights than a container gives.
  const env = { ...process.env, DISPLAY: display.name, WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: "1" };
  const driver = spawn(DRIVER, [`--port=${port}`], { env, stdio: "ignore" });
  const stop = () => [driver, display.server].forEach((child) => child.kill());
  try {
    await answering(port);
    const address = `http://127.0.0.1:${port}/session`;
    const { sessionId, capabilities } = await command("POST", address, { capabilities: { alwaysMatch: {} } });
    const session = `${address}/${sessionId}`;
    await command("POST", `${session}/timeouts`, { script: SCRIPT_MS });
    return {
      version: `${capabilities.browserName} ${capabilities.browserVersion}`,
      goto: (url) => command("POST", `${session}/url`, { url }),
      evaluate: (expression) => evaluate(session, expression),
      close: async () => {
        await command("DELETE", session).catch(() => undefined);
        stop();
      },
    };
  } catch (error) {
    stop();
    throw error;
  }
}

/** The value of an expression, awaited, in the page. */
async function evaluate(session, expression) {
  const script = `const done = arguments[0];
    Promise.resolve(${expression}).then((value) => done({ value }), (error) => done({ error: String(error) + "\\n" + error?.stack }));`;
  const { value, error } = await command("POST", `${session}/execute/async`, { script, args: [] });
  if (error) throw new Error(error);
  return value;
}

/** One command of the WebDriver protocol (W3C). */
async function command(method, url, body) {
  const response = await fetch(url, { method, ...(body && { body: JSON.stringify(body) }) });
  const { value } = await response.json();
  if (!response.ok) throw new Error(`${method} ${url}: ${value.error}: ${value.message}`);
  return value;
}

/** A display that exists in memory only; the server chooses its number and writes it to descriptor 3. */
async function startDisplay() {
  const server = spawn(DISPLAY_SERVER, ["-displayfd", "3", "-screen", "0", "1280x900x24"], { stdio: ["ignore", "ignore", "ignore", "pipe"] });
  const number = await new Promise((resolve, reject) => {
    server.stdio[3].once("data", (data) => resolve(String(data).trim()));
    server.once("exit", () => reject(new Error("Xvfb does not start")));
  });
  return { server, name: `:${number}` };
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

async function answering(port) {
  for (const start = Date.now(); Date.now() - start < START_MS; ) {
    if (await fetch(`http://127.0.0.1:${port}/status`).then(() => true, () => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("WebKitWebDriver does not answer");
}
