// Gives up a call that Python does not end, and has nothing left to do.

import { MarlinError, Worker } from "marlin-torch";

const worker = await Worker.spawn({ arenaBytes: 1024 * 1024, threads: 1 });
const code = await worker
  .module("time")
  .with({ timeout: 100 })
  .attr("sleep")(3600)
  .catch((error: unknown) => MarlinError.isInstance(error) && error.code);
console.log(JSON.stringify({ worker: worker.info.pid, code }));
