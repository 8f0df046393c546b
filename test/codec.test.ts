import fc from "fast-check";
import { Packr } from "msgpackr";
import { describe, expect, test } from "vitest";
import { decodeMessage, encodeMessage, WireHandle, WireTensor } from "../src/codec.ts";
import {
  InvalidArgumentError,
  MarlinError,
  MessageTooLargeError,
  NotSerializableError,
  ProtocolError,
} from "../src/errors.ts";
import { type CallMessage, DEFAULT_LIMITS, type Message, type WireMap, type WireValue } from "../src/protocol.ts";
import { fromHex, fromNotation, type Golden, readGoldens, toHex } from "./fixtures/wire/notation.ts";

const goldens = readGoldens();
// A second, independent msgpack; bytes and values must agree where it follows the protocol.
const packr = new Packr({ useRecords: false, variableMapSize: true, moreTypes: false });

function call(args: readonly WireValue[], kwargs: WireMap = {}): CallMessage {
  return { type: "call", id: 1, method: "m", args, kwargs, credit: 0, progress: false };
}

/** The golden's message with the defaults that the wire leaves out. */
function messageOf(golden: Golden): unknown {
  const sent = fromNotation(golden.message, fromHex(golden.frames));
  const defaults: Record<string, object> = {
    call: { args: [], kwargs: {}, credit: 0, progress: false },
    result: { value: null, blocks: [] },
    error: { blocks: [] },
    release: { handles: [], blocks: [] },
  };
  const type = typeof golden.message === "object" && golden.message !== null && "type" in golden.message;
  return { ...(type ? defaults[String(golden.message.type)] : {}), ...Object(sent) };
}

function argsOf(message: Message): readonly WireValue[] {
  if (message.type !== "call") throw new Error(`Expected a call, got ${message.type}.`);
  return message.args;
}

/** Encodes values that the types would not allow. */
function encodeUnchecked(args: readonly unknown[]): Uint8Array[] {
  return encodeMessage(Object.assign(call([]), { args }));
}

describe("golden frames", () => {
  test("cover every message type", () => {
    const types = new Set(goldens.map((golden) => decodeMessage(fromHex(golden.frames)).type));
    expect(types.size).toBe(13);
  });

  test.each(goldens.map((golden) => [golden.name, golden] as const))("%s: is decoded", (_, golden) => {
    expect(decodeMessage(fromHex(golden.frames))).toEqual(messageOf(golden));
  });

  test.each(goldens.map((golden) => [golden.name, golden] as const))(
    "%s: is encoded to the same bytes",
    (_, golden) => {
      expect(toHex(encodeMessage(decodeMessage(fromHex(golden.frames))))).toEqual(golden.frames);
    },
  );
});

