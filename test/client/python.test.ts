// Python from TypeScript, against a real worker: modules, attributes, calls, handles, iteration, errors.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isHandle } from "../../src/client/proxy.ts";
import { kwargs, type Untyped } from "../../src/client/types.ts";
import type { Worker } from "../../src/client/worker.ts";
import {
  CancelledError,
  InvalidArgumentError,
  MarlinError,
  MessageTooLargeError,
  ModuleNotFoundError,
  NotSerializableError,
  PythonError,
  TimeoutError,
  UnknownMethodError,
} from "../../src/errors.ts";
import { type Fixture, spawnWorker } from "./spawn.ts";

type Names = "Box" | "Counted" | "arrays" | "boxes" | "broken" | "countdown" | "echo" | "endless";

let worker: Worker;
beforeAll(async () => {
  worker = await spawnWorker();
});
afterAll(() => worker.close());

const typed = () => worker.module<Fixture>("marlin_fixture");
const untyped = () => worker.module<Untyped<Names>>("marlin_fixture");

describe("calls", () => {
  test("of functions of any module give scalars by value", async () => {
    const math = worker.module("math");
    expect(await math.sqrt<number>(2)).toBe(Math.SQRT2);
    expect(await math.pi).toBe(Math.PI);
    expect(await typed().VERSION).toBe("1.2.3");
  });

  test.each([
    null,
    true,
    0,
    -1,
    2 ** 40,
    2n ** 60n,
    1.5,
    Number.POSITIVE_INFINITY,
    "text ∅",
    "",
    new Uint8Array([1, 2]),
  ])("carry %o there and back", async (value) => {
    expect(await untyped().echo<unknown>(value)).toEqual(value);
  });

  test("carry nested values, and `data` brings them back", async () => {
    const value = [1, [2, { three: ["four", null] }], {}, JSON.parse('{"__proto__": 5}')];
    const handle = await untyped().echo(value);
    expect(isHandle(handle)).toBe(true);
    expect(await handle.data()).toEqual(value);
  });

  test("carry whole numbers as int, others as float, plain objects as dict", async () => {
    const kinds = [1, 1.5, 2n ** 60n, "s", {}, [], null, true, new Uint8Array()].map((value) => typed().kind(value));
    expect(await Promise.all(kinds)).toEqual([
      "int",
      "float",
      "int",
      "str",
      "dict",
      "list",
      "NoneType",
      "bool",
      "bytes",
    ]);
  });

  test("take keyword arguments", async () => {
    const handle = await untyped().echo(1, kwargs({ two: 2, missing: undefined }));
    expect(await handle.data()).toEqual([1, { two: 2 }]);
  });

  test("take handles, attributes and modules as arguments", async () => {
    const torch = worker.module("torch");
    const box = await untyped().Box(5);
    expect(await typed().kind(box)).toBe("Box");
    expect(await typed().kind(torch.float16)).toBe("dtype");
    expect(await typed().kind(worker.module("math"))).toBe("module");
    const ones = await torch.ones([2], kwargs({ dtype: torch.int32 }));
    expect(await ones.data()).toEqual(new Int32Array([1, 1]));
  });

  test("run side by side and answer each its own caller", async () => {
    const results = await Promise.all(Array.from({ length: 200 }, (_, i) => untyped().echo<number>(i)));
    expect(results).toEqual(Array.from({ length: 200 }, (_, i) => i));
  });

  test("a burst beyond the limit of calls is refused, the others are answered", async () => {
    const outcomes = await Promise.allSettled(Array.from({ length: 1100 }, (_, i) => untyped().echo<number>(i)));
    const codes = outcomes.map((outcome) => (outcome.status === "fulfilled" ? "done" : outcome.reason.code));
    expect(codes.filter((code) => code === "done")).toHaveLength(1024);
    expect(codes.filter((code) => code === "too_many_calls")).toHaveLength(1100 - 1024);
  });
});

