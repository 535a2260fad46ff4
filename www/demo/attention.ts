/** Where the model looked: its attention over the picture, as a veil that is thin where it looked most. */
import type { Tensor } from "./pkg/index.js";

/** Opacity of the veil where the model looked least. */
const DARKEST = 0.82;

/** The part of a box that a picture of this size fills when it is shown whole. */
function shownPart(width: number, height: number, box: DOMRect): { x: number; y: number; w: number; h: number } {
  const scale = Math.min(box.width / width, box.height / height);
  const [w, h] = [width * scale, height * scale];
  return { x: (box.width - w) / 2, y: (box.height - h) / 2, w, h };
}

/**
 * Draws attention, [rows, columns], over a picture of this size. Values are made relative: from the least to the
 * greatest in the picture.
 */
export function drawAttention(canvas: HTMLCanvasElement, { shape, values }: Tensor, width: number, height: number): void {
  const [rows, columns] = shape;
  const context = canvas.getContext("2d");
  if (!rows || !columns || values.length !== rows * columns || !context) return;
  const least = Math.min(...values);
  const range = Math.max(...values) - least || 1;
  const veil = new ImageData(columns, rows);
  values.forEach((value, i) => {
    veil.data[4 * i + 3] = 255 * DARKEST * (1 - (value - least) / range);
  });
  const small = new OffscreenCanvas(columns, rows);
  small.getContext("2d")?.putImageData(veil, 0, 0);
  const box = canvas.getBoundingClientRect();
  canvas.width = Math.round(box.width * devicePixelRatio);
  canvas.height = Math.round(box.height * devicePixelRatio);
  context.scale(devicePixelRatio, devicePixelRatio);
  const { x, y, w, h } = shownPart(width, height, box);
  context.imageSmoothingQuality = "high";
  // Models look at the square in the middle; what is outside of it they do not see.
  const side = Math.min(w, h);
  const [left, top] = [x + (w - side) / 2, y + (h - side) / 2];
  context.fillStyle = `rgb(0 0 0 / ${DARKEST})`;
  context.fillRect(x, y, w, h);
  context.clearRect(left, top, side, side);
  context.drawImage(small, left, top, side, side);
}
