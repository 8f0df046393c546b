// A program in the middle of a call that holds the lock of the Python interpreter and does not end.

import { Worker } from "marlin-torch";

const worker = await Worker.spawn({ arenaBytes: 1024 * 1024, threads: 1 });
const libc = await worker.module("ctypes").attr("PyDLL")(null);
const slept = libc.attr("sleep")(3600);
console.log(JSON.stringify({ worker: worker.info.pid }));
await slept;
