// Proxies against a scripted worker: what they send, and above all when they send nothing.

import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { Connection } from "../../src/client/connection.ts";
import { createHandle, createModule, handleInfo, isHandle } from "../../src/client/proxy.ts";
import { Tensor } from "../../src/client/tensor.ts";
import { type Attribute, type Handle, kwargs, type Reference, type Untyped } from "../../src/client/types.ts";
import {
  CancelledError,
  HandleDisposedError,
  InvalidArgumentError,
  MessageTooLargeError,
  type NotSerializableError,
  ProtocolError,
  PythonError,
} from "../../src/errors.ts";
import { WireHandle, WireTensor } from "../../src/protocol.ts";
import { openSession, type ScriptedWorker } from "../session/scripted-worker.ts";

function open() {
  const { session, worker } = openSession();
  const connection = new Connection(session, undefined, createHandle);
  return { session, worker, connection };
}

type Module = Reference & Untyped<"f" | "a" | "gen" | "name" | "data" | "call">;

function isModule(value: unknown): value is Module {
  return typeof value === "function";
}

function moduleOf(connection: Connection, name: string): Module {
  const proxy: unknown = createModule(connection, name);
  if (!isModule(proxy)) throw new Error("A module proxy must be a function.");
  return proxy;
}

/** A handle that the scripted worker gives. */
async function receiveHandle(connection: Connection, worker: ScriptedWorker, wire: WireHandle): Promise<Handle> {
  const value: unknown = connection.call("make", () => ({ args: [] }));
  await worker.reply(await worker.expect("call"), wire);
  const handle = await value;
  if (!isHandle(handle)) throw new Error("A handle must come back as a handle.");
  return handle;
}

const TENSOR = new WireHandle(7, "tensor", "torch.Tensor", { dtype: "float32", shape: [2, 3], device: "cpu" });

describe("a module", () => {
  test("builds paths, prints and compares without a round trip", async () => {
    const { session, connection } = open();
    const m = moduleOf(connection, "pkg.mod");
    expect([String(m.a.attr("b")), inspect(m), `${m.f}`, JSON.stringify({ m })]).toEqual([
      "pkg.mod.a.b",
      "pkg.mod",
      "pkg.mod.f",
      '{"m":"pkg.mod"}',
    ]);
    expect(await m).toBe(m);
    expect(session.inFlight).toBe(0);
  });

  test("a call is one `python.call` with the path, the arguments and the keyword arguments", async () => {
    const { worker, connection } = open();
    const m = moduleOf(connection, "mod");
    const result = m.a.attr("f")<number>(
      1,
      [2, { three: undefined, four: null }],
      kwargs({ five: 5n, six: undefined }),
    );
    const call = await worker.expect("call");
    expect(call.method).toBe("python.call");
    expect(call.args).toEqual(["mod", ["a", "f"], [1, [2, { four: null }]], { five: 5 }]);
    await worker.reply(call, 12);
    expect(await result).toBe(12);
  });

  test("awaiting an attribute is one `python.get`", async () => {
    const { worker, connection } = open();
    const value = (async () => await moduleOf(connection, "mod").a)();
    const call = await worker.expect("call");
    expect(call).toMatchObject({ method: "python.get", args: ["mod", ["a"]] });
    await worker.reply(call, "value");
    expect(await value).toBe("value");
  });

  test("attributes with the names of JavaScript's function properties are Python's", () => {
    const m = moduleOf(open().connection, "mod");
    expect([m.name, m.call, m.data].map(String)).toEqual(["mod.name", "mod.call", "mod.data"]);
  });

  test("iterating an attribute streams `python.iterate` and an error rejects", async () => {
    const { worker, connection } = open();
    const seen: unknown[] = [];
    const loop = (async () => {
      for await (const item of moduleOf(connection, "mod").gen) seen.push(item);
    })();
    const call = await worker.expect("call");
    expect(call).toMatchObject({ method: "python.iterate", args: ["mod", ["gen"], null, {}] });
    await worker.item(call, 0, 1);
    await worker.fail(call, "python_error", "broken in the middle");
    await expect(loop).rejects.toThrow(PythonError);
    expect(seen).toEqual([1]);
  });

  test("an item that cannot be read ends the stream in the worker too", async () => {
    const { worker, connection } = open();
    const next = moduleOf(connection, "mod").gen[Symbol.asyncIterator]().next();
    const call = await worker.expect("call");
    const storage = { kind: "block", owner: "worker", block: 4, generation: 0, offset: 0, bytes: 4 } as const;
    await worker.item(call, 0, new WireTensor("float32", [1], storage)); // there is no shared memory
    await expect(next).rejects.toThrow(ProtocolError);
    expect(await worker.expect("cancel")).toMatchObject({ id: call.id });
  });

  test("iterating a call iterates its result, then gives the handle back", async () => {
    const { worker, connection } = open();
    const seen: unknown[] = [];
    const loop = (async () => {
      for await (const item of moduleOf(connection, "mod").gen(3)) seen.push(item);
    })();
    await worker.reply(await worker.expect("call"), new WireHandle(4, "iterator", "builtins.generator"));
    const iterate = await worker.expect("call");
    expect(iterate).toMatchObject({ method: "python.iterate", args: [new WireHandle(4), [], null, {}] });
    await worker.item(iterate, 0, "only");
    await worker.reply(iterate, new WireHandle(5)); // what the generator returned: nobody sees it
    await loop;
    expect(seen).toEqual(["only"]);
    expect(await worker.expect("release")).toMatchObject({ handles: [5, 4] });
  });

  test("cannot be changed", () => {
    const m: object = moduleOf(open().connection, "mod");
    expect(() => Reflect.set(m, "a", 1)).toThrow(InvalidArgumentError);
    expect(() => Reflect.deleteProperty(m, "a")).toThrow(/`delattr`/);
  });
});

