// A program that leaves everything open and has nothing left to do.

import { kwargs, Worker } from "marlin-torch";

const worker = await Worker.spawn({ arenaBytes: 1024 * 1024, threads: 1 });
const torch = worker.module("torch");
const tensor = worker.tensor([1, 2, 3]);
const handle = await torch.ones([3], kwargs({ dtype: torch.float32 }));
const sum = await torch.attr("add")(tensor, handle);
const view = await sum.data();
const numbers = worker.module("itertools").attr("count")(1)[Symbol.asyncIterator]();
const { value } = await numbers.next();
worker.on("exit", () => console.log("never: this process ends first"));
console.log(JSON.stringify({ worker: worker.info.pid, view: [...view].map(Number), value }));
