// A worker that runs already, reached over tcp: no shared memory, the same API.

import { createServer } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isHandle } from "../../src/client/proxy.ts";
import type { Tensor } from "../../src/client/tensor.ts";
import type { Untyped } from "../../src/client/types.ts";
import { Worker } from "../../src/client/worker.ts";
import { decodeMessage, encodeMessage } from "../../src/codec.ts";
import {
  CancelledError,
  ConnectError,
  ConnectionClosedError,
  InvalidArgumentError,
  MessageTooLargeError,
} from "../../src/errors.ts";
import { type Message, PROTOCOL_VERSION } from "../../src/protocol.ts";
import { connectZeromq } from "../../src/transports/zeromq.ts";
import { startWorkerProcess, type WorkerProcess } from "../../src/worker-process.ts";
import { FIXTURES } from "./spawn.ts";

let server: WorkerProcess;
let worker: Worker;
beforeAll(async () => {
  server = startWorkerProcess({
    endpoint: `tcp://127.0.0.1:${await freePort()}`,
    threads: 1,
    env: { PYTHONPATH: FIXTURES },
  });
  worker = await Worker.connect(server.endpoint, { timeout: 60_000 });
});
afterAll(async () => {
  await worker.close();
  await server.stop();
});

const fixture = () =>
  worker.module<Untyped<"Box" | "arrays" | "countdown" | "describe" | "echo" | "total">>("marlin_fixture");

describe("a worker that was connected to", () => {
  test("has no shared memory", async () => {
    expect(worker.info.arenaBytes).toBe(0);
    expect(await worker.stats()).toMatchObject({ arena: null });
  });

  test("calls, iterates, and keeps handles", async () => {
    const box = await fixture().Box("inside");
    expect(await box.attr("data")).toBe("inside");
    const seen: unknown[] = [];
    for await (const number of fixture().countdown(3)) seen.push(number);
    expect(seen).toEqual([3, 2, 1]);
    box.dispose();
  });

  test("takes tensors as bytes, and gives them as bytes", async () => {
    const tensor = worker.tensor(new Float32Array([1, 2, 3, 4]), [2, 2], { dtype: "bfloat16" });
    expect(await (await fixture().describe(tensor)).data()).toEqual(["torch.bfloat16", [2, 2], [1, 2, 3, 4]]);
    const back = await fixture().echo(tensor);
    expect(await back.data()).toEqual(tensor.data);
    expect(await back.data({ as: "float32" })).toEqual(new Float32Array([1, 2, 3, 4]));
    const { numpy } = await (await fixture().arrays()).data<{ numpy: Tensor }>();
    expect(numpy.data).toEqual(new BigInt64Array([0n, 1n, 2n]));
    expect(await fixture().total<number>(numpy)).toBe(3);
  });

  test("carries large tensors whole", async () => {
    const values = new Float32Array(4 * 1024 * 1024).map((_, i) => i % 1000);
    const handle = await fixture().echo(worker.tensor(values));
    expect(Buffer.compare(Buffer.from((await handle.data<Float32Array>()).buffer), Buffer.from(values.buffer))).toBe(0);
  });

  test("refuses a tensor beyond the limit of a frame, and lives on", async () => {
    const tensor = worker.tensor(new Uint8Array(257 * 1024 * 1024));
    await expect(fixture().total(tensor)).rejects.toThrow(MessageTooLargeError);
    expect(await fixture().echo<number>(1)).toBe(1);
  });

  test("serves several clients, whose handles are their own, and outlives each", async () => {
    const other = await Worker.connect(server.endpoint);
    expect(other.info.incarnation).toBe(worker.info.incarnation);
    const handle = await other.module<Untyped<"Box">>("marlin_fixture").Box(1);
    expect(isHandle(handle)).toBe(true);
    await expect(fixture().echo(handle)).rejects.toThrow(/belongs to another worker/);
    const waiting = other.module("time").attr("sleep")(1);
    const outcome = expect(waiting).rejects.toThrow(ConnectionClosedError);
    await other.close();
    await outcome;
    expect(await fixture().echo<string>("alive")).toBe("alive");
  });
});

describe("connecting", () => {
  test("where nobody listens is ConnectError", async () => {
    const endpoint = `tcp://127.0.0.1:${await freePort()}`;
    await expect(Worker.connect(endpoint, { timeout: 200 })).rejects.toThrow(ConnectError);
  });

  test("stops when the signal fires", async () => {
    const controller = new AbortController();
    const connecting = Worker.connect(`tcp://127.0.0.1:${await freePort()}`, { signal: controller.signal });
    const outcome = expect(connecting).rejects.toThrow(CancelledError);
    controller.abort();
    await outcome;
  });

  test.each(["http://host:1", "", "tcp://host", "tcp://127.0.0.1:99999", `ipc:///${"x".repeat(200)}`])(
    "to %j is InvalidArgumentError",
    async (endpoint) => {
      await expect(Worker.connect(endpoint)).rejects.toThrow(InvalidArgumentError);
    },
  );
});

describe("a client that breaks the protocol", () => {
  const HELLO = { type: "hello", protocol: PROTOCOL_VERSION, client: "test", arena: false } as const;

  /** What the worker answers to these frames. */
  async function answer(...messages: Uint8Array[][]): Promise<Message> {
    const transport = await connectZeromq(server.endpoint);
    try {
      for (const frames of messages) await transport.send(frames);
      return decodeMessage(await transport.receive());
    } finally {
      transport.close();
    }
  }

  test.each<[string, Uint8Array[], string]>([
    ["another major version", encodeMessage({ ...HELLO, protocol: [9, 0] }), "version_mismatch"],
    ["a call before `hello`", encodeMessage({ type: "ping", id: 1 }), "protocol_violation"],
    ["bytes that are no message", [new Uint8Array([0xc1, 0xff])], "protocol_violation"],
    ["a control frame beyond the limit", [new Uint8Array(2 ** 20 + 1)], "message_too_large"],
    ["a map that ends early", [encodeMessage(HELLO)[0]?.subarray(0, 20) ?? new Uint8Array()], "protocol_violation"],
  ])("by %s is answered, and the worker lives on", async (_, frames, code) => {
    expect(await answer(frames)).toMatchObject({ type: "error", id: null, error: { code } });
    expect(await fixture().echo<string>("alive")).toBe("alive");
  });
});

test("a worker that goes away rejects what is in flight", async () => {
  const process = startWorkerProcess({ endpoint: `tcp://127.0.0.1:${await freePort()}`, threads: 1 });
  const client = await Worker.connect(process.endpoint, { timeout: 60_000 });
  const sleeping = client.module("time").attr("sleep")(3600);
  const outcome = expect(sleeping).rejects.toThrow(ConnectionClosedError);
  await client.ping();
  await process.stop({ grace: 0 });
  await outcome;
  await client.close();
});

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      probe.close(() => resolve(port));
    });
  });
}
