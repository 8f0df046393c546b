import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  bfloat16ToFloat32,
  DTYPES,
  dtypeOf,
  float16ToFloat32,
  float32ToBfloat16,
  float32ToFloat16,
  isDType,
  itemSize,
  viewAs,
} from "../src/dtype.ts";
import { InvalidArgumentError } from "../src/errors.ts";

test("item sizes are those of the protocol", () => {
  const sizes = Object.fromEntries(DTYPES.map((dtype) => [dtype, itemSize(dtype)]));
  expect(sizes).toEqual({
    float32: 4,
    float64: 8,
    float16: 2,
    bfloat16: 2,
    int8: 1,
    uint8: 1,
    int16: 2,
    int32: 4,
    int64: 8,
    bool: 1,
  });
});

test("isDType takes the names of dtypes and nothing else", () => {
  expect(DTYPES.every(isDType)).toBe(true);
  for (const other of ["float", "complex64", "constructor", "", 1, null, undefined]) expect(isDType(other)).toBe(false);
});

test("a typed array names its dtype, unless it could be two", () => {
  for (const dtype of ["float32", "float64", "int8", "uint8", "int16", "int32", "int64"] as const) {
    expect(dtypeOf(viewAs(dtype, new ArrayBuffer(8)))).toBe(dtype);
  }
  expect(dtypeOf(Buffer.alloc(1))).toBe("uint8");
  expect(() => dtypeOf(new Uint16Array(1))).toThrow(/float16 or bfloat16: pass `dtype`/);
  expect(() => dtypeOf(new Uint32Array(1))).toThrow(/got Uint32Array/);
  expect(() => dtypeOf(new DataView(new ArrayBuffer(1)))).toThrow(InvalidArgumentError);
});

/** The value of 16 bits with these exponent and fraction widths, from the definition of the format. */
function valueOfBits(bits: number, exponentBits: number, fractionBits: number): number {
  const bias = 2 ** (exponentBits - 1) - 1;
  const sign = bits >>> 15 === 0 ? 1 : -1;
  const exponent = (bits >>> fractionBits) & (2 ** exponentBits - 1);
  const fraction = (bits & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Infinity : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** (1 - bias);
  return sign * (1 + fraction) * 2 ** (exponent - bias);
}

const formats = [
  { name: "float16", toFloat32: float16ToFloat32, fromFloat32: float32ToFloat16, exponent: 5, fraction: 10 },
  { name: "bfloat16", toFloat32: bfloat16ToFloat32, fromFloat32: float32ToBfloat16, exponent: 8, fraction: 7 },
];

describe.each(formats)("$name", ({ toFloat32, fromFloat32, exponent, fraction }) => {
  const all = Uint16Array.from({ length: 2 ** 16 }, (_, i) => i);
  const values = Array.from(all, (bits) => valueOfBits(bits, exponent, fraction));

  test("all 65536 patterns become their value, signed zeros, subnormals, infinities and NaN included", () => {
    const converted = toFloat32(all);
    for (const [bits, expected] of values.entries()) {
      if (!Object.is(converted[bits], expected)) expect([bits, converted[bits]]).toEqual([bits, expected]);
    }
  });

  test("all values come back to their pattern; NaN stays NaN and keeps its sign", () => {
    const back = fromFloat32(toFloat32(all));
    for (const [bits, value] of values.entries()) {
      if (Number.isNaN(value)) {
        expect([bits, valueOfBits(back[bits] ?? 0, exponent, fraction), (back[bits] ?? 0) >>> 15]).toEqual([
          bits,
          NaN,
          bits >>> 15,
        ]);
      } else if (back[bits] !== bits) expect([bits, back[bits]]).toEqual([bits, bits]);
    }
  });

  const finite = values
    .map((value, bits) => ({ value, bits }))
    .filter(({ value, bits }) => Number.isFinite(value) && bits < 0x8000);
  /** What would follow the largest finite value: beyond its half way values round to infinity. */
  const beyond = 2 ** (2 ** (exponent - 1));

  /** Nearest of all patterns, the even one of two: by search, not by arithmetic on bits. */
  function nearest(value: number): number {
    const sign = Object.is(Math.sign(value), -1) || Object.is(value, -0) ? 0x8000 : 0;
    const magnitude = Math.abs(value);
    const infinity = { value: beyond, bits: (2 ** exponent - 1) << fraction };
    let low = 0;
    let high = finite.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((finite[middle]?.value ?? 0) <= magnitude) low = middle + 1;
      else high = middle;
    }
    const below = finite[low - 1] ?? { value: 0, bits: 0 };
    const above = finite[low] ?? infinity;
    const [toBelow, toAbove] = [magnitude - below.value, above.value - magnitude];
    const isBelow = toBelow < toAbove || (toBelow === toAbove && below.bits % 2 === 0);
    return sign | (isBelow ? below.bits : above.bits);
  }

  test("float32 rounds to the nearest pattern, ties to even", () => {
    const float = fc.oneof(
      fc.float({ noNaN: true, noDefaultInfinity: true }),
      // Close to a pattern, and half way to its neighbour.
      fc
        .tuple(fc.nat(finite.length - 2), fc.constantFrom(0.5, 0.25, 0.75, 0.4999, 0.5001), fc.boolean())
        .map(([i, part, isNegative]) => {
          const [low, high] = [finite[i]?.value ?? 0, finite[i + 1]?.value ?? 0];
          return Math.fround((low + (high - low) * part) * (isNegative ? -1 : 1));
        }),
    );
    fc.assert(
      fc.property(float, (value) => {
        expect(fromFloat32(Float32Array.of(value))[0]).toBe(nearest(value));
      }),
      { numRuns: 5000 },
    );
  });

  test("beyond the range lies infinity, and its edge is half way", () => {
    const largest = finite.at(-1)?.value ?? 0;
    const edge = Math.fround((largest + beyond) / 2);
    const infinity = (2 ** exponent - 1) << fraction;
    expect(Array.from(fromFloat32(Float32Array.of(edge, -edge, Infinity, -Infinity)))).toEqual([
      infinity,
      infinity | 0x8000,
      infinity,
      infinity | 0x8000,
    ]);
    const below = new Float32Array(Uint32Array.of((new Uint32Array(Float32Array.of(edge).buffer)[0] ?? 0) - 1).buffer);
    expect(fromFloat32(below)[0]).toBe(infinity - 1);
  });

  test("a NaN with its payload in the low bits alone stays a NaN", () => {
    const nan = new Float32Array(Uint32Array.of(0x7f800001, 0xff800001).buffer);
    for (const bits of fromFloat32(nan)) expect(valueOfBits(bits, exponent, fraction)).toBeNaN();
  });

  test("writes into `out`, at any offset of its buffer, and checks its length", () => {
    const source = new Float32Array(new ArrayBuffer(16), 4, 2);
    source.set([1, -2]);
    const out = new Uint16Array(new ArrayBuffer(8), 2, 2);
    expect(fromFloat32(source, out)).toBe(out);
    expect(Array.from(toFloat32(out))).toEqual([1, -2]);
    expect(() => fromFloat32(source, new Uint16Array(3))).toThrow(/`out` must have 2 elements/);
    expect(() => toFloat32(out, new Float32Array(1))).toThrow(InvalidArgumentError);
  });
});