describe("handles", () => {
  test("have attributes, are callable, and keep their value in the worker", async () => {
    const box = await untyped().Box("inside");
    expect(String(box)).toMatch(/^Handle\(marlin_fixture\.Box #\d+\)$/);
    expect(await box.attr("name")).toBe("box");
    expect(await box.attr("data")).toBe("inside");
    expect(await box.attr("dispose")<string>()).toBe("disposed in Python");
    const called = await box(1, kwargs({ two: 2 }));
    expect(await called.data()).toEqual(["inside", [1], { two: 2 }]);
  });

  test("end with `dispose`, with `using`, and with their scope", async () => {
    // Of its own: handles that other tests dropped are collected at any time.
    await using own = await spawnWorker();
    const module = own.module<Untyped<Names>>("marlin_fixture");
    const living = own.module<Fixture>("marlin_fixture").living;
    const first = await module.Counted();
    expect(await living()).toBe(1);
    first.dispose();
    expect(await living()).toBe(0);
    {
      using second = await module.Counted();
      await using third = await module.Counted();
      expect([isHandle(second), isHandle(third)]).toEqual([true, true]);
      expect(await living()).toBe(2);
    }
    const kept = await own.scope(async ({ keep }) => {
      await module.Counted();
      const inner = await own.scope(async () => [await module.Counted(), await module.Counted()]);
      expect(await living()).toBe(3);
      const other = keep(await module.Counted());
      return { first: inner[0], other };
    });
    expect(await living()).toBe(2);
    kept.first?.dispose();
    kept.other.dispose();
    expect(await living()).toBe(0);
    expect((await own.stats()).handles).toBe(0);
  });

  test("of concurrent scopes do not mix", async () => {
    const scoped = (keeps: boolean) =>
      worker.scope(async ({ keep }) => {
        const counted = await untyped().Counted();
        if (keeps) keep(counted);
        return keeps ? [counted] : [];
      });
    const results = await Promise.all([scoped(true), scoped(false), scoped(true), scoped(false)]);
    expect(await typed().living()).toBe(2);
    for (const handle of results.flat()) handle.dispose();
    expect(await typed().living()).toBe(0);
  });
});

describe("iteration", () => {
  test("goes over generators, calls, attributes and handles", async () => {
    const seen: unknown[] = [];
    for await (const number of untyped().countdown(3)) seen.push(number);
    for await (const number of worker.module("marlin_fixture").attr("NUMBERS")) seen.push(number);
    const boxes = await untyped().boxes(2);
    for await (const box of boxes) if (isHandle(box)) seen.push(await box.attr("data"));
    expect(seen.slice(0, 8)).toEqual([3, 2, 1, 1, 2.5, null, true, "text"]);
    expect(isHandle(seen[8])).toBe(true);
    expect(seen.slice(9)).toEqual([0, 1]);
  });

  test("an error inside a generator rejects, after the items before it", async () => {
    const seen: unknown[] = [];
    const loop = (async () => {
      for await (const number of untyped().broken(40)) seen.push(number);
    })();
    const error = await loop.catch((error: unknown) => error);
    expect(error).toBeInstanceOf(PythonError);
    expect(error).toMatchObject({
      pythonType: "builtins.LookupError",
      message: expect.stringContaining("in the middle"),
    });
    expect(seen).toHaveLength(40);
  });

  test("leaving a loop ends the stream in the worker, also of an endless one", async () => {
    for await (const number of untyped().endless()) if (number === 100) break;
    await expect.poll(() => worker.stats()).toMatchObject({ streams: 0 });
  });

  test("of what is not iterable rejects", async () => {
    await expect(untyped().echo(3)[Symbol.asyncIterator]().next()).rejects.toThrow(/must return an iterable/);
    await expect((await untyped().Box())[Symbol.asyncIterator]().next()).rejects.toThrow(PythonError);
  });
});

describe("errors", () => {
  test("of Python keep type, message, traceback, and where this program called", async () => {
    const error: unknown = await (async function callingProgram() {
      return await typed()
        .fail("no such thing")
        .catch((error: unknown) => error);
    })();
    if (!PythonError.isInstance(error)) throw error;
    expect(error.message).toContain("no such thing");
    expect(error.pythonType).toBe("builtins.LookupError");
    expect(error.traceback).toMatch(/marlin_fixture\.py", line \d+, in fail/);
    expect(error.stack).toMatch(/^PythonError: .*\n\s+at callingProgram/);
  });

  test.each<[string, () => Promise<unknown>, new (message: string) => MarlinError]>([
    ["a module that does not exist", () => worker.module("no_such_module").attr("f")(), ModuleNotFoundError],
    ["an attribute that does not exist", () => untyped().attr("no_such_name")(), PythonError],
    ["a name that is none", () => untyped().attr("a.b")(), InvalidArgumentError],
    ["a value that is not callable", () => typed().attr("VERSION")(), PythonError],
    ["a value without a JavaScript form", async () => (await untyped().Box()).data(), NotSerializableError],
    ["a method that does not exist", () => worker.call("no.such.method"), UnknownMethodError],
    ["wrong arguments of a method", () => worker.call("python.get", [1]), InvalidArgumentError],
    ["wrong keyword arguments of a function", () => worker.module("math").sqrt(kwargs({ y: 1 })), PythonError],
    ["a control frame beyond the limit", () => untyped().echo("x".repeat(2 ** 21)), MessageTooLargeError],
    ["more elements than the limit", () => untyped().echo(new Array(70_000).fill(0)), MessageTooLargeError],
    [
      "a result beyond the limit",
      async () => (await worker.module("builtins").attr("range")(99_999)).data(),
      MarlinError,
    ],
    ["a name that a stream cannot resolve", streamOfName, InvalidArgumentError],
    ["NaN where weights are rounded", quantizeNaN, InvalidArgumentError],
  ])("%s is refused, and the worker lives on", async (_, call, type) => {
    await expect(call()).rejects.toThrow(type);
    expect(await untyped().echo<string>("alive")).toBe("alive");
  });
});

describe("signals and timeouts", () => {
  test("reject at once while Python computes, and the next call is answered when it is done", async () => {
    const controller = new AbortController();
    const slow = typed().attr("sleep").with({ signal: controller.signal })<string>(0.3);
    const timed = typed().attr("sleep").with({ timeout: 20 })<string>(0.1);
    await expect(timed).rejects.toThrow(TimeoutError);
    expect(await worker.ping()).toMatchObject({ isBusy: true });
    controller.abort(new Error("enough"));
    await expect(slow).rejects.toThrow(CancelledError);
    expect(await untyped().echo<string>("next")).toBe("next");
  });

  test("end a stream", async () => {
    const controller = new AbortController();
    const loop = (async () => {
      for await (const number of untyped().attr("endless").with({ signal: controller.signal })()) {
        if (number === 50) controller.abort();
      }
    })();
    await expect(loop).rejects.toThrow(CancelledError);
    await expect.poll(() => worker.stats()).toMatchObject({ streams: 0 });
  });
});

function streamOfName(): Promise<unknown> {
  return worker.stream("python.iterate", [worker.module("torch").float16, []]).next();
}

async function quantizeNaN(): Promise<unknown> {
  const linear = await worker.module("torch").nn.attr("Linear")(64, 8);
  await linear.attr("weight").attr("data").attr("fill_")(Number.NaN);
  return worker.module("marlin").attr("Int4Linear").attr("from_linear")(linear);
}
