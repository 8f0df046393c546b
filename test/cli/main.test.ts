// The built program in a process of its own, with a real worker and the bundled model.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

// Each test starts up to four workers, one after another.
vi.setConfig({ testTimeout: 240_000 });

// One thread each: other tests start workers at the same time, and threads that wait for each other's cores crawl.
const ONE_THREAD = ["--threads", "1"];
const MAIN = path.resolve("dist/cli/main.js");
const MODEL = path.resolve("models/stdlib-6m");

let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "marlin cli "));
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function start(args: readonly string[], stdin = ""): ChildProcess {
  // Another current directory: nothing may depend on it.
  const child = spawn(process.execPath, [MAIN, ...args, ...ONE_THREAD], {
    cwd: folder,
    stdio: ["pipe", "pipe", "pipe"],
  });
  child.stdin?.end(stdin);
  return child;
}

async function end(child: ChildProcess): Promise<Ended> {
  const chunks = { out: "", err: "" };
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    chunks.out += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    chunks.err += text;
  });
  const [code] = await once(child, "close");
  return { code: typeof code === "number" ? code : null, ...chunks };
}

const marlin = (args: readonly string[], stdin = ""): Promise<Ended> => end(start(args, stdin));
const readLines = (text: string): unknown[] =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

test("demo measures before and after, and ends with the table and the kernel", async () => {
  const { code, out, err } = await marlin([
    "demo",
    "--max-new-tokens",
    "8",
    "--heldout-tokens",
    "256",
    "--prompt",
    "import os\n",
  ]);
  expect(err).toMatch(/✓ Quantizing to 4 bits, group 128/);
  expect(code).toBe(0);
  expect(out).toContain("import os\n");
  expect(out).toMatch(/bytes of weights +\S+ MiB +\S+ MiB +\S+x smaller\n/);
  expect(out).toMatch(/perplexity +\d+\.\d+ +\d+\.\d+ +[+-]\d+\.\d %\n/);
  expect(out).toMatch(/tokens\/s +\d+ +\d+ +\S+x\n/);
  expect(out).toContain("Perplexity: over 255 tokens from the beginning of the held-out text");
  expect(out).toMatch(/Kernel: \w+ \(.+\)\n$/);
});

test("demo --json is one document, and 4 bits cost less than 5 % of perplexity", async () => {
  const { code, out } = await marlin(["demo", "--json", "--max-new-tokens", "16", "--heldout-tokens", "2048"]);
  expect(code).toBe(0);
  const [document, ...rest] = readLines(out);
  expect(rest).toEqual([]);
  expect(document).toMatchObject({ before: { perplexity: expect.any(Number) }, generated: { newTokens: 16 } });
  const { before, after } = JSON.parse(out);
  expect(after.perplexity).toBeLessThan(before.perplexity * 1.05);
  expect(after.weightBytes).toBeLessThan(before.weightBytes / 2);
});

test("run --json is a line per piece and a summary; the same seed gives the same text", async () => {
  const args = [
    "run",
    MODEL,
    "-",
    "--quantize",
    "--json",
    "--max-new-tokens",
    "16",
    "--temperature",
    "0.8",
    "--seed",
    "7",
  ];
  const [first, second] = [await marlin(args, "def main():\n"), await marlin(args, "def main():\n")];
  expect(first.code).toBe(0);
  expect(first.out).toBe(
    second.out.replace(/"tokensPerSecond":[\d.]+/, /"tokensPerSecond":[\d.]+/.exec(first.out)?.[0] ?? ""),
  );
  const lines = readLines(first.out);
  expect(lines.slice(0, -1).every((line) => Object.keys(line ?? {}).join() === "text")).toBe(true);
  expect(lines.at(-1)).toMatchObject({ newTokens: 16, finishReason: "length" });
});

