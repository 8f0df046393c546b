// A program in the middle of a call that does not end, for tests that end it from outside.

import { Worker } from "marlin-torch";

const worker = await Worker.spawn({ arenaBytes: 1024 * 1024, threads: 1 });
const slept = worker.module("time").attr("sleep")(3600);
await worker.ping();
console.log(JSON.stringify({ worker: worker.info.pid }));
await slept;
