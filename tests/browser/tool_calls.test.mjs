/** Calls of tools in what models write: pkg/tool-calls.js needs no browser. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { CallFilter, parseAnswer } from "../../pkg/tool-calls.js";

const NAMES = new Set(["get_weather", "add"]);
const WEATHER = { name: "get_weather", arguments: '{"city":"Zürich"}' };
const ADD = { name: "add", arguments: '{"a":1,"b":[2,"}"]}' };

/** Answers with calls: what they stand for. */
const CALLS = {
  hermes: ['<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich"}}\n</tool_call>', "", [WEATHER]],
  "hermes, two and text": [
    'Let me see.\n<tool_call>{"name": "get_weather", "arguments": {"city": "Zürich"}}</tool_call>\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": [2, "}"]}}\n</tool_call>',
    "Let me see.", [WEATHER, ADD],
  ],
  "hermes, cut off after the call": ['<tool_call>{"name": "get_weather", "arguments": {"city": "Zürich"}}', "", [WEATHER]],
  mistral: ['[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Zürich"}, "id": "abcdefghi"}]', "", [WEATHER]],
  "mistral, name first": ['[TOOL_CALLS]get_weather[ARGS]{"city": "Zürich"}', "", [WEATHER]],
  "mistral, its special token gone": ['[{"name": "get_weather", "arguments": {"city": "Zürich"}}]', "", [WEATHER]],
  "llama 3.1": ['{"name": "get_weather", "parameters": {"city": "Zürich"}}', "", [WEATHER]],
  "llama 3.2, several": [
    '{"name": "get_weather", "parameters": {"city": "Zürich"}}; {"name": "add", "parameters": {"a": 1, "b": [2, "}"]}}',
    "", [WEATHER, ADD],
  ],
  "llama 3.1, tagged": ['<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Zürich"}}', "", [WEATHER]],
  functionary: ['<function=get_weather>{"city": "Zürich"}</function><function=add>{"a":1,"b":[2,"}"]}</function>', "", [WEATHER, ADD]],
  fenced: ['```json\n{"name": "get_weather", "arguments": {"city": "Zürich"}}\n```', "", [WEATHER]],
  "a list under tool_calls": ['{"tool_calls": [{"function": {"name": "get_weather", "arguments": "{\\"city\\":\\"Zürich\\"}"}}]}', "", [WEATHER]],
};

/** Answers without any: they stay as they are. */
const TEXTS = [
  "", "Hello.", "a < b and <tool", '{"name": "get_weather"}', '{"name": "no_such_tool", "arguments": {}}', '{"city": "Zürich"}',
  "[1, 2]", "{broken", "```js\nlet a;\n```", '{"name": "add", "arguments": {}} is how it is done', "<tool_call>not JSON</tool_call>",
  "<function=add>1</function>", "[TOOL_CALLS] are Mistral's", '{"name": "add", "arguments": 1}', "  \n", '[{"name": "add", "arguments": {}}, 1]',
];

test("each format gives its calls", () => {
  for (const [name, [text, content, calls]] of Object.entries(CALLS)) {
    assert.deepEqual(parseAnswer(text, NAMES), { content, calls }, name);
  }
});

test("what is no call stays text", () => {
  for (const text of TEXTS) assert.deepEqual(parseAnswer(text, NAMES), { content: text, calls: [] }, text);
});

test("a stream gives the same, in whatever pieces it comes", () => {
  const all = [...Object.values(CALLS), ...TEXTS.map((text) => [text, text, []])];
  for (const [text, content, calls] of all) {
    for (const size of [1, 2, 3, 7, 1000]) {
      const filter = new CallFilter(NAMES);
      let streamed = "";
      for (let at = 0; at < text.length; at += size) streamed += filter.push(text.slice(at, at + size));
      const rest = filter.finish();
      const whole = calls.length > 0 ? (streamed + rest.content).trim() : streamed + rest.content;
      assert.deepEqual({ content: whole, calls: rest.calls }, { content, calls }, `${text} by ${size}`);
    }
  }
});

test("text is streamed at once where it cannot be a call", () => {
  const filter = new CallFilter(NAMES);
  assert.equal(filter.push("The answer is "), "The answer is ");
  assert.equal(filter.push("4 <tool"), "4 ");
  assert.equal(filter.push("s are good"), "<tools are good");
});

test("hostile answers take linear time", () => {
  const start = performance.now();
  for (const text of ["<tool_call>{".repeat(3000), "{".repeat(200_000), "[".repeat(100_000) + '"', "<function=".repeat(20_000), "<".repeat(50_000)]) {
    assert.deepEqual(parseAnswer(text, NAMES).calls, []);
  }
  assert.ok(performance.now() - start < 5000, `${performance.now() - start} ms`);
});
