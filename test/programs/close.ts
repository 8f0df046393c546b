// Closes a worker that can only be killed, and goes on.

import { Worker } from "marlin-torch";

const worker = await Worker.spawn({ arenaBytes: 1024 * 1024, threads: 1 });
process.kill(worker.info.pid, "SIGSTOP");
await worker.close({ grace: 100 });
console.log(JSON.stringify({ worker: worker.info.pid }));
