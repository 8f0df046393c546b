// The life of a worker process: starting and failing to, logs, closing, and dying.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import manifest from "../../package.json" with { type: "json" };
import { VERSION } from "../../src/client/version.ts";
import { Worker } from "../../src/client/worker.ts";
import {
  CancelledError,
  ConnectionClosedError,
  InvalidArgumentError,
  WorkerDiedError,
  WorkerStartError,
} from "../../src/errors.ts";
import type { LogLine, WorkerExit } from "../../src/worker-process.ts";
import { isRunning } from "./programs.ts";
import { type Fixture, MEBIBYTE, spawnWorker } from "./spawn.ts";

const fixture = (worker: Worker) => worker.module<Fixture>("marlin_fixture");

describe("a worker", () => {
  test("says who it is, answers pings, and ends with `await using`", async () => {
    let pid = 0;
    {
      await using worker = await spawnWorker();
      pid = worker.info.pid;
      expect(worker.info).toMatchObject({
        python: expect.stringMatching(/^3\.\d+/),
        torch: expect.stringMatching(/^2\./),
        arenaBytes: 16 * MEBIBYTE,
      });
      expect(String(worker)).toContain(`pid ${pid}`);
      expect(await worker.ping()).toEqual({ isBusy: false, queued: 0 });
      expect(await fixture(worker).threads()).toBe(1);
      expect(isRunning(pid)).toBe(true);
    }
    expect(isRunning(pid)).toBe(false);
  });

  test("has the environment that it was given", async () => {
    await using worker = await spawnWorker({
      env: { PYTHONPATH: path.join(import.meta.dirname, "../fixtures/python"), MARLIN_TEST: "yes", HOME: undefined },
    });
    expect(await fixture(worker).environment("MARLIN_TEST")).toBe("yes");
    expect(await fixture(worker).environment("HOME")).toBe(null);
  });

  test("tells what it prints as log events, until the listener is taken away", async () => {
    await using worker = await spawnWorker();
    const lines: LogLine[] = [];
    const off = worker.on("log", (line) => lines.push(line));
    await fixture(worker).speak("to stdout\x00\xff", "to stderr");
    await expect
      .poll(() => lines)
      .toEqual(
        expect.arrayContaining([
          { stream: "stdout", text: "to stdout\x00\xff" },
          { stream: "stderr", text: "to stderr" },
        ]),
      );
    off();
    const count = lines.length;
    await fixture(worker).speak("unheard", "unheard");
    const heard = new Promise<void>((resolve) => void worker.on("log", ({ text }) => text === "last" && resolve()));
    await fixture(worker).speak("last", "last");
    await heard;
    expect(lines).toHaveLength(count);
  });

  test("that is closed rejects what is in flight and all that comes later, and exits with code 0", async () => {
    const worker = await spawnWorker();
    const exit = new Promise<WorkerExit>((resolve) => void worker.on("exit", resolve));
    const tensor = worker.tensor([1, 2]);
    const calls = [fixture(worker).sleep(0.2), fixture(worker).kind(1)];
    const outcomes = Promise.allSettled(calls);
    await Promise.all([worker.close(), worker.close()]);
    for (const outcome of await outcomes) {
      expect(outcome).toMatchObject({ status: "rejected", reason: expect.any(ConnectionClosedError) });
    }
    expect(await exit).toEqual({ code: 0, signal: null });
    await expect(fixture(worker).kind(1)).rejects.toThrow(ConnectionClosedError);
    await expect(worker.ping()).rejects.toThrow(ConnectionClosedError);
    expect(() => worker.tensor([1])).toThrow(ConnectionClosedError);
    // Its memory is still there for those who hold a view of it.
    expect([...tensor.data]).toEqual([1, 2]);
    tensor.dispose();
  });

  test("that does not end by itself is killed after `grace`", async () => {
    const worker = await spawnWorker();
    const sleeping = fixture(worker).sleep(3600);
    sleeping.catch(() => {});
    await worker.close({ grace: 0 });
    await expect(sleeping).rejects.toThrow(ConnectionClosedError);
    expect(isRunning(worker.info.pid)).toBe(false);
  });
});

test("a mistyped option or argument of a worker's method is refused", async () => {
  await using worker = await spawnWorker();
  for (const call of [
    () => Reflect.apply(worker.ping, worker, [{ timeOut: 5 }]),
    () => Reflect.apply(worker.stats, worker, [{ timeOut: 5 }]),
    () => Reflect.apply(worker.close, worker, [{ timeout: 5 }]),
    () => Reflect.apply(worker.scope, worker, [5]),
  ]) {
    const outcome: Promise<unknown> = call();
    await expect(outcome).rejects.toThrow(InvalidArgumentError);
  }
  expect(await worker.ping()).toMatchObject({ isBusy: false });
});

