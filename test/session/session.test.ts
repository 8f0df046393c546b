import { getEventListeners } from "node:events";
import { describe, expect, test } from "vitest";
import {
  CancelledError,
  ConnectionClosedError,
  InternalError,
  InvalidArgumentError,
  MessageTooLargeError,
  ProtocolError,
  PythonError,
  TimeoutError,
  TooManyCallsError,
  WorkerDiedError,
} from "../../src/errors.ts";
import { type BlockRelease, DEFAULT_LIMITS, WireHandle, WireTensor, type WireValue } from "../../src/protocol.ts";
import { openSession, WELCOME } from "./scripted-worker.ts";

function workerBlock(block: number): WireTensor {
  return new WireTensor("uint8", [64], { kind: "block", owner: "worker", block, generation: 1, offset: 0, bytes: 64 });
}

describe("calls", () => {
  test("sends the method and arguments, and resolves with the result", async () => {
    const { session, worker } = openSession();
    const result = session.call("python.call", [1, "two"], { three: 3n });
    const call = await worker.expect("call");
    expect(call).toMatchObject({
      method: "python.call",
      args: [1, "two"],
      kwargs: { three: 3 },
      credit: 0,
      progress: false,
    });
    await worker.reply(call, [true, null]);
    expect(await result).toEqual([true, null]);
    expect(session.inFlight).toBe(0);
  });

  test("matches replies to calls in any order", async () => {
    const { session, worker } = openSession();
    const results = ["a", "b", "c"].map((name) => session.call("echo", [name], {}));
    const calls = [await worker.expect("call"), await worker.expect("call"), await worker.expect("call")];
    for (const call of calls.reverse()) await worker.reply(call, call.args[0] ?? null);
    expect(await Promise.all(results)).toEqual(["a", "b", "c"]);
  });

  test("rejects with the worker's error, at the stack of the call", async () => {
    const { session, worker } = openSession();
    const result = (function myProgram() {
      return session.call("python.call", [], {});
    })();
    await worker.fail(await worker.expect("call"), "python_error", "It is broken.");
    const error = await result.catch((error: unknown) => error);
    expect(error).toBeInstanceOf(PythonError);
    expect(error).toMatchObject({
      pythonType: "builtins.ValueError",
      traceback: "Traceback: here",
      details: { got: 3 },
    });
    expect(error).toHaveProperty("stack", expect.stringMatching(/^PythonError: It is broken\.\n\s+at myProgram/));
  });

  test("refuses a call beyond the worker's limit before sending it", async () => {
    const { session, worker } = openSession({}, { ...WELCOME, limits: { ...DEFAULT_LIMITS, max_calls: 1 } });
    const first = session.call("one", [], {});
    await expect(session.call("two", [], {})).rejects.toThrow(TooManyCallsError);
    await worker.reply(await worker.expect("call"), null);
    await first;
    const third = session.call("three", [], {});
    const call = await worker.expect("call");
    expect(call.method).toBe("three");
    await worker.reply(call, null);
    await third;
  });

  test("refuses arguments beyond the worker's limits and stays usable", async () => {
    const { session, worker } = openSession({}, { ...WELCOME, limits: { ...DEFAULT_LIMITS, max_control_bytes: 200 } });
    const sent: string[] = [];
    const onSend = () => sent.push("sent");
    await expect(session.call("big", ["x".repeat(300)], {}, { onSend })).rejects.toThrow(MessageTooLargeError);
    expect(sent).toEqual([]);
    expect(session.inFlight).toBe(0);
    const next = session.call("small", [], {}, { onSend });
    expect(sent).toEqual(["sent"]);
    await worker.reply(await worker.expect("call"), 7);
    expect(await next).toBe(7);
  });

  test("asks for progress only with `onProgress`, and hands it on", async () => {
    const { session, worker } = openSession();
    const seen: unknown[] = [];
    const result = session.call("model.load", [], {}, { onProgress: (progress) => seen.push(progress) });
    const call = await worker.expect("call");
    expect(call.progress).toBe(true);
    await worker.send({ type: "progress", id: call.id, data: { phase: "read", done: 1, total: 2 } });
    await worker.reply(call, null);
    await result;
    expect(seen).toEqual([{ phase: "read", done: 1, total: 2 }]);
  });

  test("an `onProgress` that throws ends its own call and no other", async () => {
    const { session, worker } = openSession();
    const mistake = new Error("mine");
    const onProgress = () => {
      throw mistake;
    };
    const failing = session.call("a", [], {}, { onProgress });
    const healthy = session.call("b", [], {});
    const [a, b] = [await worker.expect("call"), await worker.expect("call")];
    await worker.send({ type: "progress", id: a.id, data: { phase: "read", done: 1, total: 2 } });
    const error = await failing.catch((error: unknown) => error);
    expect(error).toBeInstanceOf(InternalError);
    expect(error).toHaveProperty("cause", mistake);
    expect((await worker.expect("cancel")).id).toBe(a.id);
    await worker.reply(b, "well");
    expect(await healthy).toBe("well");
  });
});

