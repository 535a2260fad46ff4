import { TextModel, VisionModel } from "bitpane";

const lm = await TextModel.load("models/story.gguf");
let text = "";
for await (const piece of lm.generate("Once upon a time", { maxTokens: 16, temperature: 0 })) text += piece.text;
const vit = await VisionModel.load("models/photo.gguf");
const data = Uint8ClampedArray.from({ length: 64 * 64 * 4 }, (_, i) => (i % 4 === 3 ? 255 : (i * 37) % 251));
const [best] = await vit.classify({ data, width: 64, height: 64 }, { topK: 1 });
const { build, threads } = lm.info.backend;
console.log(JSON.stringify({ text, label: best.label, build, threads }));
