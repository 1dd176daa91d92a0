// Trains an example, so that the page stays free. Told by messages what to do, and tells what came of it.
import { load } from "./load.js";

const started = load();
/** How long a run of steps should take, so that a page that asks to stop is heard. */
const [LEAST, MOST] = [60, 120];

let trainer;
// The data that was loaded last.
let cache;
let isRunning = false;
/** Steps to take before listening again. */
let steps = 1;

/** A turn for the messages that wait. */
function listen() {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = resolve;
    port2.postMessage(0);
  });
}

function report(kind, json) {
  postMessage({ kind, ...JSON.parse(json) });
}

async function run() {
  isRunning = true;
  while (isRunning) {
    const before = performance.now();
    const taken = trainer.taken;
    const losses = trainer.step(steps);
    const time = performance.now() - before;
    const done = trainer.taken - taken;
    // The first steps also load the data.
    postMessage({ kind: "losses", losses, done, time: taken === 0 ? 0 : time, taken: trainer.taken, total: trainer.total, epoch: trainer.epoch });
    if (trainer.taken >= trainer.total) break;
    if (time < LEAST && taken !== 0) steps = Math.min(steps * 2, 2000);
    else if (time > MOST) steps = Math.max(steps >> 1, 1);
    if (taken === 0) steps = 8;
    await listen();
  }
  isRunning = false;
  report("report", trainer.report());
}

onmessage = async ({ data }) => {
  try {
    const { DataCache, Training } = await started;
    switch (data.kind) {
      case "start":
        trainer?.free();
        trainer = undefined;
        cache ??= new DataCache();
        trainer = new Training(data.name, data.args, cache);
        steps = 1;
        await run();
        break;
      case "go on":
        await run();
        break;
      case "stop":
        isRunning = false;
        break;
      case "look":
        report("look", trainer.look(data.pixels));
        break;
    }
  } catch (error) {
    isRunning = false;
    postMessage({ kind: "error", message: error.message ?? String(error) });
  }
};
