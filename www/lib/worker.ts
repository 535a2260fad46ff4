/** The worker of a model. */
import { serve } from "./serving.js";

export type { Context } from "./serving.js";

serve(self as unknown as Parameters<typeof serve>[0]);
