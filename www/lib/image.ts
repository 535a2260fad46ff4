/** Images: from whatever shows one, to a message, to pixels. */
import { badArgument, BitpaneError } from "./errors.js";
import type { Region, WireImage, WirePixels } from "./protocol.js";
import type { ImageSource, PixelData, Resizing } from "./types.js";

/** An image made ready to post, and what has to be transferred with it. */
export interface PostableImage {
  image: WireImage;
  transfer: Transferable[];
}

/**
 * Takes pixels as they are stored: without colour management, without alpha multiplied in; but upright, as the
 * orientation in a photo's EXIF block says.
 */
const AS_STORED: ImageBitmapOptions = { premultiplyAlpha: "none", colorSpaceConversion: "none", imageOrientation: "from-image" };

/**
 * Most pixels of a bitmap that are read where it is given: some 3 ms. What is larger is copied and read in the
 * worker, so that the page stays responsive.
 */
const READ_HERE = 1 << 20;

/**
 * The part of an image that is read when it is resized and cut, and a few pixels around it: the runtime, which resizes,
 * knows exactly and refuses a part that is too small.
 */
export function seenPart({ resize, stretch, crop, support }: Resizing, width: number, height: number): Region {
  const short = Math.min(width, height);
  const span = (length: number): [from: number, length: number] => {
    const step = length / (stretch ? resize : Math.floor((resize * length) / short));
    // Half of the square, which may lie half a pixel beside the middle; what the filter takes in; and what is rounded.
    const half = (crop / 2 + 1) * step + support * Math.max(1, step) + 1;
    const from = Math.max(0, Math.floor(length / 2 - half));
    return [from, Math.min(length, Math.ceil(length / 2 + half)) - from];
  };
  const [[x, columns], [y, rows]] = [span(width), span(height)];
  return { x, y, width: columns, height: rows };
}

/** Makes an image ready to post for a model that resizes so. What the caller gave stays usable: it is copied. */
export async function postableImage(source: ImageSource, resizing: Resizing): Promise<PostableImage> {
  if (source instanceof Blob) return { image: source, transfer: [] };
  if (is<ImageBitmap>(source, "ImageBitmap")) return bitmapToPost(source, resizing);
  if (isElement(source)) return copied(source);
  const { data, width, height } = pixelsOf(source);
  return posted({ data: data.slice(), width, height });
}

function posted(image: WirePixels): PostableImage {
  return { image, transfer: [image.data.buffer as ArrayBuffer] };
}

/** Engines take ten milliseconds and more to post a bitmap that is not given away. */
async function bitmapToPost(bitmap: ImageBitmap, resizing: Resizing): Promise<PostableImage> {
  const part = seenPart(resizing, bitmap.width, bitmap.height);
  if (typeof OffscreenCanvas === "function" && part.width * part.height <= READ_HERE) return posted(drawn(bitmap, part));
  try {
    const copy = await createImageBitmap(bitmap);
    return { image: copy, transfer: [copy] };
  } catch (cause) {
    throw new BitpaneError("ImageDecodeError", "the bitmap cannot be read: it may be closed", { cause });
  }
}

async function copied(source: ImageElement): Promise<PostableImage> {
  try {
    const bitmap = await createImageBitmap(source, AS_STORED);
    return { image: bitmap, transfer: [bitmap] };
  } catch (cause) {
    throw new BitpaneError("ImageDecodeError", "the element shows no image that can be read", { cause });
  }
}

type ImageElement = Exclude<ImageSource, Blob | ImageBitmap | PixelData>;

function isElement(source: unknown): source is ImageElement {
  const names = ["HTMLImageElement", "HTMLCanvasElement", "HTMLVideoElement", "VideoFrame", "OffscreenCanvas"];
  return names.some((name) => is(source, name));
}

/** Classes are looked up by name: most of these do not exist in a worker, and none of them in Node. */
function is<T>(source: unknown, name: string): source is T {
  const kind = (globalThis as Record<string, unknown>)[name];
  return typeof kind === "function" && source instanceof kind;
}

function pixelsOf(source: unknown): PixelData {
  const { data, width, height } = (source ?? {}) as Partial<Record<keyof PixelData, unknown>>;
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray) || typeof width !== "number" || typeof height !== "number") {
    throw badArgument("image", "an image must be a Blob, ImageBitmap, ImageData, canvas, img, video, or pixels: { data, width, height }");
  }
  if (!Number.isSafeInteger(width * height) || width < 1 || height < 1 || data.length !== width * height * 4) {
    throw badArgument("image", `pixels must have four bytes each: ${data.length} bytes are not those of ${width} x ${height}`);
  }
  return { data, width, height };
}

/** The pixels of a posted image that a model sees which resizes so, four bytes each: red, green, blue, alpha. */
export async function readPixels(image: WireImage, resizing: Resizing): Promise<WirePixels> {
  if (!(image instanceof Blob) && !is<ImageBitmap>(image, "ImageBitmap")) return image;
  if (typeof createImageBitmap !== "function") {
    throw new BitpaneError("RuntimeUnavailable", "nothing here decodes images: give the pixels, { data, width, height }");
  }
  const bitmap = image instanceof Blob ? await decode(image) : image;
  try {
    return drawn(bitmap, seenPart(resizing, bitmap.width, bitmap.height));
  } finally {
    bitmap.close();
  }
}

/** Most pixels of a canvas that is kept: 16 MiB. */
const MOST_KEPT = 1 << 22;
/** The last canvas: making one takes several times as long as reading it. */
let kept: OffscreenCanvasRenderingContext2D | undefined;

/** A part of the pixels of a bitmap. */
function drawn(bitmap: ImageBitmap, part: Region): WirePixels {
  const { width, height } = bitmap;
  try {
    const context = canvasOf(part.width, part.height);
    context.drawImage(bitmap, -part.x, -part.y);
    return { data: context.getImageData(0, 0, part.width, part.height).data, width, height, part };
  } catch (cause) {
    if (cause instanceof BitpaneError) throw cause;
    throw new BitpaneError("ImageDecodeError", `the pixels of the image (${width} x ${height}) cannot be read`, { cause });
  }
}

/** A canvas of that size, where what was drawn before does not shine through. */
function canvasOf(width: number, height: number): OffscreenCanvasRenderingContext2D {
  if (kept?.canvas.width === width && kept.canvas.height === height) return kept;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new BitpaneError("RuntimeUnavailable", "there is no 2D canvas here");
  context.globalCompositeOperation = "copy";
  kept = width * height <= MOST_KEPT ? context : undefined;
  return context;
}

async function decode(blob: Blob): Promise<ImageBitmap> {
  try {
    return await createImageBitmap(blob, AS_STORED);
  } catch (cause) {
    const type = blob.type || "of unknown type";
    throw new BitpaneError("ImageDecodeError", `the image (${type}) cannot be decoded`, { cause });
  }
}
