/** Vision models through the package, in Node: labels that are typed, vectors, patches and attention. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");
const DATA = join(ROOT, "tests/data/vision");
const { exports } = JSON.parse(await readFile(join(ROOT, "pkg/package.json"), "utf8"));
const { BitpaneError, similarity, VisionModel } = await import(pathToFileURL(join(ROOT, "pkg", exports["."].node)));

const golden = async (name) => JSON.parse(await readFile(join(DATA, `${name}.json`), "utf8"));
const picture = (seed) => {
  const [width, height] = [40, 30];
  const data = Uint8Array.from({ length: width * height * 4 }, (_, i) => (i % 4 === 3 ? 255 : (i * seed) % 251));
  return { data, width, height };
};

test("labels that are typed: scores add up, and similarity ranks alike", async () => {
  const { config } = await golden("clip");
  const model = await VisionModel.load(join(DATA, "clip.safetensors"), { config, tokenizer: join(DATA, "clip.tokenizer.json") });
  assert.equal(model.info.architecture, "clip");
  assert.equal(model.info.readsTexts, true);
  const labels = ["a cat", "two dogs", "a red house"];
  const found = await model.zeroShot(picture(37), labels);
  assert.deepEqual(found.map((c) => c.label).sort(), [...labels].sort());
  assert.ok(Math.abs(found.reduce((sum, c) => sum + c.score, 0) - 1) < 1e-5);
  const image = await model.embedImage(picture(37));
  const texts = await model.embedText(labels.map((label) => `This is a photo of ${label}.`));
  assert.ok(Math.abs(similarity(image, image) - 1) < 1e-5);
  const byHand = texts.map((text) => similarity(image, text));
  assert.equal(byHand.indexOf(Math.max(...byHand)), found[0].index);
  const both = await model.zeroShot([picture(37), picture(41)], labels, { template: "{}!" });
  assert.equal(both.length, 2);
  for (const [call, key] of [
    [model.zeroShot(picture(37), []), "labels"],
    [model.zeroShot(picture(37), ["a"], { template: "no place" }), "template"],
    [model.classify(picture(37)), "output"],
    [model.attention(picture(37), { head: 1 }), "head"],
    [model.attention(picture(37), { layer: 9 }), "layer"],
  ]) {
    await assert.rejects(call, (error) => error instanceof BitpaneError && error.code === "BadArgument" && error.key === key);
  }
  await model.dispose();
});

test("patches and attention have the shape of the picture's grid", async () => {
  const { config } = await golden("dinov2");
  const model = await VisionModel.load(join(DATA, "dinov2.safetensors"), { config, overrides: { "*.weights_in.*": "Q8_0" } });
  assert.deepEqual([model.info.nLayer, model.info.nHead], [2, 4]);
  const patches = await model.patches(picture(37));
  assert.deepEqual(patches.shape, [4, 4, 32]);
  assert.equal(patches.values.length, 512);
  const rollout = await model.attention(picture(37));
  const layer = await model.attention(picture(37), { layer: 1, head: 2 });
  for (const map of [rollout, layer]) {
    assert.deepEqual(map.shape, [4, 4]);
    assert.ok(map.values.every((x) => x >= 0 && x <= 1));
  }
  assert.notDeepEqual(rollout.values, layer.values);
  const [first, second] = await model.classify([picture(37), picture(41)], { topK: 7 });
  assert.equal(first.length, 7);
  assert.notDeepEqual(first, second);
  await model.dispose();
  await assert.rejects(
    VisionModel.load(join(DATA, "dinov2.safetensors"), { config: { model_type: "swinv2" } }),
    (error) => error.code === "UnsupportedArch" && /swinv2/.test(error.message),
  );
  await assert.rejects(
    VisionModel.load(join(DATA, "dinov2.safetensors"), { config, overrides: { "*": "Q9" } }),
    (error) => error.code === "BadArgument" && error.key === "overrides",
  );
});
