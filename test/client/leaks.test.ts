// Calls, streams, scopes and tensors at random, cancelled at random moments: in the end neither side holds anything.

import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { expect, test } from "vitest";
import { isHandle } from "../../src/client/proxy.ts";
import { kwargs, type Untyped } from "../../src/client/types.ts";
import type { Worker } from "../../src/client/worker.ts";
import { MarlinError } from "../../src/errors.ts";
import { type Fixture, MEBIBYTE, spawnWorker } from "./spawn.ts";

type Fixtures = ReturnType<typeof fixtures>;

const fixtures = (worker: Worker, signal: AbortSignal) =>
  worker.module<Untyped<"Counted" | "boxes" | "broken" | "echo" | "endless">>("marlin_fixture").with({ signal });

/** What is made in each ends with the scope around it, at the latest. */
const ACTIONS: Readonly<Record<string, (worker: Worker, m: Fixtures) => Promise<unknown>>> = {
  call: (_, m) => m.echo(1),
  handle: async (_, m) => (await m.Counted()).dispose(),
  nested: async (worker, m) => m.echo(await m.Counted(), worker.tensor([1])),
  names: async (worker, m) => m.echo(worker.module("torch").float16, worker.module("math")),
  tensor: async (worker, m) => {
    using tensor = worker.tensor(new Float32Array(5000));
    using handle = await m.echo(tensor, kwargs({ also: tensor }));
    await handle.data(); // tensors over the block of `tensor`, which the scope frees
  },
  view: async (worker, m) => {
    using handle = await worker.empty("float32", [5000]);
    await (await m.echo(handle)).data({ copy: true });
  },
  items: async (_, m) => {
    let left = 3;
    for await (const box of m.boxes(20)) {
      dispose(box);
      if (--left === 0) break;
    }
  },
  endless: async (_, m) => {
    for await (const number of m.endless()) if (number === 60) break;
  },
  broken: async (_, m) => {
    for await (const number of m.broken(3)) dispose(number);
  },
};

test("nothing is left by calls that are cancelled at any moment", async () => {
  await using worker = await spawnWorker({ arenaBytes: 64 * MEBIBYTE });
  const step = fc.record({
    action: fc.constantFrom(...Object.keys(ACTIONS)),
    abortAfter: fc.option(fc.integer({ min: 0, max: 4 })),
  });
  const run = fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 40 }), async (steps) => {
    await Promise.all(
      steps.map(async ({ action, abortAfter }) => {
        const controller = new AbortController();
        if (abortAfter !== null) void sleep(abortAfter).then(() => controller.abort());
        try {
          await worker.scope(async () => {
            await ACTIONS[action]?.(worker, fixtures(worker, controller.signal));
          });
        } catch (error) {
          // Python's error of `broken`, or the abort: anything else is a fault.
          if (!MarlinError.isInstance(error) || !["python_error", "cancelled"].includes(error.code)) throw error;
        }
      }),
    );
    await expect
      .poll(() => worker.stats(), { timeout: 30_000 })
      .toMatchObject({ handles: 0, blocks: 0, queued: 0, streams: 0, arena: { blocks: 0 } });
    expect(await worker.module<Fixture>("marlin_fixture").living()).toBe(0);
  });
  await fc.assert(run, { numRuns: 15 });
});

function dispose(value: unknown): void {
  if (isHandle(value)) value.dispose();
}