describe("what is encoded", () => {
  test("leaves out fields that are undefined, in maps", () => {
    const decoded = decodeMessage(encodeUnchecked([{ a: 1, b: undefined }]));
    expect(decoded).toStrictEqual(call([{ a: 1 }]));
  });

  test.each<[unknown, string, RegExp]>([
    [() => 1, "args[0]", /is a function/],
    [Symbol("s"), "args[0]", /is a symbol/],
    [undefined, "args[0]", /undefined; use null/],
    [[1, [undefined]], "args[0][1][0]", /undefined/],
    // biome-ignore lint/suspicious/noSparseArray: the hole is what is tested
    [[1, , 3], "args[0][1]", /undefined/],
    [{ foo: { bar: new Date(0) } }, "args[0].foo.bar", /instance of `Date`/],
    [new Map(), "args[0]", /instance of `Map`/],
    [new Float32Array(2), "args[0]", /instance of `Float32Array`/],
    ["a\ud800b", "args[0]", /lone surrogate/],
    [{ "\udc00": 1 }, "args[0].\udc00", /lone surrogate/],
    [2n ** 64n, "args[0]", /outside of int64 and uint64/],
    [-(2n ** 63n) - 1n, "args[0]", /outside of int64 and uint64/],
  ])("refuses %o by the name of its place", (value, place, message) => {
    const encode = () => encodeUnchecked([value]);
    expect(encode).toThrow(NotSerializableError);
    expect(encode).toThrow(message);
    expect(encode).toThrow(expect.objectContaining({ details: { place } }));
  });

  test("keeps a key `__proto__` a key like any other", () => {
    const value = JSON.parse('{"__proto__": {"polluted": true}}');
    const [decoded] = argsOf(decodeMessage(encodeUnchecked([value])));
    expect(Object.entries(decoded ?? {})).toEqual([["__proto__", { polluted: true }]]);
    expect(Object.getPrototypeOf(decoded)).toBe(Object.prototype);
  });

  test("refuses a value that contains itself, and takes one that occurs twice", () => {
    const cyclic: unknown[] = [];
    cyclic.push({ self: [cyclic] });
    expect(() => encodeUnchecked([cyclic])).toThrow("`args[0][0].self[0]` cannot travel: it contains itself.");
    const shared = { a: 1 };
    expect(argsOf(decodeMessage(encodeMessage(call([shared, [shared]]))))).toEqual([{ a: 1 }, [{ a: 1 }]]);
  });

  test("refuses a tensor whose storage has another size", () => {
    const tensor = new WireTensor("float32", [2, 2], { kind: "frame", bytes: new Uint8Array(15) });
    expect(() => encodeMessage(call([tensor]))).toThrow("must have 16 bytes, its storage has 15");
    const shapeless = new WireTensor("float32", [-1], { kind: "frame", bytes: new Uint8Array(0) });
    expect(() => encodeMessage(call([shapeless]))).toThrow(InvalidArgumentError);
  });

  test("appends the bytes of tensors as frames without a copy", () => {
    const bytes = new Uint8Array(4096);
    const frames = encodeMessage(call([new WireTensor("uint8", [4096], { kind: "frame", bytes })]));
    expect(frames).toHaveLength(2);
    expect(frames[1]).toBe(bytes);
  });

  test.each<[string, readonly WireValue[]]>([
    ["max_control_bytes", ["x".repeat(DEFAULT_LIMITS.max_control_bytes)]],
    ["max_elements", new Array(DEFAULT_LIMITS.max_elements).fill(0)],
    ["max_depth", [nested(DEFAULT_LIMITS.max_depth)]],
    ["max_frames", new Array(65).fill(new WireTensor("bool", [1], { kind: "frame", bytes: new Uint8Array(1) }))],
  ])("stays below %s", (limit, args) => {
    expect(() => encodeMessage(call(args))).toThrow(MessageTooLargeError);
    expect(() => encodeMessage(call(args))).toThrow(limit);
  });
});

function nested(levels: number): WireValue {
  return levels === 0 ? 1 : [nested(levels - 1)];
}