describe("a handle", () => {
  test("awaiting it gives itself, and printing it asks nothing", async () => {
    const { session, worker, connection } = open();
    const handle = await receiveHandle(connection, worker, TENSOR);
    expect(await handle).toBe(handle);
    expect(inspect(handle)).toBe("Handle(torch.Tensor float32 [2, 3] #7)");
    expect(String(handle.shape)).toBe("Handle(torch.Tensor float32 [2, 3] #7).shape");
    expect(handleInfo(handle)).toEqual({
      kind: "tensor",
      type: "torch.Tensor",
      dtype: "float32",
      shape: [2, 3],
      device: "cpu",
    });
    expect(session.inFlight).toBe(0);
  });

  test("is sent by its id, as target and as argument", async () => {
    const { worker, connection } = open();
    const handle = await receiveHandle(connection, worker, TENSOR);
    const result = handle.add(handle, [handle]);
    const call = await worker.expect("call");
    expect(call.args).toEqual([new WireHandle(7), ["add"], [new WireHandle(7), [new WireHandle(7)]], {}]);
    await worker.reply(call, null);
    await result;
  });

  test("`dispose` gives it back once; using it then says so", async () => {
    const { worker, connection } = open();
    const handle = await receiveHandle(connection, worker, TENSOR);
    handle.dispose();
    handle.dispose();
    expect(await worker.expect("release")).toMatchObject({ handles: [7] });
    const message = "Handle(torch.Tensor float32 [2, 3] #7, disposed) was disposed and can no longer be used.";
    await expect(handle.mean()).rejects.toThrow(new HandleDisposedError(message));
    await expect(handle.data()).rejects.toThrow(HandleDisposedError);
    await expect((async () => await handle.shape)()).rejects.toThrow(HandleDisposedError);
    await expect(moduleOf(connection, "m").f(handle)).rejects.toThrow(HandleDisposedError);
    await expect(handle[Symbol.asyncIterator]().next()).rejects.toThrow(HandleDisposedError);
  });

  test("a disposed handle in a list of arguments sends nothing", async () => {
    const { session, worker, connection } = open();
    const handle = await receiveHandle(connection, worker, TENSOR);
    handle.dispose();
    await worker.expect("release");
    await expect(moduleOf(connection, "m").f(1, [handle])).rejects.toThrow(HandleDisposedError);
    expect(session.inFlight).toBe(0);
  });

  test("a Python attribute behind a method of ours is reached by `attr`, and mixing them up says so", async () => {
    const { worker, connection } = open();
    const handle = await receiveHandle(connection, worker, TENSOR);
    const mistaken: Promise<unknown> = (async () => await Reflect.get(handle.data, "shape"))();
    await expect(mistaken).rejects.toThrow(
      '`data` is a method of handles; the Python attribute of that name is `attr("data")`.',
    );
    await expect((async () => await Reflect.apply(async () => await handle.data, undefined, []))()).rejects.toThrow(
      InvalidArgumentError,
    );
    expect(String(handle.attr("data").attr("shape"))).toBe("Handle(torch.Tensor float32 [2, 3] #7).data.shape");
  });

  test("of another worker is refused", async () => {
    const { worker, connection } = open();
    const handle = await receiveHandle(connection, worker, TENSOR);
    await expect(moduleOf(open().connection, "m").f(handle)).rejects.toThrow(/belongs to another worker/);
  });

  test("`data` of a tensor is its array; of anything else the plain value", async () => {
    const { worker, connection } = open();
    const handle = await receiveHandle(connection, worker, TENSOR);
    const bytes = new Uint8Array(new Float32Array([1, 2]).buffer);
    const array = handle.data();
    await worker.reply(await worker.expect("call"), new WireTensor("float32", [2], { kind: "frame", bytes }));
    expect(await array).toEqual(new Float32Array([1, 2]));
    const plain = handle.data<Record<string, unknown>>();
    const nested = new WireTensor("float32", [2], { kind: "frame", bytes });
    await worker.reply(await worker.expect("call"), { a: [nested], b: 2 });
    const { a, b } = await plain;
    expect(b).toBe(2);
    expect(a).toEqual([expect.any(Tensor)]);
  });

  test("`data` converts 16-bit floats on request, and refuses to round other dtypes", async () => {
    const { worker, connection } = open();
    const handle = await receiveHandle(connection, worker, TENSOR);
    const half = new WireTensor("bfloat16", [1], { kind: "frame", bytes: new Uint8Array([0x80, 0x3f]) });
    const converted = handle.data({ as: "float32" });
    await worker.reply(await worker.expect("call"), half);
    expect(await converted).toEqual(new Float32Array([1]));
    const raw = handle.data();
    await worker.reply(await worker.expect("call"), half);
    expect(await raw).toEqual(new Uint16Array([0x3f80]));
    const rounded = handle.data({ as: "float32" });
    const integers = new WireTensor("int64", [1], { kind: "frame", bytes: new Uint8Array(8) });
    await worker.reply(await worker.expect("call"), integers);
    await expect(rounded).rejects.toThrow(/float32, float16 and bfloat16/);
  });
});

