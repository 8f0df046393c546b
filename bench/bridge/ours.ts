// marlin-torch behind the interface of peers.ts, and what only it is asked: tensors that already lie in shared memory.

import { type Tensor, Worker } from "marlin-torch";
import { BENCH_FOLDER, type Bridge, repeat } from "./peers.ts";

/** Functions of target.py, as the client sees them. */
interface Target {
  noop(): null;
  size(values: Tensor): number;
  items(count: number): AsyncIterable<number>;
  resident(): readonly number[];
}

/** Resident bytes of the worker: anonymous memory, and pages of shared memory. */
export interface Resident {
  readonly anonymous: number;
  readonly shared: number;
}

/** Our bridge. `payload` passes a tensor in place; `copyIn` makes it anew for every call. */
export interface OurBridge extends Bridge {
  /** Path of the worker's Python. */
  python(): Promise<string>;
  copyIn(bytes: number): (count: number) => Promise<void>;
  /** How much the worker's memory grows by while it holds a tensor of `bytes` that was passed in place. */
  growth(bytes: number): Promise<Resident>;
}

/** Room for one 64 MiB tensor in each partition, and for the second one that `copyIn` makes before the first is free. */
const ARENA_BYTES = 512 * 2 ** 20;

export async function marlin(): Promise<OurBridge> {
  const worker = await Worker.spawn({ arenaBytes: ARENA_BYTES, env: { PYTHONPATH: BENCH_FOLDER } });
  const target = worker.module<Target>("target");
  const elements = (bytes: number) => bytes / Float32Array.BYTES_PER_ELEMENT;
  return {
    name: "marlin-torch",
    python: async () => worker.module("sys").attr<string>("executable"),
    empty: (count) => repeat(count, () => target.noop()),
    payload: (bytes) => {
      const tensor = worker.tensor(new Float32Array(elements(bytes)));
      return (count) => repeat(count, () => target.size(tensor));
    },
    copyIn: (bytes) => {
      const values = new Float32Array(elements(bytes));
      return (count) =>
        repeat(count, async () => {
          const tensor = worker.tensor(values);
          await target.size(tensor);
          tensor.dispose();
        });
    },
    async stream(count) {
      let received = 0;
      for await (const _ of target.items(count)) received++;
      if (received !== count) throw new Error(`marlin-torch streamed ${received} of ${count} items.`);
    },
    async growth(bytes) {
      const tensor = worker.tensor(new Float32Array(elements(bytes)).fill(1));
      const before = await residentOf(worker);
      // Held by a list in the worker, and read in full, so that all its pages are mapped there.
      await using held = await worker.module("builtins").attr("list")([tensor]);
      await using sum = await worker.module("torch").attr("sum")(tensor);
      const after = await residentOf(worker);
      void held;
      void sum;
      tensor.dispose();
      return { anonymous: after.anonymous - before.anonymous, shared: after.shared - before.shared };
    },
    close: () => worker.close(),
  };
}

async function residentOf(worker: Worker): Promise<Resident> {
  await using list = await worker.module("target").attr("resident")();
  const [anonymous = Number.NaN, shared = Number.NaN] = await list.data<readonly number[]>();
  return { anonymous, shared };
}
