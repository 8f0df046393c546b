import { describe, expect, test } from "vitest";
import { CancelledError, ProtocolError, PythonError } from "../../src/errors.ts";
import { WireHandle } from "../../src/protocol.ts";
import { STREAM_WINDOW } from "../../src/session/stream.ts";
import { openSession } from "./scripted-worker.ts";

describe("a stream", () => {
  test("starts at the first `next`, yields the items and returns the result", async () => {
    const { session, worker } = openSession();
    const stream = session.stream("count", () => ({ args: [2], kwargs: {} }));
    expect(session.inFlight).toBe(0);
    const first = stream.next();
    const call = await worker.expect("call");
    expect(call).toMatchObject({ method: "count", args: [2], credit: STREAM_WINDOW });
    await worker.item(call, 0, null);
    await worker.item(call, 1, "b");
    await worker.reply(call, { total: 2 });
    expect(await first).toEqual({ done: false, value: null });
    expect(await stream.next()).toEqual({ done: false, value: "b" });
    expect(await stream.next()).toEqual({ done: true, value: { total: 2 } });
    expect(await stream.next()).toEqual({ done: true, value: undefined });
    expect(session.inFlight).toBe(0);
  });

  test("grants credit again when half the window is consumed, never beyond the window", async () => {
    const { session, worker } = openSession();
    const stream = session.stream("count", () => ({ args: [], kwargs: {} }));
    const first = stream.next();
    const call = await worker.expect("call");
    for (let seq = 0; seq < STREAM_WINDOW; seq++) await worker.item(call, seq, seq);
    await first;
    for (let i = 1; i < STREAM_WINDOW / 2; i++) await stream.next();
    expect(await worker.expect("credit")).toMatchObject({ id: call.id, items: STREAM_WINDOW / 2 });
    for (let i = STREAM_WINDOW / 2; i < STREAM_WINDOW; i++) await stream.next();
    expect(await worker.expect("credit")).toMatchObject({ id: call.id, items: STREAM_WINDOW / 2 });
    await stream.return();
  });

  test("hands out what came before an error, then rejects", async () => {
    const { session, worker } = openSession();
    const stream = session.stream("broken", () => ({ args: [], kwargs: {} }));
    const first = stream.next();
    const call = await worker.expect("call");
    await worker.item(call, 0, 1);
    await worker.fail(call, "python_error", "Broken in the middle.");
    expect(await first).toEqual({ done: false, value: 1 });
    await expect(stream.next()).rejects.toThrow(PythonError);
    expect(await stream.next()).toEqual({ done: true, value: undefined });
  });

  test("`return` cancels at once, also under a pending `next`, and late items are given back", async () => {
    const { session, worker } = openSession();
    const stream = session.stream("count", () => ({ args: [], kwargs: {} }));
    const pending = stream.next();
    const call = await worker.expect("call");
    expect(await stream.return()).toEqual({ done: true, value: undefined });
    expect(await pending).toEqual({ done: true, value: undefined });
    expect(await worker.expect("cancel")).toMatchObject({ id: call.id });
    await worker.item(call, 0, new WireHandle(5));
    expect(await worker.expect("release")).toMatchObject({ handles: [5] });
    await worker.fail(call, "cancelled", "Stopped.");
    const next = session.call("next", [], {});
    await worker.reply(await worker.expect("call"), "alive");
    expect(await next).toBe("alive");
  });

  test("leaving a `for await` gives back the items that nobody read", async () => {
    const { session, worker } = openSession();
    const loop = (async () => {
      for await (const item of session.stream("handles", () => ({ args: [], kwargs: {} }))) return item;
      return undefined;
    })();
    const call = await worker.expect("call");
    await worker.item(call, 0, new WireHandle(1));
    expect(await loop).toMatchObject({ id: 1 });
    await worker.item(call, 1, new WireHandle(2));
    expect(await worker.expect("cancel")).toMatchObject({ id: call.id });
    expect(await worker.expect("release")).toMatchObject({ handles: [2] });
  });

  test("`return` before the first `next` sends nothing", async () => {
    const { session } = openSession();
    const stream = session.stream("count", () => ({ args: [], kwargs: {} }));
    await stream.return();
    expect(await stream.next()).toEqual({ done: true, value: undefined });
    expect(session.inFlight).toBe(0);
  });

  test("aborting rejects the pending `next` and ends the stream", async () => {
    const { session, worker } = openSession();
    const controller = new AbortController();
    const stream = session.stream("count", () => ({ args: [], kwargs: {} }), { signal: controller.signal });
    const pending = stream.next();
    const call = await worker.expect("call");
    controller.abort();
    await expect(pending).rejects.toThrow(CancelledError);
    expect(await worker.expect("cancel")).toMatchObject({ id: call.id });
    expect(await stream.next()).toEqual({ done: true, value: undefined });
  });

  test("several `next` calls at a time are served in order", async () => {
    const { session, worker } = openSession();
    const stream = session.stream("count", () => ({ args: [], kwargs: {} }));
    const results = [stream.next(), stream.next(), stream.next()];
    const call = await worker.expect("call");
    await worker.item(call, 0, "a");
    await worker.reply(call, "end");
    expect(await Promise.all(results)).toEqual([
      { done: false, value: "a" },
      { done: true, value: "end" },
      { done: true, value: undefined },
    ]);
  });

  test.each([
    ["an item out of order", 1, 1],
    ["more items than it had credit for", 0, STREAM_WINDOW + 2],
  ])("%s ends the session with ProtocolError", async (_, firstSeq, count) => {
    const { session, worker } = openSession();
    const stream = session.stream("count", () => ({ args: [], kwargs: {} }));
    const first = stream.next();
    const other = session.call("waits", [], {});
    const [call] = [await worker.expect("call"), await worker.expect("call")];
    for (let i = 0; i < count; i++) await worker.item(call, firstSeq + i, i);
    await expect(other).rejects.toThrow(ProtocolError);
    await first.catch(() => {});
  });
});