describe("arguments", () => {
  test("attributes and modules are resolved at the same time first, and given back after the call", async () => {
    const { worker, connection } = open();
    const m = moduleOf(connection, "torch");
    const result = m.f(m.a, 1, kwargs({ dtype: m.name, where: m }));
    const gets = [await worker.expect("call"), await worker.expect("call"), await worker.expect("call")];
    expect(gets.map(({ method, args }) => [method, args])).toEqual([
      ["python.get", ["torch", ["a"]]],
      ["python.get", ["torch", ["name"]]],
      ["python.get", ["torch", []]],
    ]);
    const values = ["scalar", new WireHandle(21), new WireHandle(22, "module")];
    for (const [i, call] of gets.entries()) await worker.reply(call, values[i] ?? null);
    const call = await worker.expect("call");
    expect(call.args).toEqual([
      "torch",
      ["f"],
      ["scalar", 1],
      { dtype: new WireHandle(21), where: new WireHandle(22) },
    ]);
    await worker.reply(call, 5);
    expect(await result).toBe(5);
    expect(await worker.expect("release")).toMatchObject({ handles: [21, 22] });
  });

  test("one that cannot be resolved rejects, and the others are given back", async () => {
    const { worker, connection } = open();
    const m = moduleOf(connection, "torch");
    const result = m.f(m.a, m.name);
    const [first, second] = [await worker.expect("call"), await worker.expect("call")];
    await worker.reply(first, new WireHandle(31));
    await worker.fail(second, "python_error", "no such attribute");
    await expect(result).rejects.toThrow(PythonError);
    expect(await worker.expect("release")).toMatchObject({ handles: [31] });
  });

  test.each<[unknown, RegExp | typeof NotSerializableError]>([
    [undefined, /`args\[0\]` cannot be sent to Python: it is undefined/],
    [{ a: [Symbol("s")] }, /`args\[0\]\.a\[0\]` cannot be sent to Python: it is a symbol/],
    [() => {}, /it is an object of class Function|it is a function/],
    [new Date(0), /it is an object of class Date/],
    [new Float32Array(1), /make a tensor of it with `worker.tensor`/],
    [[kwargs({})], /`kwargs` must be the last argument/],
    ["\ud800", /lone surrogate/],
    [2n ** 70n, /bigint|64 bits|integer/],
  ])("%o is refused with its place", async (value, message) => {
    const { session, connection } = open();
    const call: unknown = Reflect.apply(moduleOf(connection, "m").f, undefined, [value]);
    await expect(call).rejects.toThrow(message);
    expect(session.inFlight).toBe(0);
  });
});

