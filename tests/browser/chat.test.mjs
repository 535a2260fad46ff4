/** `chat.completions` with the page's own model, and templates that are hostile (faults T08 to T10). */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, openPage, serve, withPackage } from "./harness.mjs";

let server;
let browser;
let tab;

before(async () => {
  server = await serve();
  browser = await launch();
  tab = await openPage(browser, `${server.url}blank.html`);
  await tab.page.evaluate(() => {
    /** The story model with a chat template in its metadata. */
    globalThis.withTemplate = async (template) => {
      const file = new Uint8Array(await (await fetch("/models/story.gguf")).arrayBuffer());
      const key = new TextEncoder().encode("tokenizer.chat_template");
      const head = 8 + key.length + 4 + 8;
      let text = new TextEncoder().encode(template);
      // What follows stays aligned: the entry's length is a multiple of 32.
      const padded = new Uint8Array(Math.ceil((head + text.length) / 32) * 32 - head).fill(32);
      padded.set(text);
      text = padded;
      const entry = new Uint8Array(head + text.length);
      const view = new DataView(entry.buffer);
      view.setBigUint64(0, BigInt(key.length), true);
      entry.set(key, 8);
      view.setUint32(8 + key.length, 8, true);
      view.setBigUint64(12 + key.length, BigInt(text.length), true);
      entry.set(text, head);
      const start = file.slice(0, 24);
      const counts = new DataView(start.buffer);
      counts.setBigUint64(16, counts.getBigUint64(16, true) + 1n, true);
      return new Blob([start, entry, file.slice(24)]);
    };
  });
});
after(async () => {
  await browser?.close();
  await server?.close();
});

function inPage(run, args = {}) {
  return withPackage(tab.page, run, args);
}

test("an answer has OpenAI's shape, and a stream adds up to the same", async () => {
  const result = await inPage(async ({ TextModel }) => {
    const lm = await TextModel.load("/models/story.gguf");
    const ask = {
      messages: [{ role: "system", content: "Be kind." }, { role: "user", content: [{ type: "text", text: "A dog \ud800" }] }],
      max_tokens: 12, temperature: 0, logprobs: true, top_logprobs: 2,
    };
    const whole = await lm.chat.completions.create(ask);
    const chunks = [];
    for await (const chunk of await lm.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } })) {
      chunks.push(chunk);
    }
    const two = await lm.chat.completions.create({ ...ask, n: 2, temperature: 1, seed: 5 });
    const prompt = await lm.chatPrompt({ messages: ask.messages });
    const { chatTemplate } = lm.info;
    const { finishReason } = lm.stats;
    await lm.dispose();
    return { whole, chunks, two, prompt, chatTemplate, finishReason };
  });
  const { whole, chunks, two } = result;
  assert.equal(result.chatTemplate, "chatml (the file has none)");
  assert.equal(result.prompt, "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nA dog \ufffd<|im_end|>\n<|im_start|>assistant\n");
  assert.equal(whole.object, "chat.completion");
  const [choice] = whole.choices;
  assert.equal(choice.message.role, "assistant");
  assert.ok(choice.message.content.length > 0);
  assert.equal(choice.finish_reason, "length");
  assert.equal(whole.usage.completion_tokens, 12);
  assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + 12);
  assert.equal(choice.logprobs.content.length, 12);
  assert.equal(choice.logprobs.content[0].top_logprobs.length, 2);
  const usage = chunks.pop();
  assert.deepEqual([usage.choices, usage.usage.completion_tokens], [[], 12]);
  // The prompt is still in the context, all but its last token.
  assert.equal(usage.usage.prompt_tokens_details.cached_tokens, usage.usage.prompt_tokens - 1);
  assert.ok(chunks.every((chunk) => chunk.object === "chat.completion.chunk" && chunk.id === chunks[0].id));
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), choice.message.content);
  assert.equal(chunks.at(-1).choices[0].finish_reason, "length");
  assert.equal(chunks.flatMap((chunk) => chunk.choices[0].logprobs?.content ?? []).length, 12);
  assert.deepEqual(two.choices.map(({ index }) => index), [0, 1]);
  assert.notEqual(two.choices[0].message.content, two.choices[1].message.content);
  assert.equal(two.usage.completion_tokens, 24);
});

test("a turn processes what is new in it", async () => {
  const turns = await inPage(async ({ TextModel }) => {
    const lm = await TextModel.load("/models/story.gguf");
    const messages = [];
    const all = [];
    for (let turn = 0; turn < 4; turn += 1) {
      messages.push({ role: "user", content: `The dog saw ${turn} cats.` });
      const { choices, usage } = await lm.chat.completions.create({ messages, max_tokens: 10, temperature: 0.9, seed: turn });
      messages.push(choices[0].message);
      all.push(usage);
    }
    await lm.dispose();
    return all;
  });
  let before = 0;
  for (const { prompt_tokens, completion_tokens, prompt_tokens_details } of turns) {
    assert.ok(prompt_tokens_details.cached_tokens + 1 >= before, JSON.stringify(turns));
    before = prompt_tokens + completion_tokens;
  }
});

