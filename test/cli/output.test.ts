import { expect, test } from "vitest";
import { createOutput } from "../../src/cli/output.ts";
import { captureStreams } from "./streams.ts";

test("text mode writes text, and no JSON", () => {
  const streams = captureStreams();
  const output = createOutput({ ...streams, json: false });
  output.write("a");
  output.line("b");
  output.json({ c: 1 });
  expect(streams.out()).toBe("ab\n");
});

test("JSON mode writes one line per value and nothing else, and says nothing about work under way", async () => {
  const streams = captureStreams();
  const output = createOutput({ ...streams, json: true });
  output.write("a");
  output.line("b");
  await output.during("Working", async (step) => step.update(1, 2));
  output.json({ c: "line\nbreak" });
  expect(streams.out()).toBe('{"c":"line\\nbreak"}\n');
  expect(streams.err()).toBe("");
});

test("work under way is told on stderr: that it began, and how it ended", async () => {
  const streams = captureStreams();
  const output = createOutput({ ...streams, json: false });
  const value = await output.during("Loading", async (step) => {
    step.note("4 layers");
    return 7;
  });
  expect(value).toBe(7);
  expect(streams.err()).toMatch(/^- Loading \.\.\.\n✓ Loading {2}\d+\.\d s {2}4 layers\n$/);
  expect(streams.out()).toBe("");
});

test("work that fails is told as failed, and its error goes on", async () => {
  const streams = captureStreams();
  const output = createOutput({ ...streams, json: false });
  const work = output.during("Loading", async () => {
    throw new RangeError("broken");
  });
  await expect(work).rejects.toThrow(RangeError);
  expect(streams.err()).toMatch(/✗ Loading/);
});