test("an argument that contains itself is refused", async () => {
  const cyclic: unknown[] = [];
  cyclic.push(cyclic);
  const call: unknown = Reflect.apply(moduleOf(open().connection, "m").f, undefined, [cyclic]);
  await expect(call).rejects.toThrow(/nests deeper than/);
});

test("an argument that is larger than a message when its shared parts are unfolded is refused before that", async () => {
  let value: unknown = 0;
  for (let level = 0; level < 30; level++) value = [value, value];
  const call: unknown = Reflect.apply(moduleOf(open().connection, "m").f, undefined, [value]);
  await expect(call).rejects.toThrow(MessageTooLargeError);
});

describe("`with`", () => {
  test("gives its signal and timeout to every call made through it", async () => {
    const { worker, connection } = open();
    const controller = new AbortController();
    const m: Module = moduleOf(connection, "m").with({ signal: controller.signal });
    const results = [m.f(), m.a.attr("deep")(), (async () => await m.a)()];
    for (const _ of results) await worker.expect("call");
    controller.abort();
    for (const result of results) await expect(result).rejects.toThrow(CancelledError);
  });

  test("refuses unknown options", () => {
    const m = moduleOf(open().connection, "m");
    expect(() => Reflect.apply(m.with, undefined, [{ timeOut: 3 }])).toThrow(/`with` has no option `timeOut`/);
  });
});

describe("scopes", () => {
  test("give back what was made in them, but not what they return or keep", async () => {
    const { worker, connection } = open();
    const kept: { attribute?: Attribute } = {};
    const scoped = connection.runScope(async (scope) => {
      await receiveHandle(connection, worker, new WireHandle(1));
      const keep = await receiveHandle(connection, worker, new WireHandle(2));
      kept.attribute = keep.shape;
      const lease = connection.lease(new WireHandle(99));
      scope.keep(lease); // was never in the scope: nothing happens
      return "done";
    });
    expect(await scoped).toBe("done");
    expect(await worker.expect("release")).toMatchObject({ handles: [1, 2] });
  });

  test("are left also when the body throws", async () => {
    const { worker, connection } = open();
    const scoped = connection.runScope(async () => {
      await receiveHandle(connection, worker, new WireHandle(1));
      throw new Error("mine");
    });
    await expect(scoped).rejects.toThrow("mine");
    expect(await worker.expect("release")).toMatchObject({ handles: [1] });
  });
});