describe("cancelling", () => {
  test("a signal that has aborted already rejects and sends nothing", async () => {
    const { session } = openSession();
    const reason = new Error("not needed");
    const error = await session
      .call("a", [], {}, { signal: AbortSignal.abort(reason) })
      .catch((error: unknown) => error);
    expect(error).toBeInstanceOf(CancelledError);
    expect(error).toHaveProperty("cause", reason);
    expect(session.inFlight).toBe(0);
  });

  test("aborting rejects at once, tells the worker, and gives back what the late result holds", async () => {
    const { session, worker } = openSession();
    const controller = new AbortController();
    const result = session.call("slow", [], {}, { signal: controller.signal });
    const call = await worker.expect("call");
    controller.abort("enough");
    await expect(result).rejects.toMatchObject({ code: "cancelled", cause: "enough" });
    expect(await worker.expect("cancel")).toMatchObject({ id: call.id });
    expect(session.inFlight).toBe(1);
    await worker.reply(call, { deep: [new WireHandle(11), workerBlock(4)], also: workerBlock(4) });
    expect(await worker.expect("release")).toMatchObject({ handles: [11], blocks: [[4, 1, 2]] });
    expect(session.inFlight).toBe(0);
  });

  test("listens to the signal only while the call is in flight", async () => {
    const { session, worker } = openSession();
    const { signal } = new AbortController();
    const result = session.call("quick", [], {}, { signal });
    expect(getEventListeners(signal, "abort")).toHaveLength(1);
    await worker.reply(await worker.expect("call"), 1);
    await result;
    expect(getEventListeners(signal, "abort")).toHaveLength(0);
  });

  test("many calls share one listener on their signal, and all of them are cancelled", async () => {
    const { session, worker } = openSession();
    const controller = new AbortController();
    const calls = Array.from({ length: 20 }, () => session.call("a", [], {}, { signal: controller.signal }));
    expect(getEventListeners(controller.signal, "abort")).toHaveLength(1);
    await worker.reply(await worker.expect("call"), "done");
    expect(await calls[0]).toBe("done");
    controller.abort();
    const outcomes = await Promise.allSettled(calls);
    expect(outcomes.filter(({ status }) => status === "rejected")).toHaveLength(19);
    expect(getEventListeners(controller.signal, "abort")).toHaveLength(0);
  });

  test("a passed `timeout` rejects with TimeoutError and cancels", async () => {
    const { session, worker } = openSession();
    await expect(session.call("slow", [], {}, { timeout: 1 })).rejects.toThrow(TimeoutError);
    const call = await worker.expect("call");
    expect(await worker.expect("cancel")).toMatchObject({ id: call.id });
  });

  test.each([0, -1, Number.NaN, 2 ** 31])("refuses a `timeout` of %d", async (timeout) => {
    const { session } = openSession();
    await expect(session.call("a", [], {}, { timeout })).rejects.toThrow(InvalidArgumentError);
  });
});

describe("ping", () => {
  test("resolves with what the I/O thread says", async () => {
    const { session, worker } = openSession();
    const pong = session.ping();
    const { id } = await worker.expect("ping");
    await worker.send({ type: "pong", id, busy: 3, queued: 2 });
    expect(await pong).toEqual({ isBusy: true, queued: 2 });
  });
});

describe("releases", () => {
  test("ride along in one message before the next call", async () => {
    const { session, worker } = openSession();
    session.releaseHandle(1);
    session.releaseHandle(2);
    session.releaseBlock(5, 3);
    session.releaseBlock(5, 3);
    const result = session.call("next", [], {});
    expect(await worker.expect("release")).toMatchObject({ handles: [1, 2], blocks: [[5, 3, 2]] });
    await worker.reply(await worker.expect("call"), null);
    await result;
  });

  test("leave by themselves when nothing is sent", async () => {
    const { session, worker } = openSession();
    session.releaseHandle(9);
    expect(await worker.expect("release")).toMatchObject({ handles: [9], blocks: [] });
  });

  test("are split so that no message passes the limits", async () => {
    const { session, worker } = openSession();
    const ids = Array.from({ length: 20_000 }, (_, i) => i);
    for (const id of ids) session.releaseHandle(id);
    const received: number[] = [];
    while (received.length < ids.length) received.push(...(await worker.expect("release")).handles);
    expect(received).toEqual(ids);
  });

  test("of our blocks reach `onRelease`", async () => {
    const given: (readonly BlockRelease[])[] = [];
    const { session, worker } = openSession({ onRelease: (blocks) => given.push(blocks) });
    const result = session.call("a", [], {});
    const call = await worker.expect("call");
    await worker.send({ type: "release", handles: [], blocks: [[7, 1, 1]] });
    await worker.reply(call, null, [[8, 2, 3]]);
    await result;
    expect(given.flat()).toEqual([
      [7, 1, 1],
      [8, 2, 3],
    ]);
  });

  test("of our blocks wait for those who read the answers before them", async () => {
    const order: string[] = [];
    const { session, worker } = openSession({
      onRelease: (blocks) => {
        if (blocks.length > 0) order.push("given back");
      },
    });
    // As many steps of a promise as the client needs to open what a result names.
    const read = async (value: Promise<WireValue>): Promise<void> => {
      for (let step = 0; step < 10; step++) await value;
      order.push("read");
    };
    const first = read(session.call("a", [], {}));
    const second = session.call("b", [], {});
    const [a, b] = [await worker.expect("call"), await worker.expect("call")];
    await Promise.all([worker.reply(a, null), worker.reply(b, null, [[7, 1, 1]])]);
    await Promise.all([first, second]);
    expect(order).toEqual(["read", "given back"]);
  });
});

