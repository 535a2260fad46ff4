/** Images from whatever shows one, in Chromium: the same picture gives the same answer. And quantized CNNs from .tflite files. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, openPage, serve, SHARED, unlessBuiltIn, unlessShared, withPackage } from "./harness.mjs";

const MODELS = ["mobilenet_v2_1.0_224_quant", "tf2_mobilenet_v2_1.0_224_ptq"];
const GOLDENS = JSON.parse(readFileSync(new URL("../data/litert_goldens.json", import.meta.url), "utf8"));
/** Of 256: where LiteRT is as sure as this, how exactly the photo was resized does not decide. */
const SURE = 160;

let server, browser, opened;
before(async () => {
  [server, browser] = await Promise.all([serve(), launch()]);
  opened = await openPage(browser, `${server.url}blank.html`);
});
after(async () => {
  await browser?.close();
  await server?.close();
});

/** What the page's functions below share, as text for them. */
const COMMON = `
  const opaque = (width, height) => {
    const data = new Uint8ClampedArray(width * height * 4);
    for (let i = 0; i < data.length; i += 1) {
      const [x, y] = [(i >> 2) % width, Math.floor((i >> 2) / width)];
      data[i] = i % 4 === 3 ? 255 : (x * (3 + (i % 4)) + y * 5 + ((x >> 3) ^ (y >> 3)) * 17) % 256;
    }
    return { data, width, height };
  };
  const canvasOf = ({ data, width, height }) => {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
    return canvas;
  };
  const readBack = (bitmap) => {
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const { data, width, height } = context.getImageData(0, 0, bitmap.width, bitmap.height);
    return { data, width, height };
  };
  const loaded = async () => (globalThis.photo ??= await bitpane.VisionModel.load("/models/photo.gguf", { threads: 1, cache: false }));
`;

const inPage = (run, args) => withPackage(opened.page, `async (bitpane, args) => { ${COMMON} return (${run})(bitpane, args); }`, args);

test("pixels, ImageData, bitmaps, canvases and frames of a video give the same vector", { skip: unlessBuiltIn("photo") }, async () => {
  for (const [width, height] of [[61, 40], [1300, 900]]) {
    const found = await inPage(`async (_, [width, height]) => {
      const model = await loaded();
      const pixels = opaque(width, height);
      const canvas = canvasOf(pixels);
      const offscreen = new OffscreenCanvas(width, height);
      offscreen.getContext("2d").drawImage(canvas, 0, 0);
      const bitmap = await createImageBitmap(canvas);
      const frame = new VideoFrame(canvas, { timestamp: 0 });
      const png = await new Promise((made) => canvas.toBlob(made, "image/png"));
      const image = new Image();
      image.src = URL.createObjectURL(png);
      await image.decode();
      const sources = {
        pixels, imageData: new ImageData(pixels.data, width, height), bitmap, "bitmap again": bitmap, canvas, offscreen, frame, png, image,
      };
      const vectors = {};
      for (const [name, source] of Object.entries(sources)) vectors[name] = Array.from(await model.features(source));
      const left = [pixels.data.length, bitmap.width, frame.codedWidth];
      frame.close();
      return { vectors, left };
    }`, [width, height]);
    const { pixels, ...others } = found.vectors;
    assert.ok(pixels.length > 0 && pixels.every(Number.isFinite));
    for (const [name, vector] of Object.entries(others)) assert.deepEqual(vector, pixels, `${name}, ${width} x ${height}`);
    assert.deepEqual(found.left, [width * height * 4, width, width], "what was given stays usable");
  }
});

/** Ways to bring an image to the model's 32 pixels: by the short side or by both, with each of the filters. */
const RESIZINGS = [
  { size: { shortest_edge: 36 }, crop_size: 32, do_center_crop: true, resample: 3 },
  { size: { shortest_edge: 43 }, crop_size: 32, do_center_crop: true, resample: 1 },
  { size: { shortest_edge: 32 }, crop_size: 32, do_center_crop: true, resample: 2 },
  { size: { height: 64, width: 64 }, crop_size: 32, do_center_crop: true, resample: 0 },
  { size: { height: 32, width: 32 }, resample: 3 },
];

test("of bitmaps only what the model sees is read, and the vector is that of all pixels", { skip: unlessBuiltIn("photo") }, async () => {
  const sizes = [[1, 1], [7, 90], [257, 256], [300, 1111], [929, 512]];
  for (const resizing of RESIZINGS) {
    const differ = await inPage(`async (bitpane, { resizing, sizes }) => {
      const model = await bitpane.VisionModel.load("/models/photo.gguf", { threads: 1, cache: false, preprocessor: resizing });
      const differ = [];
      for (const [width, height] of sizes) {
        const pixels = opaque(width, height);
        const canvas = canvasOf(pixels);
        // Pixels are given as a whole.
        const [whole, part, inWorker] = [
          await model.features(pixels), await model.features(await createImageBitmap(canvas)), await model.features(canvas),
        ];
        if (whole.some((x, i) => x !== part[i] || x !== inWorker[i])) differ.push([width, height]);
      }
      await model.dispose();
      return differ;
    }`, { resizing, sizes });
    assert.deepEqual(differ, [], JSON.stringify(resizing));
  }
});

