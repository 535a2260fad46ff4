/** What every consumer does: a story and the classes of a drawing, as a result that the tests compare. */
import { TextModel, VisionModel } from "bitpane";

async function run() {
  const lm = await TextModel.load("models/story.gguf");
  let text = "";
  for await (const piece of lm.generate("Once upon a time", { maxTokens: 16, temperature: 0 })) text += piece.text;
  const vit = await VisionModel.load("models/photo.gguf");
  const data = Uint8ClampedArray.from({ length: 64 * 64 * 4 }, (_, i) => (i % 4 === 3 ? 255 : (i * 37) % 251));
  const [best] = await vit.classify(new ImageData(data, 64, 64), { topK: 1 });
  const { build, threads } = lm.info.backend;
  await Promise.all([lm.dispose(), vit.dispose()]);
  return { text, label: best.label, build, threads };
}

run().then(
  (result) => { document.documentElement.dataset.result = JSON.stringify(result); },
  (error) => { document.documentElement.dataset.result = JSON.stringify({ error: `${error} ${error.cause ?? ""}` }); },
);
