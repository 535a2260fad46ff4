/** Conversations on the page: what is kept, changed, stopped, and what a model may not do with its text. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { changed, launch, openPage, serve, unlessBuiltIn } from "./harness.mjs";

const skip = unlessBuiltIn("story");
const READY = 60_000;

let server;
let browser;

before(async () => {
  server = await serve();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

async function talk(address = server.url, options = {}) {
  const tab = await openPage(browser, `${address}#chat`, options);
  await tab.page.waitForSelector("#messages .blank, #messages .message");
  return tab;
}

async function say(page, text) {
  await page.fill("#chat-input", text);
  await page.keyboard.press("Enter");
  await answered(page);
}

/** Waits until nothing is being written. */
async function answered(page) {
  await page.waitForSelector("#chat-send", { timeout: READY });
}

const texts = (page) => page.$$eval(".message", (rows) => rows.map((row) => [row.dataset.role, row.querySelector(".message-body").innerText]));

test("a conversation is answered, kept, changed and forgotten", { skip }, async () => {
  const tab = await talk(server.url, { permissions: ["clipboard-read", "clipboard-write"] });
  const { page } = tab;
  await say(page, "There was a dog.");
  let rows = await texts(page);
  assert.deepEqual(rows.map(([role]) => role), ["user", "assistant"]);
  assert.equal(rows[0][1], "There was a dog.");
  assert.ok(rows[1][1].length > 20);
  assert.match(await page.textContent(".message:last-child .message-tools"), /tokens, [\d,.]+ a second/);

  await page.click('.message[data-role=assistant] button:text-is("Copy")');
  await page.waitForSelector('button:text-is("Copied")');
  assert.equal((await page.evaluate(() => navigator.clipboard.readText())).trim().slice(0, 20), rows[1][1].slice(0, 20));

  await page.click('button:text-is("Regenerate")');
  await answered(page);
  rows = await texts(page);
  assert.equal(rows.length, 2);

  await say(page, "And a cat.");
  assert.equal((await texts(page)).length, 4);
  await page.click('.message[data-role=user] button:text-is("Edit")');
  await page.fill(".message-edit textarea", "There was a bird.");
  await page.click(".message-edit .primary");
  await answered(page);
  rows = await texts(page);
  assert.equal(rows.length, 2, "what followed the changed message is gone");
  assert.equal(rows[0][1], "There was a bird.");

  await page.click("#chat-new");
  await say(page, "A second one.");
  await page.reload();
  await page.waitForSelector("#history-list li:nth-child(2)");
  assert.deepEqual(await page.$$eval(".history-open", (all) => all.map((one) => one.innerText)), ["A second one.", "There was a dog."]);
  await page.click("#history-list li:nth-child(2) .history-open");
  assert.equal((await texts(page))[0][1], "There was a bird.");
  await page.click("#history-list li:nth-child(2) .icon-button");
  assert.equal(await page.locator("#history-list li").count(), 1);
  assert.equal(await page.isVisible("#messages .blank"), true);
  assert.deepEqual(tab.faults, []);
  await tab.close();
});

test("an answer can be stopped, and what was written stays", { skip }, async () => {
  const slow = "const until = performance.now() + 10; while (performance.now() < until);";
  const steady = await serve({ "/pkg/runtime/bitpane.js": changed("runtime/bitpane.js", /(\n {4}step\(\w+\) \{)/, `$1${slow}`) });
  const tab = await talk(steady.url);
  const { page } = tab;
  await page.evaluate(() => localStorage.setItem("bitpane:settings", '{"maxTokens":1500}'));
  await page.reload();
  await page.fill("#chat-input", "One day");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector(".message:last-child .message-body")?.textContent.length > 10, null, { timeout: READY });
  await page.click("#chat-stop");
  await page.waitForSelector("#chat-send", { timeout: 2000 });
  const rows = await texts(page);
  assert.equal(rows.length, 2);
  assert.ok(rows[1][1].length > 5);
  assert.match(await page.textContent(".message:last-child .message-tools"), /stopped/);
  assert.deepEqual(tab.faults, []);
  await tab.close();
  await steady.close();
});