describe("a worker that dies", () => {
  test("by kill -9 rejects 100 calls in flight at once, with a typed error each", async () => {
    const worker = await spawnWorker();
    const exit = new Promise<WorkerExit>((resolve) => void worker.on("exit", resolve));
    const calls = Array.from({ length: 100 }, () => fixture(worker).sleep(3600));
    const outcomes = Promise.allSettled(calls);
    await worker.ping(); // the calls are in the worker
    process.kill(worker.info.pid, "SIGKILL");
    const errors = (await within(10_000, outcomes)).map((outcome) =>
      outcome.status === "rejected" ? outcome.reason : undefined,
    );
    expect(errors.every((error) => error instanceof WorkerDiedError)).toBe(true);
    expect(errors[0]).toMatchObject({ code: "worker_died", signal: "SIGKILL", exitCode: null });
    expect(errors[0].stack).toContain("lifecycle.test.ts");
    expect(await exit).toEqual({ code: null, signal: "SIGKILL" });
    await expect(fixture(worker).kind(1)).rejects.toThrow(WorkerDiedError);
    await worker.close();
  });

  test("by itself tells its exit code and last words, also to a stream", async () => {
    const worker = await spawnWorker();
    const stream = worker.module("itertools").attr("count")(1)[Symbol.asyncIterator]();
    await stream.next();
    await expect(fixture(worker).leave(7)).rejects.toMatchObject({
      code: "worker_died",
      exitCode: 7,
      signal: null,
      stderr: expect.stringContaining("last words"),
      message: expect.stringContaining("last words"),
    });
    const drain = async () => {
      while ((await stream.next()).done !== true);
    };
    await expect(drain()).rejects.toThrow(WorkerDiedError);
    await worker.close();
  });
});

describe("a start", () => {
  let folder: string;
  beforeAll(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "marlin-start-"));
  });
  afterAll(() => fs.rmSync(folder, { recursive: true }));

  /** An executable in place of Python, which writes its process id first. */
  function stub(name: string, script: string): { python: string; pid: () => number } {
    const python = path.join(folder, name);
    fs.writeFileSync(python, `#!/bin/sh\necho $$ > '${python}.pid'\n${script}\n`, { mode: 0o700 });
    return { python, pid: () => Number(fs.readFileSync(`${python}.pid`, "utf8")) };
  }

  test("without a Python fails with its name", async () => {
    const start = Worker.spawn({ python: "/no/such/python" });
    await expect(start).rejects.toThrow(WorkerStartError);
    await expect(start).rejects.toThrow("/no/such/python");
  });

  test("whose Python exits fails with its exit code and stderr", async () => {
    const { python } = stub("exits", "echo 'No module named marlin' >&2; exit 3");
    await expect(Worker.spawn({ python })).rejects.toMatchObject({
      code: "worker_start_failed",
      exitCode: 3,
      message: expect.stringContaining("No module named marlin"),
    });
  });

  test("that says nothing in time fails, and leaves no process", async () => {
    const { python, pid } = stub("silent", "exec sleep 1000");
    await expect(Worker.spawn({ python, timeout: 1000 })).rejects.toThrow(/not ready within 1000 ms/);
    expect(isRunning(pid())).toBe(false);
  });

  test("that is cancelled rejects with CancelledError, and leaves no process", async () => {
    const { python, pid } = stub("cancelled", "exec sleep 1000");
    const controller = new AbortController();
    const start = Worker.spawn({ python, signal: controller.signal });
    const outcome = expect(start).rejects.toMatchObject({ code: "cancelled", cause: "changed my mind" });
    await expect.poll(() => fs.existsSync(`${python}.pid`) && fs.statSync(`${python}.pid`).size > 0).toBe(true);
    controller.abort("changed my mind");
    await outcome;
    expect(isRunning(pid())).toBe(false);
    await expect(Worker.spawn({ signal: AbortSignal.abort() })).rejects.toThrow(CancelledError);
  });

  test("that is cancelled before there is a process starts none", async () => {
    const { python } = stub("never", "exec sleep 1000");
    const controller = new AbortController();
    const start = Worker.spawn({ python, signal: controller.signal, timeout: 1000 });
    controller.abort(); // while the shared memory is made
    await expect(start).rejects.toThrow(CancelledError);
    expect(fs.existsSync(`${python}.pid`)).toBe(false);
  });

  test.each<[object, RegExp]>([
    [{ pyhton: "x" }, /`Worker.spawn` has no option `pyhton`/],
    [{ threads: 0 }, /`threads` must be a positive integer, got 0/],
    [{ arenaBytes: 5000 }, /multiple of 4096, got 5000/],
    [{ python: "" }, /`python` must be a non-empty string/],
    [{ env: { A: 1 } }, /`env` must be an object of strings/],
    [{ timeout: -1 }, /`timeout` must be a positive number/],
    [{ signal: {} }, /`signal` must be an AbortSignal/],
  ])("with the options %j is refused", async (options, message) => {
    const start: Promise<Worker> = Reflect.apply(Worker.spawn, Worker, [options]);
    await expect(start).rejects.toThrow(InvalidArgumentError);
    await expect(start).rejects.toThrow(message);
  });
});

test("the version that workers see is that of the package", () => {
  expect(VERSION).toBe(manifest.version);
});

/** `promise`, or a failure if it takes longer than any reason allows. */
async function within<T>(milliseconds: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`Not settled after ${milliseconds} ms.`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
