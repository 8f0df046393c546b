import { Readable } from "node:stream";
import { expect, test } from "vitest";
import { readPrompt } from "../../src/cli/prompt.ts";

test("a dash reads standard input to its end, across split characters", async () => {
  const bytes = Buffer.from("def é");
  const stdin = Readable.from([bytes.subarray(0, 5), bytes.subarray(5)]);
  expect(await readPrompt("-", stdin)).toBe("def é");
});

test("any other text is the prompt, and standard input is not read", async () => {
  expect(await readPrompt("def f", Readable.from([]))).toBe("def f");
});

test("an empty prompt is refused", async () => {
  await expect(readPrompt("", Readable.from([]))).rejects.toThrow("Expected a prompt, got an empty text.");
  await expect(readPrompt("-", Readable.from([]))).rejects.toThrow("Expected a prompt");
});