describe("hostile frames", () => {
  const head = Buffer.from("82a474797065a4636172", "hex");
  const decodeBytes = (...bytes: readonly number[]) => decodeMessage([Uint8Array.from(bytes)]);

  test.each<[string, readonly number[]]>([
    ["an empty frame", []],
    ["no map", [0x01]],
    ["the unused byte c1", [0x81, 0xa1, 0x61, 0xc1]],
    ["bytes after the map", [0x80, 0x00]],
    ["a map without a type", [0x80]],
    ["a map that is cut off", [0x81, 0xa4, 0x74]],
    ["a string longer than the frame", [0xdb, 0xff, 0xff, 0xff, 0xff, 0x61]],
    ["a bin longer than the frame", [0xc6, 0x7f, 0xff, 0xff, 0xff, 0x61]],
    ["an extension longer than the frame", [0xc9, 0x7f, 0xff, 0xff, 0xff, 0x01]],
    ["an array longer than the frame", [0xdd, 0x00, 0x00, 0xff, 0xff, 0x00]],
    ["a map longer than the frame", [0xdf, 0x00, 0x00, 0x7f, 0xff, 0x00]],
    ["a key that is no string", [0x81, 0x01, 0x01]],
    ["a string that is not UTF-8", [0x81, 0xa1, 0xff, 0x01]],
    ["an overlong UTF-8 form", [0x81, 0xa2, 0xc0, 0xaf, 0x01]],
    ["an encoded surrogate", [0x81, 0xa3, 0xed, 0xa0, 0x80, 0x01]],
    ["a timestamp", [0xd6, 0xff, 0x00, 0x00, 0x00, 0x00]],
    ["a record definition", [0xd4, 0x72, 0x40]],
    ["an extension in an extension", [0xc7, 0x04, 0x01, 0x91, 0xd4, 0x01, 0x05]],
    ["an extension of two values", [0xd5, 0x01, 0x05, 0x05]],
  ])("%s: protocol violation", (_, bytes) => {
    expect(() => decodeBytes(...bytes)).toThrow(ProtocolError);
  });

  test("no frame at all", () => {
    expect(() => decodeMessage([])).toThrow(ProtocolError);
  });

  test("what follows a short head is never allocated: 24 000 nested headers of 65 535 elements are refused", () => {
    const bomb = Buffer.concat([
      head.subarray(0, 1),
      Buffer.from("a161", "hex"),
      Buffer.alloc(72_000, Buffer.from("dcffff", "hex")),
    ]);
    const before = process.memoryUsage().heapUsed;
    expect(() => decodeMessage([bomb])).toThrow(MarlinError);
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(8 * 1024 * 1024);
  });

  test("depth and number of values are limited", () => {
    expect(() => decodeMessage([Buffer.alloc(1000, 0x91)])).toThrow(/max_depth/);
    const wide = Buffer.concat([Buffer.from("dd00010000", "hex"), Buffer.alloc(0x10000, 0xc0)]);
    expect(() => decodeMessage([wide])).toThrow(/max_elements/);
    expect(() => decodeMessage([new Uint8Array(DEFAULT_LIMITS.max_control_bytes + 1)])).toThrow(/max_control_bytes/);
    expect(() => decodeMessage(new Array(66).fill(new Uint8Array(1)))).toThrow(/max_frames/);
    const limits = { ...DEFAULT_LIMITS, max_frame_bytes: 10 };
    expect(() => decodeMessage([new Uint8Array(1), new Uint8Array(11)], limits)).toThrow(/max_frame_bytes/);
  });

  test("the deepest and the fullest message that is allowed passes", () => {
    // The control map and `args` are two of the levels.
    expect(argsOf(decodeMessage(encodeMessage(call([nested(30)]))))).toHaveLength(1);
    const args = new Array(DEFAULT_LIMITS.max_elements - 9).fill(0);
    expect(argsOf(decodeMessage(encodeMessage(call(args))))).toHaveLength(args.length);
  });

  test("maps have no members but their own", () => {
    expect(() => decodeMessage([packr.pack({ type: "toString" })])).toThrow(ProtocolError);
    expect(() => decodeMessage([packr.pack({ type: "ping", constructor: 1 })])).toThrow(/`id` must be/);
  });
});

