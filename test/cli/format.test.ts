import { expect, test } from "vitest";
import { formatBar, formatBytes, formatChange, formatCount, formatTable } from "../../src/cli/format.ts";

test.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1024, "1.0 KiB"],
  [25_600_000, "24.4 MiB"],
  [16 * 1024 ** 3, "16.0 GiB"],
  [5 * 1024 ** 5, "5120.0 TiB"],
])("%d bytes are %s", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test.each([
  [512, "512"],
  [6_290_000, "6.3 M"],
  [8_030_000_000, "8.0 B"],
])("%d parameters are %s", (count, text) => {
  expect(formatCount(count)).toBe(text);
});

test("a change has its sign", () => {
  expect(formatChange(10, 10.24)).toBe("+2.4 %");
  expect(formatChange(10, 9.9)).toBe("-1.0 %");
});

test("a bar never overflows its width", () => {
  expect(formatBar(0, 4, 4)).toBe("░░░░ 0/4");
  expect(formatBar(2, 4, 4)).toBe("██░░ 2/4");
  expect(formatBar(9, 4, 4)).toBe("████ 9/4");
  expect(formatBar(0, 0, 4)).toBe("░░░░ 0/0");
});

test("a table aligns the first column left and the others right", () => {
  expect(
    formatTable([
      ["", "before"],
      ["perplexity", "7.4"],
      ["x", ""],
    ]),
  ).toBe("            before\nperplexity     7.4\nx");
});
