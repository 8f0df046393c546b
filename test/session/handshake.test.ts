import { expect, test } from "vitest";
import {
  CancelledError,
  ConnectionClosedError,
  ProtocolError,
  TimeoutError,
  VersionMismatchError,
} from "../../src/errors.ts";
import { shakeHands } from "../../src/session/handshake.ts";
import { memoryPair } from "../../src/transports/memory.ts";
import { ScriptedWorker, WELCOME } from "./scripted-worker.ts";

function meet(options: { signal?: AbortSignal; timeout?: number } = {}) {
  const [near, far] = memoryPair();
  return {
    near,
    welcome: shakeHands(near, { client: "test/1", hasArena: false, ...options }),
    worker: new ScriptedWorker(far),
  };
}

test("resolves with the worker's welcome", async () => {
  const { welcome, worker } = meet();
  expect(await worker.expect("hello")).toMatchObject({ protocol: [1, 0], client: "test/1", arena: false });
  await worker.send(WELCOME);
  expect(await welcome).toMatchObject({ incarnation: WELCOME.incarnation, limits: WELCOME.limits });
});

test("rejects with the worker's error and closes", async () => {
  const { near, welcome, worker } = meet();
  await worker.expect("hello");
  const error = { code: "version_mismatch", message: "2.0 and 1.0.", type: "", traceback: "", details: {} };
  await worker.send({ type: "error", id: null, error, blocks: [] });
  await expect(welcome).rejects.toThrow(VersionMismatchError);
  expect(near.closed).toBe(true);
});

test("refuses a welcome of another major version, naming both", async () => {
  const { welcome, worker } = meet();
  await worker.expect("hello");
  await worker.send({ ...WELCOME, protocol: [2, 1] });
  await expect(welcome).rejects.toThrow(/protocol 2\.1, this client 1\.0/);
});

test("refuses any other answer", async () => {
  const { welcome, worker } = meet();
  await worker.expect("hello");
  await worker.send({ type: "bye" });
  await expect(welcome).rejects.toThrow(ProtocolError);
});

test("ends by signal, by timeout and by a closed transport, each with its own error", async () => {
  const controller = new AbortController();
  const aborted = meet({ signal: controller.signal });
  await aborted.worker.expect("hello");
  controller.abort();
  await expect(aborted.welcome).rejects.toThrow(CancelledError);

  const late = meet({ timeout: 1 });
  await expect(late.welcome).rejects.toThrow(TimeoutError);
  expect(late.near.closed).toBe(true);

  const gone = meet();
  await gone.worker.expect("hello");
  gone.worker.transport.close();
  await expect(gone.welcome).rejects.toThrow(ConnectionClosedError);
});
