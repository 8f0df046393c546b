import { expect, test } from "vitest";
import { integer, number, repeatable, share } from "../../src/cli/options.ts";

test.each(["", " ", "1.5", "x", "0", "1e30"])("an integer of at least 1 is not %j", (text) => {
  expect(() => integer(1)(text)).toThrow(`Expected an integer of at least 1, got ${JSON.stringify(text)}.`);
});

test("an integer may be negative where that means something", () => {
  expect(integer(-1)("-1")).toBe(-1);
  expect(integer(1)("64")).toBe(64);
});

test.each(["", "-0.1", "NaN", "Infinity"])("a number of at least 0 is not %j", (text) => {
  expect(() => number(0)(text)).toThrow(`Expected a number of at least 0, got ${JSON.stringify(text)}.`);
});

test.each(["", "0", "-0.1", "1.1", "NaN", "Infinity"])("a share is not %j", (text) => {
  expect(() => share(text)).toThrow("Expected a number above 0 and at most 1");
});

test("a share may be the whole", () => {
  expect([share("1"), share("0.5")]).toEqual([1, 0.5]);
});

test("an option given twice keeps both values", () => {
  expect(repeatable("b", repeatable("a"))).toEqual(["a", "b"]);
  expect(() => repeatable("")).toThrow("Expected a text, got an empty one.");
});
