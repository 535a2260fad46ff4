/**
 * The camera, looked at by a model: a new frame is taken only when the last one has been dealt
 * with. What comes meanwhile is dropped, so nothing piles up however slow the model is.
 */

/** A camera that runs. */
export interface Camera {
  stop: () => void;
}

/** How many frames were dealt with in the last second, and how many came. */
export interface Rates {
  seen: number;
  came: number;
}

/** Says why there is no camera, for people. */
export function whyNoCamera(error: unknown): string {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "NotAllowedError") return "The camera may not be used: the browser or the person said no.";
  if (name === "NotFoundError" || name === "OverconstrainedError") return "There is no camera here.";
  if (name === "NotReadableError") return "The camera is in use by another program.";
  return `The camera cannot be used: ${String(error)}`;
}

/** Starts the camera. `look` deals with a frame; `onRates` hears of the speed twice a second. */
export async function startCamera(
  video: HTMLVideoElement, look: (frame: HTMLVideoElement) => Promise<void>, onRates: (rates: Rates) => void,
): Promise<Camera> {
  if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("no camera", "NotFoundError");
  const stream = await navigator.mediaDevices.getUserMedia({
    video: { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "environment" }, audio: false,
  });
  video.srcObject = stream;
  await video.play();
  const facing = stream.getVideoTracks()[0]?.getSettings().facingMode;
  video.toggleAttribute("data-mirrored", facing === "user");
  let running = true;
  let busy = false;
  let seen = 0;
  let came = 0;
  const onFrame = (): void => {
    if (!running) return;
    video.requestVideoFrameCallback(onFrame);
    came += 1;
    if (busy) return; // dropped
    busy = true;
    void look(video).then(() => {
      seen += 1;
    }).finally(() => {
      busy = false;
    });
  };
  video.requestVideoFrameCallback(onFrame);
  let last = performance.now();
  const timer = setInterval(() => {
    const seconds = (performance.now() - last) / 1000;
    onRates({ seen: seen / seconds, came: came / seconds });
    [seen, came, last] = [0, 0, performance.now()];
  }, 500);
  return {
    stop: () => {
      running = false;
      clearInterval(timer);
      for (const track of stream.getTracks()) track.stop();
      video.srcObject = null;
    },
  };
}
