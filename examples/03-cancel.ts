// Stop what is under way: a signal, a timeout, or leaving a loop.

import { MarlinError, Worker } from "marlin-torch";

await using worker = await Worker.spawn();
const itertools = worker.module("itertools");

// Leaving the loop stops the iteration in the worker, too.
for await (const number of itertools.attr("count")(1)) {
  console.log(number);
  if (number === 3) break;
}

// A signal rejects at once, wherever the worker is.
const controller = new AbortController();
const count = await itertools.attr("count")(1);
const loop = (async () => {
  for await (const number of count.with({ signal: controller.signal })) {
    if (number === 1000) controller.abort(new Error("seen enough"));
  }
})();
await loop.catch((error: unknown) => {
  if (MarlinError.isInstance(error)) console.log(`${error.code}: ${String(error.cause)}`);
});

// A timeout rejects, too. A Python call that cannot be interrupted ends in the worker in its own time.
const time = worker.module("time");
await time
  .attr("sleep")
  .with({ timeout: 50 })(0.2)
  .catch((error: unknown) => {
    if (MarlinError.isInstance(error)) console.log(error.code);
  });