test("W05 what another page has left in the storage is shown as text or not at all", async () => {
  const tab = await talk();
  const { page } = tab;
  const evil = "<img src=/stolen onerror=\"document.title='owned'\">";
  const good = { id: "a", title: evil, changed: 1, turns: [{ role: "user", content: evil }, { role: "assistant", content: evil, note: evil }] };
  const kept = [
    good, { ...good, id: "a" }, { ...good, id: "no good\"" }, { ...good, id: "b", turns: [{ role: "system", content: "x" }] },
    { ...good, id: "c", turns: "none" }, null, 7, { id: "d" }, { ...good, id: "e", changed: "now" },
  ];
  for (const [conversations, n] of [[JSON.stringify(kept), 1], ["{", 0], ['{"length":1e9}', 0], [JSON.stringify("x".repeat(1000)), 0]]) {
    await page.evaluate((text) => {
      localStorage.setItem("bitpane:conversations", text);
      localStorage.setItem("bitpane:settings", '{"temperature":"hot","maxTokens":-1,"system":7,"threads":1e9,"__proto__":{"x":1}}');
    }, conversations);
    await page.reload();
    await page.waitForSelector("#messages .blank, #messages .message");
    assert.equal(await page.locator("#history-list li").count(), n, conversations.slice(0, 40));
    assert.equal(await page.locator("#view-chat img").count(), 0);
  }
  await page.evaluate((text) => localStorage.setItem("bitpane:conversations", text), JSON.stringify(kept));
  await page.reload();
  assert.equal((await texts(page))[1][1], evil);
  assert.notEqual(await page.title(), "owned");
  assert.deepEqual(tab.faults, []);
  await tab.close();
});

test("an answer's marks become elements, never HTML, links or images", { skip }, async () => {
  const answer = [
    "# Head\n", "A **bold** word and `code <b>`.\n\n", "- one\n- two\n\n", "```js\n<script>document.title='owned'</script>\n```\n",
    "<img src=/stolen onerror=\"document.title='owned'\">\n[x](javascript:alert(1)) ![](/stolen)\n", "**`unclosed\n```\nlast",
  ];
  const inject = `
    globalThis.answer ??= ${JSON.stringify(answer)};
    if (globalThis.answer.length > 0) return { type: "piece", text: globalThis.answer.shift(), token: 1 };
    globalThis.answered = (globalThis.answered ?? 0) + 1;
    if (globalThis.answered > 30) throw { code: "BadArgument", message: "<b>enough</b>" };`;
  const hostile = await serve({ "/pkg/runtime/bitpane.js": changed("runtime/bitpane.js", /(\n {4}step\(\w+\) \{)/, (line) => line + inject) });
  const tab = await talk(hostile.url);
  const { page } = tab;
  await page.evaluate(() => localStorage.setItem("bitpane:settings", '{"maxTokens":20}'));
  await page.reload();
  await say(page, "Go");
  const body = page.locator(".message[data-role=assistant] .message-body").first();
  assert.equal(await body.locator("h3").innerText(), "Head");
  assert.equal(await body.locator("strong").first().innerText(), "bold");
  assert.equal(await body.locator("p code").first().innerText(), "code <b>");
  assert.deepEqual(await body.locator("li").allInnerTexts(), ["one", "two"]);
  assert.match(await body.locator("pre").first().innerText(), /^<script>/);
  assert.equal(await body.locator("img, a, script, b").count(), 0);
  await say(page, "Go on");
  await page.waitForSelector("#messages .bad");
  assert.match(await page.innerText("#messages .bad"), /^<b>enough<\/b> \[BadArgument\]/);
  assert.equal(await page.locator("#messages .bad *").count(), 0);
  assert.notEqual(await page.title(), "owned");
  assert.deepEqual(hostile.log.filter((path) => path.startsWith("/stolen")), []);
  assert.deepEqual(tab.faults, []);
  await tab.close();
  await hostile.close();
});