test("an answer keeps to the schema of response_format", async () => {
  const content = await inPage(async ({ TextModel }) => {
    const lm = await TextModel.load("/models/story.gguf");
    const schema = { type: "object", properties: { dog: { type: "boolean" }, age: { enum: [1, 2] } }, required: ["dog", "age"], additionalProperties: false };
    const { choices } = await lm.chat.completions.create({
      messages: [{ role: "user", content: "A dog" }], max_tokens: 100, temperature: 0, response_format: { type: "json_schema", json_schema: { name: "dog", schema } },
    });
    await lm.dispose();
    return choices[0].message.content;
  });
  const { dog, age } = JSON.parse(content);
  assert.ok(typeof dog === "boolean" && [1, 2].includes(age), content);
});

test("tool_choice has the answer be a call that keeps to the tool's schema", async () => {
  const result = await inPage(async ({ TextModel }) => {
    const lm = await TextModel.load("/models/story.gguf");
    const tool = (name, parameters) => ({ type: "function", function: { name, description: "A tool.", parameters } });
    const dog = { type: "object", properties: { age: { type: "integer", minimum: 1, maximum: 9 }, size: { $ref: "#/$defs/size" } }, required: ["age", "size"], $defs: { size: { enum: ["big", "small"] } } };
    const ask = {
      messages: [{ role: "user", content: "A dog" }], max_tokens: 200, temperature: 1,
      tools: [tool("find_dog", dog), tool("find_cat", { type: "object", properties: { name: { type: "string", maxLength: 5 } }, required: ["name"] })],
    };
    const named = [];
    const required = [];
    for (let seed = 0; seed < 6; seed += 1) {
      const choice = { type: "function", function: { name: "find_dog" } };
      named.push((await lm.chat.completions.create({ ...ask, seed, tool_choice: choice })).choices[0]);
      required.push((await lm.chat.completions.create({ ...ask, seed, tool_choice: "required" })).choices[0]);
    }
    const chunks = [];
    for await (const chunk of await lm.chat.completions.create({ ...ask, seed: 1, tool_choice: "required", stream: true })) chunks.push(chunk.choices[0]);
    const unknown = await lm.chat.completions.create({ ...ask, tool_choice: { type: "function", function: { name: "fly" } } }).catch(shown);
    await lm.dispose();
    return { named, required, chunks, unknown };
  });
  for (const { message, finish_reason } of [...result.named, ...result.required]) {
    assert.equal(finish_reason, "tool_calls");
    assert.equal(message.content, null);
    assert.equal(message.tool_calls.length, 1);
    const { name, arguments: given } = message.tool_calls[0].function;
    const values = JSON.parse(given);
    if (name === "find_dog") assert.ok(values.age >= 1 && values.age <= 9 && ["big", "small"].includes(values.size), given);
    else assert.ok(name === "find_cat" && [...values.name].length <= 5, given);
  }
  assert.ok(result.named.every(({ message }) => message.tool_calls[0].function.name === "find_dog"));
  const streamed = result.chunks.flatMap(({ delta }) => delta.tool_calls ?? []);
  assert.deepEqual(streamed.map((call) => call.function), [result.required[1].message.tool_calls[0].function]);
  assert.deepEqual([result.unknown.code, result.unknown.key], ["BadArgument", "tool_choice"]);
});

test("an abort and a loop that is left end the answer", async () => {
  const result = await inPage(async ({ TextModel }) => {
    const lm = await TextModel.load("/models/story.gguf");
    const messages = [{ role: "user", content: "The dog" }];
    const controller = new AbortController();
    const stream = await lm.chat.completions.create({ messages, stream: true, signal: controller.signal });
    let seen = 0;
    let error;
    try {
      for await (const chunk of stream) {
        seen += chunk.choices.length;
        if (seen === 3) controller.abort();
      }
    } catch (thrown) {
      error = shown(thrown);
    }
    const early = await lm.chat.completions.create({ messages, signal: AbortSignal.abort() }).catch(shown);
    for await (const chunk of await lm.chat.completions.create({ messages, stream: true })) {
      if (chunk.choices[0].delta.content) break;
    }
    const left = lm.stats.finishReason;
    const fine = await lm.chat.completions.create({ messages, max_tokens: 2 });
    await lm.dispose();
    return { error, early, left, fine: fine.usage.completion_tokens };
  });
  assert.equal(result.error.name, "AbortError");
  assert.equal(result.early.name, "AbortError");
  assert.equal(result.left, "abort");
  assert.equal(result.fine, 2);
});

