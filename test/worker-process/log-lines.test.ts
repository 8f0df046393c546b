import fc from "fast-check";
import { expect, test } from "vitest";
import { LineSplitter, Tail } from "../../src/worker-process/log-lines.ts";

function split(...chunks: readonly (string | Buffer)[]): string[] {
  const lines: string[] = [];
  const splitter = new LineSplitter((line) => lines.push(line));
  for (const chunk of chunks) splitter.push(Buffer.from(chunk));
  splitter.end();
  return lines;
}

test("cuts at line ends of every kind, wherever chunks end, and keeps the last line", () => {
  expect(split("a\nb\r\nc\rd")).toEqual(["a", "b", "c", "d"]);
  expect(split("a", "b\n", "c\r", "\nd\n")).toEqual(["ab", "c", "d"]);
  expect(split("10%\r20%\r\n")).toEqual(["10%", "20%"]);
  expect(split()).toEqual([]);
});

test("keeps characters together that chunks cut apart, and shows broken ones", () => {
  const fish = Buffer.from("🐟 é\n");
  expect(split(...Array.from(fish, (byte) => Buffer.of(byte)))).toEqual(["🐟 é"]);
  expect(split(Buffer.of(0xff, 0x41))).toEqual(["\ufffdA"]);
});

test("cuts lines that do not end", () => {
  const lines = split("x".repeat(20_000), "y".repeat(10));
  expect(lines.map((line) => line.length)).toEqual([8192, 8192, 3626]);
  expect(lines.join("")).toBe("x".repeat(20_000) + "y".repeat(10));
  expect(split(`${"x".repeat(9000)}\nshort\n`).map((line) => line.length)).toEqual([8192, 808, 5]);
});

test("gives the same lines however the bytes are cut", () => {
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom("a", "é", "\n", "\r", "🐟") }),
      fc.infiniteStream(fc.integer({ min: 1, max: 5 })),
      (text, sizes) => {
        const bytes = Buffer.from(text);
        const chunks: Buffer[] = [];
        for (let at = 0; at < bytes.length; ) {
          const size = sizes.next().value ?? 1;
          chunks.push(bytes.subarray(at, at + size));
          at += size;
        }
        expect(split(...chunks)).toEqual(text.split(/[\r\n]/).filter((line) => line !== ""));
      },
    ),
  );
});

test("a tail keeps the last characters of any number of pushes", () => {
  const tail = new Tail(10);
  expect(tail.toString()).toBe("");
  for (let i = 0; i < 100; i++) tail.push(`${i} `);
  expect(tail.toString()).toBe("97 98 99 ".padStart(10, " "));
  tail.push("0123456789abcdefghijklmnopqrstuvwxyz");
  expect(tail.toString()).toBe("qrstuvwxyz");
});
