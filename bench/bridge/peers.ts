// The bridges that ours is measured against, each behind the same small interface, so that a bench never asks which
// one it holds. A missing operation is a reason, printed instead of a time.

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Context, Dealer } from "zeromq";

/** A bridge under test. Every method performs `count` operations. */
export interface Bridge {
  readonly name: string;
  empty(count: number): Promise<void>;
  /** Passes a prepared payload of `bytes` bytes `count` times, or says why it cannot. */
  payload(bytes: number): ((count: number) => Promise<void>) | string;
  /** Receives `count` small values of one stream. */
  stream(count: number): Promise<void>;
  close(): Promise<void>;
}

/** Folder of the Python side; the compiled bench runs from a build folder, its Python files stay here. */
export const BENCH_FOLDER: string = process.env.MARLIN_BENCH_FOLDER ?? dirname(fileURLToPath(import.meta.url));

/** Bytes that a JSON bridge can be asked to carry within a round. */
const JSON_LIMIT = 4 * 2 ** 20;

/** The floor: one ZeroMQ DEALER on each side, no codec, no threads, no shared memory. */
export async function zeromqEcho(python: string): Promise<Bridge> {
  const folder = mkdtempSync(join(tmpdir(), "marlin-bench-"));
  const endpoint = `ipc://${join(folder, "echo")}`;
  const child = spawn(python, [join(BENCH_FOLDER, "zeromq_echo.py"), endpoint], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await firstOutput(child);
  const socket = new Dealer({ context: new Context({ blocky: false }), linger: 0, sendHighWaterMark: 0 });
  socket.connect(endpoint);
  const roundTrip = async (frames: (string | Uint8Array)[]): Promise<void> => {
    await socket.send(frames);
    await socket.receive();
  };
  return {
    name: "bare ZeroMQ echo",
    empty: (count) => repeat(count, () => roundTrip(["call"])),
    payload: (bytes) => {
      const body = new Uint8Array(bytes);
      return (count) => repeat(count, () => roundTrip(["call", body]));
    },
    async stream(count) {
      await socket.send(`stream ${count}`);
      for (let i = 0; i < count; i++) await socket.receive();
    },
    async close() {
      await socket.send("bye");
      await new Promise((resolve) => child.once("exit", resolve));
      socket.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

interface PythoniaTarget {
  noop(): Promise<unknown>;
  size(values: unknown): Promise<unknown>;
  items(count: number): Promise<AsyncIterable<unknown>>;
}

/** pythonia: a child process, JSON lines, proxies. */
export async function pythonia(python: string): Promise<Bridge> {
  process.env.PYTHON_BIN = python;
  const library: { python: ((path: string) => Promise<PythoniaTarget>) & { exit(): void } } = await import("pythonia");
  const target = await library.python(join(BENCH_FOLDER, "target.py"));
  return {
    name: "pythonia",
    empty: (count) => repeat(count, () => target.noop()),
    payload: (bytes) => {
      if (bytes > JSON_LIMIT) return "carries arrays as JSON text; not run at this size";
      const values = Array.from({ length: bytes / Float32Array.BYTES_PER_ELEMENT }, () => 0);
      return (count) => repeat(count, () => target.size(values));
    },
    async stream(count) {
      let received = 0;
      for await (const _ of await target.items(count)) received++;
      if (received !== count) throw new Error(`pythonia streamed ${received} of ${count} items.`);
    },
    async close() {
      library.python.exit();
    },
  };
}

interface EmbeddedInterpreter {
  addImportPath(path: string): void;
  importSync(module: string): unknown;
  call(module: unknown, name: string, ...args: unknown[]): Promise<unknown>;
}

/** node-calls-python: Python embedded in the Node process; its awaited calls run on libuv's pool. */
export async function nodeCallsPython(): Promise<Bridge> {
  const library: { interpreter: EmbeddedInterpreter } = createRequire(import.meta.url)("node-calls-python");
  const py = library.interpreter;
  py.addImportPath(BENCH_FOLDER);
  const target = py.importSync("target");
  return {
    name: "node-calls-python",
    empty: (count) => repeat(count, () => py.call(target, "noop")),
    payload: (bytes) => {
      const body = Buffer.alloc(bytes);
      return (count) => repeat(count, () => py.call(target, "size", body));
    },
    async stream(count) {
      const drained = await py.call(target, "items", count);
      if (!Array.isArray(drained) || drained.length !== count) throw new Error("node-calls-python lost items.");
    },
    async close() {},
  };
}

/** Awaits `operation` `count` times, one after the other. */
export async function repeat(count: number, operation: () => Promise<unknown>): Promise<void> {
  for (let i = 0; i < count; i++) await operation();
}

function firstOutput(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.stdout?.once("data", () => resolve());
    child.once("exit", (code) =>
      reject(new Error(`The ZeroMQ echo process ended with code ${code} before it was ready.`)),
    );
  });
}
