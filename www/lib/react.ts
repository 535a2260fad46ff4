/** Hooks for React 18 and 19. React itself is the application's: this package does not depend on it. */
import { useCallback, useEffect, useRef, useState } from "react";
import { TextModel, VisionModel } from "./index.js";
import type { GenerateOptions, Progress, Source, TextLoadOptions, VisionLoadOptions } from "./index.js";

/** How far a model is. */
export type ModelState<M> =
  | { status: "idle"; model: undefined; progress: undefined; error: undefined }
  | { status: "loading"; model: undefined; progress: Progress | undefined; error: undefined }
  | { status: "ready"; model: M; progress: undefined; error: undefined }
  | { status: "failed"; model: undefined; progress: undefined; error: unknown };

/** A language model in a component. */
export type TextModelHook = ModelState<TextModel> & {
  /** What the last `write` has written so far. */
  text: string;
  isWriting: boolean;
  /** Continues a prompt; `text` grows meanwhile. An earlier call is stopped. */
  write: (prompt: string, options?: GenerateOptions) => Promise<string>;
  /** Stops writing; `text` stays as it is. */
  stop: () => void;
};

const IDLE = { status: "idle", model: undefined, progress: undefined, error: undefined } as const;

interface Disposable {
  dispose: () => Promise<void>;
}

/** Loads a model for as long as a component is there; another source or other options load anew. */
function useModel<M extends Disposable, O extends object>(
  load: (source: Source, options: O & { signal: AbortSignal; onProgress: (progress: Progress) => void }) => Promise<M>,
  source: Source | null | undefined, options: O | undefined,
): ModelState<M> {
  const [state, setState] = useState<ModelState<M>>(IDLE);
  // An object literal is another one in each rendering: what counts is what it says.
  const key = JSON.stringify(options ?? {});
  useEffect(() => {
    if (source === null || source === undefined) {
      setState(IDLE);
      return undefined;
    }
    const stop = new AbortController();
    const isOver = (): boolean => stop.signal.aborted;
    setState({ status: "loading", model: undefined, progress: undefined, error: undefined });
    const onProgress = (progress: Progress): void => {
      if (!isOver()) setState({ status: "loading", model: undefined, progress, error: undefined });
    };
    const loaded = load(source, { ...(JSON.parse(key) as O), signal: stop.signal, onProgress });
    loaded.then(
      (model) => {
        if (!isOver()) setState({ status: "ready", model, progress: undefined, error: undefined });
      },
      (error: unknown) => {
        if (!isOver()) setState({ status: "failed", model: undefined, progress: undefined, error });
      },
    );
    return () => {
      stop.abort();
      loaded.then((model) => model.dispose(), () => undefined);
    };
  }, [load, source, key]);
  return state;
}

/** A language model. `source` null or undefined loads nothing yet. Options have to be JSON; callbacks are the hook's. */
export function useTextModel(source: Source | null | undefined, options?: Omit<TextLoadOptions, "signal" | "onProgress">): TextModelHook {
  const state = useModel(loadText, source, options);
  const [text, setText] = useState("");
  const [isWriting, setWriting] = useState(false);
  const running = useRef<AbortController | undefined>(undefined);
  const { model } = state;
  const stop = useCallback(() => running.current?.abort(), []);
  const write = useCallback(async (prompt: string, given: GenerateOptions = {}): Promise<string> => {
    if (!model) throw new Error("the model is not ready yet");
    running.current?.abort();
    const current = new AbortController();
    running.current = current;
    let all = "";
    setText("");
    setWriting(true);
    try {
      for await (const piece of model.generate(prompt, { ...given, signal: current.signal })) {
        all += piece.text;
        if (running.current === current) setText(all);
      }
    } catch (error) {
      if (!current.signal.aborted) throw error;
    } finally {
      if (running.current === current) setWriting(false);
    }
    return all;
  }, [model]);
  useEffect(() => stop, [model, stop]);
  return { ...state, text, isWriting, write, stop };
}

/** A classifier. `source` null or undefined loads nothing yet. */
export function useVisionModel(source: Source | null | undefined, options?: Omit<VisionLoadOptions, "signal" | "onProgress">): ModelState<VisionModel> {
  return useModel(loadVision, source, options);
}

const loadText = (source: Source, options: TextLoadOptions): Promise<TextModel> => TextModel.load(source, options);
const loadVision = (source: Source, options: VisionLoadOptions): Promise<VisionModel> => VisionModel.load(source, options);
