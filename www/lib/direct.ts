/**
 * The package for threads that can start no workers: SharedWorkers, service workers. The runtime then
 * computes in the thread that imports this, which cannot do anything else meanwhile, and has one model at
 * a time. Import from here instead of the main entry; everything else is the same.
 */
import { BitpaneError } from "./errors.js";
import { forget } from "./handlers.js";
import { host, type HostWorker } from "./host.js";
import { serve, type Port } from "./serving.js";

export * from "./index.js";

let isTaken = false;
let free = Promise.resolve();

host.whenFree = () => free;

host.startWorker = (): HostWorker => {
  if (isTaken) throw new BitpaneError("BadArgument", "without workers there is one model at a time: dispose of the other first");
  isTaken = true;
  const { port1, port2 } = new MessageChannel();
  const { ended } = serve(port2 as unknown as Port);
  return {
    get onmessage() {
      return port1.onmessage as HostWorker["onmessage"];
    },
    set onmessage(listener) {
      port1.onmessage = listener;
    },
    onmessageerror: null,
    onerror: null,
    postMessage: (message, transfer) => port1.postMessage(message, transfer),
    terminate: () => {
      port1.close();
      // What is under way ends first; then the memory is free for the next model.
      free = ended().then(() => {
        port2.close();
        forget();
        isTaken = false;
      });
    },
  };
};
