import { describe, expect, test } from "vitest";
import { InvalidArgumentError } from "../src/errors.ts";
import { byteLength, elementCount, typedView } from "../src/tensor.ts";

describe("elementCount", () => {
  test.each([
    [[], 1],
    [[0], 0],
    [[3, 4], 12],
    [[2 ** 30, 0, 2 ** 30], 0],
    [[0, 2 ** 40, 2 ** 40, 2 ** 40], 0],
    [[2 ** 40, 2 ** 40, 0], 0],
    [[2 ** 52], 2 ** 52],
  ])("of %j is %i", (shape, count) => {
    expect(elementCount(shape)).toBe(count);
  });

  test.each([
    [[-1], /`shape\[0\]` must be a non-negative integer, got -1/],
    [[2, 1.5], /`shape\[1\]`/],
    [[Number.NaN], /NaN/],
    [[Infinity], /Infinity/],
    [[2 ** 53], /`shape\[0\]`/],
    [[2 ** 27, 2 ** 27], /more than 2\^53/],
    [[1, 1, 1, 1, 1, 1, 1, 1, 1], /at most 8 dimensions, got 9/],
  ])("refuses %j", (shape, message) => {
    expect(() => elementCount(shape)).toThrow(InvalidArgumentError);
    expect(() => elementCount(shape)).toThrow(message);
  });
});

test("byteLength counts items, and is checked after the item size, too", () => {
  expect(byteLength("int64", [3, 5])).toBe(120);
  expect(byteLength("bool", [])).toBe(1);
  expect(byteLength("bool", [2 ** 52])).toBe(2 ** 52);
  expect(() => byteLength("int64", [2 ** 52])).toThrow(/float|int64.*2\^53/);
});

describe("typedView", () => {
  test("shares aligned bytes", () => {
    const bytes = new Uint8Array(new ArrayBuffer(16), 8, 8);
    const view = typedView("float32", bytes);
    view[1] = 1;
    expect(view).toHaveLength(2);
    expect(bytes[7]).toBe(0x3f);
  });

  test("copies bytes that are not aligned", () => {
    const bytes = new Uint8Array(new ArrayBuffer(16), 3, 8);
    bytes.set([0, 0, 128, 63, 0, 0, 0, 192]);
    expect(Array.from(typedView("float32", bytes))).toEqual([1, -2]);
  });

  test("refuses a part of an element", () => {
    expect(() => typedView("int64", new Uint8Array(12))).toThrow(InvalidArgumentError);
  });
});