describe("the end", () => {
  test("`fail` rejects everything in flight, each with a stack of its own, and all that comes later", async () => {
    const { session, worker } = openSession();
    const calls = Array.from({ length: 100 }, () => session.call("a", [], {}));
    const stream = session.stream("s", () => ({ args: [], kwargs: {} }));
    const item = stream.next();
    await worker.expect("call");
    session.fail(() => new WorkerDiedError("The worker died.", { exitCode: 3 }));
    const outcomes = await Promise.allSettled([...calls, item]);
    const errors = outcomes.map((outcome) => (outcome.status === "rejected" ? outcome.reason : undefined));
    expect(errors.every((error) => error instanceof WorkerDiedError && error.exitCode === 3)).toBe(true);
    expect(new Set(errors).size).toBe(101);
    await expect(session.call("later", [], {})).rejects.toThrow(WorkerDiedError);
    expect(session.isEnded).toBe(true);
  });

  test("`close` rejects what is in flight, says goodbye and waits for the answer", async () => {
    const { session, worker } = openSession();
    const result = session.call("a", [], {});
    const call = await worker.expect("call");
    const closed = session.close({ timeout: 60_000 });
    await expect(result).rejects.toThrow(ConnectionClosedError);
    await worker.expect("bye");
    await worker.reply(call, new WireHandle(1)); // crossed the goodbye
    await worker.send({ type: "bye" });
    await closed;
    await session.close({ timeout: 1 });
    await expect(session.call("b", [], {})).rejects.toThrow(ConnectionClosedError);
  });

  test("`close` gives up on a worker that does not answer", async () => {
    const { session } = openSession();
    await session.close({ timeout: 1 });
    expect(session.isEnded).toBe(true);
  });

  test("`close` does not wait for a worker that dies", async () => {
    const { session, worker } = openSession();
    const closed = session.close({ timeout: 2 ** 31 - 1 });
    await worker.expect("bye");
    session.fail(() => new WorkerDiedError("gone"));
    await closed;
  });

  test("a closed transport fails what is in flight", async () => {
    const { session, worker } = openSession();
    const result = session.call("a", [], {});
    await worker.expect("call");
    worker.transport.close();
    await expect(result).rejects.toThrow(ConnectionClosedError);
  });
});

describe("an owner who knows more", () => {
  test("decides with `onBroken` how a closed connection fails the calls", async () => {
    const broken: unknown[] = [];
    const { session, worker } = openSession({ onBroken: (error) => broken.push(error) });
    const result = session.call("a", [], {});
    await worker.expect("call");
    worker.transport.close();
    await new Promise((resolve) => setImmediate(resolve));
    expect(broken).toEqual([expect.any(ConnectionClosedError)]);
    expect(session.inFlight).toBe(1);
    session.fail(() => new WorkerDiedError("killed"));
    await expect(result).rejects.toThrow(WorkerDiedError);
  });
});

describe("a worker that breaks the protocol", () => {
  test.each([
    ["a reply to no call", { type: "result", id: 99, value: null, blocks: [] }],
    ["a message that only clients send", { type: "cancel", id: 1 }],
    ["an item for a call that is no stream", { type: "item", id: 1, seq: 0, value: 1 }],
    ["a pong for a call", { type: "pong", id: 1, busy: null, queued: 0 }],
  ] as const)("%s ends the session with ProtocolError", async (_, message) => {
    const { session, worker } = openSession();
    const result = session.call("a", [], {});
    expect((await worker.expect("call")).id).toBe(1);
    await worker.send(message);
    await expect(result).rejects.toThrow(ProtocolError);
    expect(session.isEnded).toBe(true);
  });

  test("frames that are no message end the session with ProtocolError", async () => {
    const { session, worker } = openSession();
    const result = session.call("a", [], {});
    await worker.expect("call");
    await worker.transport.send([new Uint8Array([0xc1])]);
    await expect(result).rejects.toThrow(ProtocolError);
  });

  test("an error without an id rejects every call with it", async () => {
    const { session, worker } = openSession();
    const results = [session.call("a", [], {}), session.call("b", [], {})];
    await worker.expect("call");
    const error = { code: "protocol_violation", message: "Unreadable.", type: "", traceback: "", details: {} };
    await worker.send({ type: "error", id: null, error, blocks: [] });
    for (const result of results) await expect(result).rejects.toThrow(ProtocolError);
  });
});
