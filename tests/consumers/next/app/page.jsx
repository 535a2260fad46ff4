"use client";
import { useTextModel, useVisionModel } from "bitpane/react";
import { useEffect } from "react";

export default function Page() {
  const lm = useTextModel("models/story.gguf");
  const vit = useVisionModel("models/photo.gguf");
  const { status, write } = lm;
  useEffect(() => {
    if (status === "ready") void write("Once upon a time", { maxTokens: 16, temperature: 0 });
  }, [status, write]);
  const done = status === "ready" && !lm.isWriting && lm.text !== "" && vit.status === "ready";
  useEffect(() => {
    const failure = lm.error ?? vit.error;
    if (failure) document.documentElement.dataset.result = JSON.stringify({ error: String(failure) });
    if (!done) return;
    const data = Uint8ClampedArray.from({ length: 64 * 64 * 4 }, (_, i) => (i % 4 === 3 ? 255 : (i * 37) % 251));
    const { build, threads } = lm.model.info.backend;
    vit.model.classify(new ImageData(data, 64, 64), { topK: 1 }).then(([best]) => {
      document.documentElement.dataset.result = JSON.stringify({ text: lm.text, label: best.label, build, threads });
    });
  }, [done, lm, vit]);
  return <main><p>{lm.text}</p><p>{status} {vit.status}</p></main>;
}
