// Drops handles, tensors and views without disposing of them, and waits for garbage collection to give them back.
// Run with --expose-gc. Prints what was held before and after.

import { setImmediate as nextTurn } from "node:timers/promises";
import { Worker, type WorkerStats } from "marlin-torch";

const COUNT = 50;
const ELEMENTS = 4096;

await using worker = await Worker.spawn({ arenaBytes: 16 * 1024 * 1024, threads: 1 });
const torch = worker.module("torch");

const before = await worker.stats();
await litter();
const held = await worker.stats();
const after = await collectUntil(
  (stats) => stats.handles === before.handles && stats.arena?.blocks === 0 && stats.blocks === 0,
);

// A view keeps its memory when everything else is gone; its subarray does as well.
const view = await viewOfForgottenHandle();
const part = (await viewOfForgottenTensor()).subarray(10, 20);
await collectUntil((stats) => stats.handles === 0 && stats.blocks === 1 && stats.arena?.blocks === 1);
for (let i = 0; i < 100; i++) worker.tensor(new Float32Array(ELEMENTS).fill(9)).dispose();
const kept = { view: view.every((value) => value === 5), part: part.every((value) => value === 6) };

// What was disposed of is not given back a second time: the worker would refuse that and end the session.
await disposeAndForget();
await collectUntil((stats) => stats.handles === 0);
console.log(JSON.stringify({ before, held, after, kept, isAlive: (await worker.ping()).queued === 0 }));

async function litter(): Promise<void> {
  for (let i = 0; i < COUNT; i++) {
    const handle = await torch.ones(ELEMENTS);
    await handle.data();
    worker.tensor(new Float32Array(ELEMENTS));
  }
}

async function viewOfForgottenHandle(): Promise<Float32Array> {
  const handle = await torch.full([ELEMENTS], 5);
  return (await handle.float()).data<Float32Array>();
}

async function viewOfForgottenTensor(): Promise<Float32Array> {
  return worker.tensor(new Float32Array(ELEMENTS).fill(6)).data;
}

async function disposeAndForget(): Promise<void> {
  for (let i = 0; i < COUNT; i++) {
    (await torch.ones(1)).dispose();
    worker.tensor([1]).dispose();
  }
}

/** Collects until `isDone`; the program that runs this one has a deadline. */
async function collectUntil(isDone: (stats: WorkerStats) => boolean): Promise<WorkerStats> {
  for (;;) {
    globalThis.gc?.();
    await nextTurn();
    const stats = await worker.stats();
    if (isDone(stats)) return stats;
  }
}
