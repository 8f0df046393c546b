import { describe, expect, test } from "vitest";
import { fill, naturalDType, type TensorData } from "../../src/client/fill.ts";
import { type DType, viewAs } from "../../src/dtype.ts";

function filled(dtype: DType, data: TensorData): unknown[] {
  const out = viewAs(dtype, new ArrayBuffer(data.length * 8), 0, data.length);
  fill(dtype, out, data);
  return [...out];
}

describe("fill", () => {
  test.each<[DType, TensorData, unknown[]]>([
    ["float32", new Float32Array([1.5]), [1.5]],
    ["float64", new Float32Array([1.5]), [1.5]],
    ["float32", new Float64Array([0.1]), [Math.fround(0.1)]],
    ["float32", [1, 0.5], [1, 0.5]],
    ["float16", new Float32Array([1, -2]), [0x3c00, 0xc000]],
    ["float16", new Uint16Array([0x3c00]), [0x3c00]],
    ["bfloat16", new Float32Array([1]), [0x3f80]],
    ["bfloat16", [1], [0x3f80]],
    ["int8", new Int8Array([-1]), [-1]],
    ["int32", [7], [7]],
    ["int64", new BigInt64Array([-5n]), [-5n]],
    ["int64", [2 ** 40], [2n ** 40n]],
    ["bool", new Uint8Array([0, 1]), [0, 1]],
    ["bool", [1, 0], [1, 0]],
    ["uint8", new Uint8Array([255]), [255]],
  ])("writes %s from %o", (dtype, data, expected) => {
    expect(filled(dtype, data)).toEqual(expected);
  });

  test.each<[DType, TensorData, RegExp]>([
    ["int32", new Float32Array([1]), /Float32Array, which does not convert to int32/],
    ["float32", new Int32Array([1]), /Int32Array, which does not convert to float32/],
    ["float32", new Uint16Array([1]), /Uint16Array, which does not convert to float32/],
    ["int64", new Int32Array([1]), /Int32Array, which does not convert to int64/],
    ["int32", new BigInt64Array([1n]), /BigInt64Array, which does not convert to int32/],
    ["float16", new Int16Array([1]), /Int16Array, which does not convert to float16/],
    ["int8", [1, 300], /`data\[1\]` must be a value that int8 holds exactly, got 300/],
    ["int32", [0.5], /`data\[0\]` must be a value that int32 holds exactly, got 0.5/],
    ["int64", [2 ** 60], /`data\[0\]` must be a value that int64 holds exactly/],
    ["bool", [2], /`data\[0\]` must be a value that bool holds exactly, got 2/],
    ["bool", new Uint8Array([0, 3]), /`data\[1\]` must be 0 or 1 for a bool tensor, got 3/],
  ])("refuses %s from %o", (dtype, data, message) => {
    expect(() => filled(dtype, data)).toThrow(message);
  });
});

test("plain numbers are float32 by nature, 16-bit words have no nature", () => {
  expect(naturalDType([1])).toBe("float32");
  expect(naturalDType(new BigInt64Array(1))).toBe("int64");
  expect(() => naturalDType(new Uint16Array(1))).toThrow(/pass `dtype`/);
});