test("a bitmap that is closed is a typed error, and the model goes on", { skip: unlessBuiltIn("photo") }, async () => {
  const codes = await inPage(`async () => {
    const model = await loaded();
    const bitmap = await createImageBitmap(canvasOf(opaque(20, 20)));
    bitmap.close();
    const code = await model.features(bitmap).then(() => "none", (error) => error.code);
    return [code, (await model.classify(opaque(20, 20), { topK: 2 })).length];
  }`);
  assert.deepEqual(codes, ["ImageDecodeError", 2]);
});

test("photos stand upright as their EXIF block says, all eight ways", { skip: unlessBuiltIn("photo") }, async () => {
  const wrong = await inPage(`async () => {
    const model = await loaded();
    const jpeg = new Uint8Array(await (await new Promise((made) => canvasOf(opaque(48, 32)).toBlob(made, "image/jpeg", 0.95))).arrayBuffer());
    // After the first marker: APP1 with a TIFF block, little-endian, whose one entry (0x112) is the orientation.
    const withOrientation = (n) => {
      const tiff = [0x49, 0x49, 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, n, 0, 0, 0, 0, 0, 0, 0];
      const app1 = [0xff, 0xe1, 0, 2 + 6 + tiff.length, 0x45, 0x78, 0x69, 0x66, 0, 0, ...tiff];
      return new Blob([jpeg.slice(0, 2), new Uint8Array(app1), jpeg.slice(2)], { type: "image/jpeg" });
    };
    const stored = readBack(await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }), { colorSpaceConversion: "none" }));
    const { width: w, height: h } = stored;
    // Where the pixel that is shown at (x, y) is stored.
    const places = [
      (x, y) => [x, y], (x, y) => [w - 1 - x, y], (x, y) => [w - 1 - x, h - 1 - y], (x, y) => [x, h - 1 - y],
      (x, y) => [y, x], (x, y) => [y, h - 1 - x], (x, y) => [w - 1 - y, h - 1 - x], (x, y) => [w - 1 - y, x],
    ];
    const wrong = [];
    for (const [i, place] of places.entries()) {
      const [width, height] = i < 4 ? [w, h] : [h, w];
      const data = new Uint8ClampedArray(stored.data.length);
      for (let at = 0; at < width * height; at += 1) {
        const [x, y] = place(at % width, Math.floor(at / width));
        data.set(stored.data.subarray((y * w + x) * 4, (y * w + x) * 4 + 4), at * 4);
      }
      const [shown, expected] = [await model.features(withOrientation(i + 1)), await model.features({ data, width, height })];
      if (shown.some((x, j) => x !== expected[j])) wrong.push(i + 1);
    }
    const differ = new Set(await Promise.all(places.map(async (_, i) => String(await model.features(withOrientation(i + 1))))));
    return { wrong, differ: differ.size };
  }`);
  assert.deepEqual(wrong, { wrong: [], differ: 8 });
});

test("a .tflite file is told as what it can be loaded as, and the page opens it", { skip: unlessShared(`data/cnn/${MODELS[0]}.tflite`) }, async () => {
  const header = await inPage(`async (bitpane, url) => {
    const { container, kind, architecture, tensors } = await bitpane.inspect(url);
    return { container, kind, architecture, tensors: tensors.length };
  }`, `/shared/data/cnn/${MODELS[0]}.tflite`);
  assert.deepEqual({ ...header, tensors: header.tensors > 50 }, { container: "tflite", kind: "vision", architecture: "qcnn", tensors: true });
  const { page, close } = await openPage(browser, server.url);
  try {
    await page.setInputFiles("#open-file", join(SHARED, `data/cnn/${MODELS[0]}.tflite`));
    await page.waitForFunction(() => /is ready|cannot be opened/.test(document.body.textContent));
    assert.match(await page.evaluate(() => document.body.textContent), /\.tflite is ready/);
  } finally {
    await close();
  }
});

for (const name of MODELS) {
  const skip = unlessShared(`data/cnn/${name}.tflite`, "data/images/bird.bmp");
  test(`${name}.tflite sees in photos what LiteRT sees`, { skip }, async () => {
    const photos = GOLDENS.filter(({ model, top }) => model === name && top[0][1] >= SURE);
    assert.ok(photos.length >= 3, `${photos.length} photos`);
    const found = await inPage(`async (bitpane, { name, files }) => {
      const model = await bitpane.VisionModel.load("/shared/data/cnn/" + name + ".tflite", { threads: 1, cache: false });
      const best = [];
      for (const file of files) {
        const blob = await (await fetch("/shared/data/images/" + file)).blob();
        best.push((await model.classify(blob, { topK: 1 }))[0].index);
      }
      await model.dispose();
      return best;
    }`, { name, files: photos.map(({ file }) => file) });
    assert.deepEqual(found, photos.map(({ top }) => top[0][0]));
  });
}

test("the page has done nothing else", () => assert.deepEqual(opened.faults, []));