test("T10: bad arguments are named", async () => {
  const results = await inPage(async ({ TextModel }) => {
    const lm = await TextModel.load("/models/story.gguf");
    const hi = [{ role: "user", content: "hi" }];
    const cyclic = [{ role: "user", content: "hi" }];
    cyclic[0].self = cyclic;
    const attempts = {
      messages: [undefined, {}, { messages: [] }, { messages: "hi" }, { messages: Array(10_000).fill(hi[0]) }, { messages: cyclic }],
      "messages[0].role": [{ messages: [{ role: "wizard", content: "hi" }] }, { messages: [{ content: "hi" }] }],
      "messages[0].content": [{ messages: [{ role: "user", content: 1 }] }, { messages: [{ role: "user" }] }],
      tools: [{ messages: hi, tools: [{}] }, { messages: hi, tools: "f" }],
      tool_choice: [{ messages: hi, tool_choice: "required" }, { messages: hi, tool_choice: { type: "function" } }],
      response_format: [{ messages: hi, response_format: { type: "json_schema" } }, { messages: hi, response_format: null }],
      n: [{ messages: hi, n: 0 }],
      max_tokens: [{ messages: hi, max_tokens: -1 }],
      temperature: [{ messages: hi, temperature: -1 }],
      temprature: [{ messages: hi, temprature: 1 }],
      signal: [{ messages: hi, signal: {} }],
    };
    const results = [];
    for (const [key, list] of Object.entries(attempts)) {
      for (const params of list) {
        const error = await lm.chat.completions.create(params).then(() => "no error", shown);
        results.push({ key, error });
      }
    }
    const long = await lm.chat.completions.create({ messages: [{ role: "user", content: "word ".repeat(9000) }] }).catch(shown);
    results.push({ key: "prompt", error: long, code: "ContextOverflow" });
    await lm.dispose();
    return results;
  });
  for (const { key, error, code = "BadArgument" } of results) {
    assert.deepEqual([error.code, error.key], [code, key], JSON.stringify(error));
  }
});

test("the model's own template is used, and T08: messages cannot write its special tokens", async () => {
  const result = await inPage(async ({ TextModel }) => {
    const file = await withTemplate(
      "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}{{ eos_token }}{% endfor %}{% if tools %}{{ tools[0].function.parameters }}{% endif %}{{ strftime_now('%Y') }} {{ mood }}",
    );
    const lm = await TextModel.load(file);
    const ask = (content) => ({ messages: [{ role: "user", content }], max_tokens: 1, temperature: 0 });
    const n = async (content) => (await lm.chat.completions.create(ask(content))).usage.prompt_tokens;
    const [special] = await lm.tokenize("</s>", { parseSpecial: true });
    const plain = await lm.tokenize("</s>");
    const counts = [await n("x"), await n("x</s>")];
    const tools = [{ type: "function", function: { name: "f", parameters: { type: "object", b: 1, a: [true, null] } } }];
    const shownPrompt = await lm.chatPrompt({ messages: ask("hi").messages, tools, chat_template_kwargs: { mood: "good" } });
    const info = lm.info.chatTemplate;
    await lm.dispose();
    return { special, plain, counts, shownPrompt, info };
  });
  assert.equal(result.info, "model");
  assert.match(result.shownPrompt, /^<s>\[user\] hi<\/s>\{'type': 'object', 'b': 1, 'a': \[True, None\]\}20\d\d good *$/);
  assert.ok(!result.plain.includes(result.special));
  // As text it takes several tokens, as the special token it would take one.
  assert.ok(result.counts[1] - result.counts[0] > 1, JSON.stringify(result));
});

test("T09: no template hangs the worker or takes its memory", async () => {
  const results = await inPage(async ({ TextModel }) => {
    const templates = {
      TemplateError: ["{% if %}", "{{ 'a' | nofilter }}", "{{ ''.__class__ }}", "{{ raise_exception('no') }}"],
      TemplateBudget: [
        "{{ range(10**9) }}",
        "{% for a in range(999) %}{% for b in range(999) %}{% for c in range(999) %}{% endfor %}{% endfor %}{% endfor %}",
        "{{ '-' * 10**10 }}",
        "{{ 'a' | indent(10**9) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set ns = namespace(t='ab') %}{% for i in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
        `{{ ${"(".repeat(5000)}1${")".repeat(5000)} }}`,
        `{{ 1${"+1".repeat(20_000)} }}`,
        "x".repeat(10 << 20),
      ],
    };
    const results = [];
    for (const [code, list] of Object.entries(templates)) {
      for (const template of list) {
        const start = performance.now();
        const lm = await TextModel.load(await withTemplate(template));
        const error = await lm.chat.completions.create({ messages: [{ role: "user", content: "hi" }] }).then(() => "no error", shown);
        // The worker is as well as before.
        const fine = (await lm.tokenize("The dog")).length;
        results.push({ template: template.slice(0, 60), code, error, fine, ms: performance.now() - start });
        await lm.dispose();
      }
    }
    return results;
  });
  for (const { template, code, error, fine, ms } of results) {
    assert.equal(error.code, code, `${template}: ${JSON.stringify(error)}`);
    assert.ok(fine > 0, template);
    assert.ok(ms < 10_000, `${template}: ${ms} ms`);
  }
});

test("the tests above left no trace of a fault", () => {
  assert.deepEqual(tab.faults, []);
});