describe("messages with wrong fields", () => {
  const ext = (code: number, payload: unknown): unknown => new Packed(code, payload);

  test.each<[object, RegExp]>([
    [{ type: 5 }, /`type` must be a string, got 5/],
    [{ type: "shout" }, /must be a message of the protocol, got "shout"/],
    [{ type: "ping" }, /`ping`: `id` must be an unsigned integer below 2\^53, got nothing/],
    [{ type: "ping", id: -1 }, /`id` must be/],
    [{ type: "ping", id: 1.5 }, /`id` must be/],
    [{ type: "ping", id: 2n ** 60n }, /`id` must be/],
    [{ type: "call", id: 1, method: null }, /`method` must be a string, got nil/],
    [{ type: "call", id: 1, method: "m", args: {} }, /`args` must be an array, got a map/],
    [{ type: "call", id: 1, method: "m", kwargs: [] }, /`kwargs` must be a map, got an array of 0/],
    [{ type: "call", id: 1, method: "m", credit: "1" }, /`credit` must be/],
    [{ type: "call", id: 1, method: "m", progress: 1 }, /`progress` must be true or false/],
    [{ type: "item", id: 1, seq: 0 }, /`value` must be a value, got nothing/],
    [{ type: "hello", protocol: [1], client: "c", arena: true }, /`\[major, minor\]`/],
    [{ type: "error", id: null, error: "x" }, /`error` must be a map/],
    [{ type: "error", id: null, error: { code: "c" } }, /`error` `error`: `message`/],
    [{ type: "progress", id: 1, data: { phase: "p", done: "1", total: 2 } }, /`done` must be a number/],
    [{ type: "release", handles: [1, "2"] }, /`handles` must be/],
    [{ type: "release", blocks: [[1, 2]] }, /Each of `blocks` must be/],
    [{ type: "result", id: 1, blocks: [[1, 2, -3]] }, /Each of `blocks` must be/],
    [{ type: "pong", id: 1, queued: 0 }, /`busy` must be/],
  ])("%o", (fields, message) => {
    const decode = () => decodeMessage([packr.pack(fields)]);
    expect(decode).toThrow(ProtocolError);
    expect(decode).toThrow(message);
  });

  test.each<[string, number, unknown, RegExp]>([
    ["a code of nobody", 3, [1], /must have code 1 or 2, got 3/],
    ["a handle of two parts", 1, [1, "object"], /A handle must be/],
    ["a handle with a negative id", 1, [-1], /`id` must be/],
    ["a handle of an unknown kind", 1, [1, "secret", "t", {}], /`kind` must be one of/],
    ["a handle without meta", 1, [1, "object", "t", null], /`meta` must be a map/],
    ["a tensor of two parts", 2, ["float32", [1]], /A tensor must be/],
    ["a tensor of an unknown dtype", 2, ["complex64", [1], ["frame", 1]], /`dtype` must be/],
    ["a tensor of a dtype that every object has", 2, ["constructor", [1], ["frame", 1]], /`dtype` must be/],
    ["a tensor of nine dimensions", 2, ["bool", [1, 1, 1, 1, 1, 1, 1, 1, 1], ["frame", 1]], /at most 8/],
    ["a tensor of negative size", 2, ["bool", [-1], ["frame", 1]], /non-negative/],
    ["a tensor beyond 2^53", 2, ["bool", [2 ** 31, 2 ** 31], ["frame", 1]], /2\^53/],
    ["a tensor in the control frame", 2, ["bool", [1], ["frame", 0]], /between 1 and 1/],
    ["a tensor in a missing frame", 2, ["bool", [1], ["frame", 2]], /between 1 and 1, got 2/],
    ["a tensor of another size than its frame", 2, ["bool", [3], ["frame", 1]], /must have 3 bytes, its storage has 1/],
    ["a tensor of another size than its block", 2, ["bool", [3], ["block", "worker", 0, 0, 0, 4]], /must have 3 bytes/],
    ["a tensor in a block of nobody", 2, ["bool", [1], ["block", "me", 0, 0, 0, 1]], /owner/],
    ["a tensor in a block at a negative offset", 2, ["bool", [1], ["block", "worker", 0, 0, -64, 1]], /unsigned/],
    ["a tensor in a short block", 2, ["bool", [1], ["block", "worker", 0, 0]], /storage/],
  ])("%s", (_, code, payload, message) => {
    const frames = [encodeWithExtension(ext(code, payload)), new Uint8Array(1)];
    expect(() => decodeMessage(frames)).toThrow(ProtocolError);
    expect(() => decodeMessage(frames)).toThrow(message);
  });
});

class Packed {
  readonly code: number;
  readonly payload: unknown;

  constructor(code: number, payload: unknown) {
    this.code = code;
    this.payload = payload;
  }
}

/** `{type: "result", id: 1, value: <extension>}`, by hand. */
function encodeWithExtension(value: unknown): Uint8Array {
  if (!(value instanceof Packed)) throw new Error("Expected an extension.");
  const payload = packr.pack(value.payload);
  const head = packr.pack({ type: "result", id: 1, value: null }).subarray(0, -1);
  return Buffer.concat([head, Uint8Array.of(0xc7, payload.length, value.code), payload]);
}