test("quantize saves a checkpoint that inspect describes and run loads", async () => {
  const out = path.join(folder, "saved");
  const quantized = await marlin(["quantize", MODEL, "--out", out, "--group-size", "64", "--asymmetric", "--json"]);
  expect(quantized.code).toBe(0);
  expect(readLines(quantized.out)).toMatchObject([{ path: out, report: { groupSize: 64, symmetric: false } }]);
  const inspected = await marlin(["inspect", out, "--json"]);
  expect(inspected.code).toBe(0);
  expect(readLines(inspected.out)).toHaveLength(1);
  const ran = await marlin(["run", out, "import", "--max-new-tokens", "4", "--no-stream"]);
  expect(ran.code).toBe(0);
  expect(ran.out.trim()).not.toBe("");
});

test("doctor finds everything on a machine that is set up", async () => {
  const { code, out } = await marlin(["doctor", "--json"]);
  const { findings } = JSON.parse(out);
  expect(findings.filter(({ status }: { status: string }) => status === "fail")).toEqual([]);
  expect(code).toBe(0);
});

// Less than the time that doctor gives a program to answer: one that does not exist must not keep doctor from ending.
test("doctor ends when the Python does not exist", { timeout: 60_000 }, async () => {
  const { code, out } = await marlin(["doctor", "--json", "--python", "/no/such/python"]);
  expect(code).toBe(1);
  expect(JSON.parse(out).findings).toContainEqual(expect.objectContaining({ name: "python", status: "fail" }));
});

test("a group size puts the model in 4 bits on the way in", async () => {
  const args = ["run", MODEL, "import", "--json", "--no-stream", "--max-new-tokens", "64", "--temperature", "1"];
  const [plain, quantized] = [await marlin(args), await marlin([...args, "--group-size", "32"])];
  expect([plain.code, quantized.code]).toEqual([0, 0]);
  expect(JSON.parse(quantized.out).text).not.toBe(JSON.parse(plain.out).text);
});

test("8 bits are quantized, saved and told, and an activation quantizes on the way in", async () => {
  const out = path.join(folder, "bytes");
  const quantized = await marlin(["quantize", MODEL, "--out", out, "--bits", "8"]);
  expect(quantized.code).toBe(0);
  expect(quantized.err).toMatch(/Quantizing to 8 bits, group 128/);
  expect(quantized.out).toMatch(/layers in 8 bits/);
  const inspected = await marlin(["inspect", out]);
  expect(inspected.out).toMatch(/bits 8/);
  const args = ["run", MODEL, "import", "--json", "--no-stream", "--max-new-tokens", "64", "--temperature", "1"];
  const [auto, int8] = [await marlin([...args, "--bits", "4"]), await marlin([...args, "--activation", "int8"])];
  expect([auto.code, int8.code]).toEqual([0, 0]);
  expect(JSON.parse(int8.out).text).not.toBe(JSON.parse(auto.out).text);
});

test("a checkpoint that does not exist is one sentence with its code", async () => {
  const { code, out, err } = await marlin(["run", path.join(folder, "absent"), "x", "--json"]);
  expect(code).toBe(1);
  expect(readLines(out)).toMatchObject([{ error: { code: "checkpoint_not_found" } }]);
  expect(err).toMatch(/\[checkpoint_not_found\]\n$/);
});

test("Ctrl-C in the middle of a text ends with code 130, and the worker with it", async () => {
  const child = start(["run", MODEL, "def main():\n", "--max-new-tokens", "100000"]);
  const ended = end(child);
  const [log] = await once(child.stdout ?? child, "data");
  expect(String(log)).not.toBe("");
  child.kill("SIGINT");
  const { code, err } = await ended;
  expect(code).toBe(130);
  expect(err).toContain("Stopping; Ctrl-C again ends it at once.");
});

test("a reader that has seen enough is no failure", async () => {
  const child = start(["run", MODEL, "def main():\n", "--max-new-tokens", "100000"]);
  const closed = once(child, "close");
  child.stderr?.resume();
  await once(child.stdout ?? child, "data");
  child.stdout?.destroy();
  const [code] = await closed;
  expect(code).toBe(0);
});
