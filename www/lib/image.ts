/** Images: from whatever shows one, to a message, to pixels. */
import { badArgument, BitpaneError } from "./errors.js";
import type { WireImage } from "./protocol.js";
import type { ImageSource } from "./types.js";

/** An image made ready to post, and what has to be transferred with it. */
export interface PostableImage {
  image: WireImage;
  transfer: Transferable[];
}

/** Takes pixels as they are stored: without colour management, without alpha multiplied in. */
const AS_STORED: ImageBitmapOptions = { premultiplyAlpha: "none", colorSpaceConversion: "none" };

/** Makes an image ready to post. What the caller gave stays usable: elements are copied. */
export async function postableImage(source: ImageSource): Promise<PostableImage> {
  if (source instanceof Blob || source instanceof ImageData || source instanceof ImageBitmap) {
    return { image: source, transfer: [] };
  }
  if (!isElement(source)) {
    throw badArgument("image", "an image must be a Blob, ImageBitmap, ImageData, canvas, img or video");
  }
  try {
    const bitmap = await createImageBitmap(source, AS_STORED);
    return { image: bitmap, transfer: [bitmap] };
  } catch (cause) {
    throw new BitpaneError("ImageDecodeError", "the element shows no image that can be read", { cause });
  }
}

type ImageElement = Exclude<ImageSource, Blob | ImageData | ImageBitmap>;

/** Looked up by name: most of these classes do not exist in a worker. */
function isElement(source: unknown): source is ImageElement {
  const names = ["HTMLImageElement", "HTMLCanvasElement", "HTMLVideoElement", "OffscreenCanvas"];
  return names.some((name) => {
    const kind = (globalThis as Record<string, unknown>)[name];
    return typeof kind === "function" && source instanceof kind;
  });
}

/** The pixels of a posted image at its full size, four bytes each: red, green, blue, alpha. */
export async function readPixels(image: WireImage): Promise<ImageData> {
  if (image instanceof ImageData) return image;
  const bitmap = image instanceof ImageBitmap ? image : await decode(image);
  try {
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
    if (!context) throw new BitpaneError("RuntimeUnavailable", "there is no 2D canvas here");
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  } catch (cause) {
    if (cause instanceof BitpaneError) throw cause;
    const size = `${bitmap.width} x ${bitmap.height}`;
    throw new BitpaneError("ImageDecodeError", `the pixels of the image (${size}) cannot be read`, { cause });
  } finally {
    bitmap.close();
  }
}

async function decode(blob: Blob): Promise<ImageBitmap> {
  try {
    return await createImageBitmap(blob, AS_STORED);
  } catch (cause) {
    const type = blob.type || "of unknown type";
    throw new BitpaneError("ImageDecodeError", `the image (${type}) cannot be decoded`, { cause });
  }
}