describe("properties", () => {
  const integer = fc.oneof(
    fc.maxSafeInteger(),
    fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }),
    fc.bigInt({ min: -(2n ** 63n), max: -(2n ** 53n) }),
  );
  const handle = fc.nat().map((id) => new WireHandle(id));
  const tensor = fc
    .uint8Array({ maxLength: 40 })
    .map((bytes) => new WireTensor("uint8", [bytes.length], { kind: "frame", bytes }));
  const key = fc.string({ unit: "grapheme" });
  const { value } = fc.letrec<{ value: WireValue }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 5, withCrossShrink: true },
      fc.constantFrom<WireValue>(null, true, false, -0, Number.NaN, Infinity),
      integer,
      fc.double(),
      fc.string({ unit: "grapheme", maxLength: 40 }),
      fc.uint8Array({ maxLength: 300 }),
      handle,
      tensor,
      fc.array(tie("value"), { maxLength: 20 }),
      fc.dictionary(key, tie("value"), { maxKeys: 20 }),
    ),
  }));

  test("every value survives the round trip", () => {
    fc.assert(
      fc.property(fc.array(value, { maxLength: 8 }), fc.dictionary(key, value, { maxKeys: 5 }), (args, kwargs) => {
        fc.pre(encodes(args, kwargs));
        expect(decodeMessage(encodeMessage(call(args, kwargs)))).toEqual(call(args, kwargs));
      }),
      { numRuns: 500 },
    );
  });

  test("another msgpack reads the same values, and writes bytes that read the same", () => {
    // msgpackr gives every 64-bit integer as a bigint, writes what exceeds 32 bits as a float, and reads a key
    // `__proto__` as `__proto_`.
    const simple = fc.oneof(
      fc.integer(),
      fc.double({ noInteger: true }),
      fc.string({ unit: "grapheme" }),
      fc.boolean(),
    );
    const plainKey = key.filter((name) => name !== "__proto__");
    fc.assert(
      fc.property(fc.array(fc.oneof(simple, fc.array(simple), fc.dictionary(plainKey, simple))), (args) => {
        const message = call(args, { n: 1 });
        const [control] = encodeMessage(message);
        const { credit: _, progress: __, ...written } = message;
        expect(packr.unpack(control ?? new Uint8Array())).toEqual({
          ...written,
          ...(args.length === 0 ? { args: undefined } : {}),
        });
        expect(decodeMessage([packr.pack(written)])).toEqual(message);
      }),
    );
  });

  test("a changed frame is read or refused, never anything else", () => {
    const frames = goldens.map((golden) => fromHex(golden.frames));
    fc.assert(
      fc.property(
        fc.constantFrom(...frames),
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 6 }),
        fc.option(fc.nat(), { nil: undefined }),
        ([control = new Uint8Array(), ...rest], changes, cut) => {
          const changed = new Uint8Array(control);
          for (const [at, byte] of changes) changed[at % changed.length] = byte;
          const end = cut === undefined ? changed.length : cut % (changed.length + 1);
          isReadOrRefused([changed.subarray(0, end), ...rest]);
        },
      ),
      { numRuns: 20_000 },
    );
  });

  test("random bytes are read or refused, never anything else", () => {
    fc.assert(fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 4 }), isReadOrRefused), {
      numRuns: 5000,
    });
  });
});

/** False for the few random values that are larger than a message. */
function encodes(args: readonly WireValue[], kwargs: WireMap): boolean {
  try {
    encodeMessage(call(args, kwargs));
    return true;
  } catch (error) {
    if (error instanceof MessageTooLargeError) return false;
    throw error;
  }
}

function isReadOrRefused(frames: readonly Uint8Array[]): void {
  try {
    encodeMessage(decodeMessage(frames));
  } catch (error) {
    if (!MarlinError.isInstance(error)) throw error;
  }
}
