// Models over the wire, against a real worker and a tiny random Llama.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Chunk } from "../../src/client/generation.ts";
import type { Model, Progress } from "../../src/client/model.ts";
import type { Untyped } from "../../src/client/types.ts";
import type { Worker } from "../../src/client/worker.ts";
import {
  CancelledError,
  CheckpointInvalidError,
  CheckpointNotFoundError,
  CheckpointUnsafeError,
  HandleDisposedError,
  InvalidArgumentError,
  MarlinError,
  UnsupportedError,
} from "../../src/errors.ts";
import { spawnWorker } from "./spawn.ts";

const PYTHON = fileURLToPath(new URL("../../python", import.meta.url));

let worker: Worker;
let root: string;
let folder: string;
beforeAll(async () => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), "marlin-model-test-"));
  folder = path.join(root, "tiny");
  worker = await spawnWorker({ env: { PYTHONPATH: PYTHON } });
  await worker.scope(async () => {
    const where = await worker.module<Untyped<"Path">>("pathlib").Path(folder);
    await worker.module<Untyped<"write_tiny_model">>("tests.tiny_model").write_tiny_model(where);
  });
});
afterAll(async () => {
  await worker.close();
  fs.rmSync(root, { recursive: true });
});

async function collect(generation: AsyncIterable<Chunk>): Promise<Chunk[]> {
  const chunks: Chunk[] = [];
  for await (const chunk of generation) chunks.push(chunk);
  return chunks;
}

describe("a model", () => {
  test("says what it is when it is loaded, and reports progress on the way", async () => {
    const seen: Progress[] = [];
    await using model = await worker.load(folder, { onProgress: (progress) => seen.push(progress) });
    expect(model.info).toMatchObject({
      path: folder,
      architecture: "LlamaForCausalLM",
      dtype: "float32",
      device: "cpu",
      quantization: null,
      kernel: null,
    });
    expect(model.info.weightBytes).toBe(model.info.floatWeightBytes);
    expect(seen.length).toBeGreaterThan(0);
    expect(String(model)).toBe(`Model(LlamaForCausalLM ${folder})`);
  });

  test("generates chunks that end with a reason, and a summary", async () => {
    await using model = await worker.load(folder);
    const generation = model.generate("def main", { maxNewTokens: 12 });
    const chunks = await collect(generation);
    expect(chunks.at(-1)?.finishReason).toMatch(/^(length|eos)$/);
    expect(chunks.slice(0, -1).every(({ finishReason }) => finishReason === null)).toBe(true);
    const tokens = chunks.flatMap((chunk) => chunk.tokens);
    const summary = await generation.summary;
    expect(summary).toMatchObject({ promptTokens: expect.any(Number), newTokens: tokens.length });
    expect(summary.secondsDecode).toBeGreaterThanOrEqual(0);
    expect(await model.generate("def main", { maxNewTokens: 12 }).texts()).toEqual([
      chunks.map(({ text }) => text).join(""),
    ]);
  });

  test("generates several prompts at a time, each under its index, the same from run to run with a seed", async () => {
    await using model = await worker.load(folder);
    const options = { maxNewTokens: 8, temperature: 0.9, topP: 0.9, seed: 7 };
    const once = await model.generate(["def", "class"], options).texts();
    expect(once).toHaveLength(2);
    expect(await model.generate(["def", "class"], options).texts()).toEqual(once);
    const chunks = await collect(model.generate(["def", "class"], options));
    expect(new Set(chunks.map(({ index }) => index))).toEqual(new Set([0, 1]));
  });

  test("stops generating when the loop is left, or the signal fires", async () => {
    await using model = await worker.load(folder);
    const left = model.generate("def", { maxNewTokens: 100 });
    for await (const chunk of left) if (chunk.tokens.length > 0) break;
    await expect(left.summary).rejects.toThrow(CancelledError);
    const controller = new AbortController();
    const loop = (async () => {
      for await (const _ of model.generate("def", { maxNewTokens: 100, signal: controller.signal })) controller.abort();
    })();
    await expect(loop).rejects.toThrow(CancelledError);
    await expect.poll(() => worker.stats()).toMatchObject({ streams: 0 });
  });

  test("is quantized in place, measured before and after, saved and loaded again in 4 bits", async () => {
    await using model = await worker.load(folder);
    const text = "def main():\n    return 0\n".repeat(40);
    const before = await model.perplexity(text, { contextLength: 32 });
    const report = await model.quantize({ groupSize: 32, exclude: ["lm_head"] });
    expect(report.layers.length).toBeGreaterThan(0);
    expect(report).toMatchObject({ method: "rtn", bits: 4, groupSize: 32, symmetric: true });
    expect(report.bytesAfter).toBeLessThan(report.bytesBefore);
    expect(model.info.quantization).toEqual({ bits: 4, groupSize: 32, symmetric: true, layers: report.layers.length });
    expect(model.info.kernel?.kernel).toMatch(/^\w+$/);
    expect(model.info.weightBytes).toBeLessThan(model.info.floatWeightBytes);
    const after = await model.perplexity(text, { contextLength: 32 });
    expect(after.tokens).toBe(before.tokens);
    expect(after.perplexity).not.toBe(before.perplexity);
    const saved = await model.save(path.join(root, "saved"));
    expect(saved).toEqual({ path: path.join(root, "saved"), bytes: expect.any(Number) });
    await using again = await worker.load(saved.path);
    expect(again.info.quantization).toEqual(model.info.quantization);
    expect(await again.generate("def", { maxNewTokens: 8 }).texts()).toEqual(
      await model.generate("def", { maxNewTokens: 8 }).texts(),
    );
  });

  test("is quantized while it is loaded", async () => {
    await using model = await worker.load(folder, { quantize: { groupSize: 64, symmetric: false }, dtype: "bfloat16" });
    expect(model.info.quantization).toMatchObject({ groupSize: 64, symmetric: false });
    expect(model.info.dtype).toBe("bfloat16");
  });

  test("takes 8 bits and a format of activations", async () => {
    await using model = await worker.load(folder, { quantize: { bits: 8, groupSize: 32, activation: "int8" } });
    expect(model.info.quantization).toMatchObject({ bits: 8, groupSize: 32, symmetric: true });
    await using precise = await worker.load(folder);
    const report = await precise.quantize({ bits: 8, groupSize: 32, activation: "auto" });
    expect(report.bits).toBe(8);
    const text = "def main():\n    return 0\n".repeat(40);
    const [rough, exact] = [await model.perplexity(text), await precise.perplexity(text)];
    expect(rough.perplexity).not.toBe(exact.perplexity);
    expect(Math.abs(rough.nll - exact.nll)).toBeLessThan(0.1);
  });

  test("measures texts that are too long for a control frame", async () => {
    await using model = await worker.load(folder);
    const report = await model.perplexity("words and words. ".repeat(100_000), { contextLength: 32, maxTokens: 64 });
    expect(report).toMatchObject({ tokens: 63, nll: expect.any(Number), seconds: expect.any(Number) });
  });

  test("ends with `dispose` and with its scope, and says so when it is used after that", async () => {
    const model = await worker.load(folder);
    await model.dispose();
    await model.dispose();
    await expect(model.perplexity("text")).rejects.toThrow(HandleDisposedError);
    await expect(model.generate("def").next()).rejects.toThrow(HandleDisposedError);
    expect(String(model)).toContain(", disposed");
    const scoped: Model = await worker.scope(async () => {
      const first = await worker.load(folder);
      await worker.load(folder);
      return first;
    });
    expect(await scoped.generate("def", { maxNewTokens: 1 }).texts()).toHaveLength(1);
    await scoped.dispose();
    const given = await worker.load(folder);
    await expect(given.dispose({ signal: AbortSignal.abort() })).rejects.toThrow(CancelledError); // and is given back
    expect(await worker.stats()).toMatchObject({ handles: 0 });
  });
});

describe("a bad request", () => {
  test.each<[string, () => Promise<unknown>, new (message: string) => MarlinError]>([
    ["a missing checkpoint", () => worker.load(path.join(root, "nowhere")), CheckpointNotFoundError],
    ["a truncated checkpoint", () => worker.load(damaged("truncated", truncate)), CheckpointInvalidError],
    ["pickle weights", () => worker.load(damaged("pickle", pickle)), CheckpointUnsafeError],
    ["an empty path", () => worker.load(""), InvalidArgumentError],
    ["an unknown option of load", () => load({ quantise: {} }), InvalidArgumentError],
    ["an unknown option of quantize in load", () => load({ quantize: { group: 32 } }), InvalidArgumentError],
    ["an unknown dtype", () => load({ dtype: "float8" }), InvalidArgumentError],
    ["an unknown device", () => worker.load(folder, { device: "cuda:7" }), MarlinError],
    ["a group that does not divide", () => worker.load(folder, { quantize: { groupSize: 48 } }), InvalidArgumentError],
    ["an activation that is none", () => load({ quantize: { activation: "int7" } }), InvalidArgumentError],
    ["8 bits with zero points", () => load({ quantize: { bits: 8, symmetric: false } }), UnsupportedError],
    ["another width than 4 or 8 bits", () => worker.load(folder, { quantize: { bits: 3 } }), UnsupportedError],
    ["an unknown method", () => worker.load(folder, { quantize: { method: "magic" } }), InvalidArgumentError],
  ])("%s is refused, and the worker lives on", async (_, call, type) => {
    await expect(call()).rejects.toThrow(type);
    expect(await worker.ping()).toMatchObject({ queued: 0 });
  });

  test("of a generation is refused with the argument's name", async () => {
    await using model = await worker.load(folder);
    await expect(model.generate("def", { topP: 1.5 }).texts()).rejects.toThrow(/`top_p`/);
    await expect(model.generate([]).texts()).rejects.toThrow(InvalidArgumentError);
    expect(() => model.generate("def", { maxNewTokens: 0 })).toThrow(
      /`maxNewTokens` must be a positive integer, got 0/,
    );
    expect(() => Reflect.apply(model.generate, model, ["def", { max_new_tokens: 1 }])).toThrow(
      /has no option `max_new_tokens`/,
    );
    expect(() => Reflect.apply(model.generate, model, [5])).toThrow(/`prompts` must be/);
  });

  function load(options: object): Promise<unknown> {
    return Reflect.apply(worker.load, worker, [folder, options]);
  }

  function damaged(name: string, damage: (copy: string) => void): string {
    const copy = path.join(root, name);
    fs.cpSync(folder, copy, { recursive: true });
    damage(copy);
    return copy;
  }

  function weightsOf(copy: string): string {
    return path.join(copy, fs.readdirSync(copy).find((name) => name.endsWith(".safetensors")) ?? "no weights");
  }

  function truncate(copy: string): void {
    const weights = weightsOf(copy);
    fs.truncateSync(weights, fs.statSync(weights).size - 100);
  }

  function pickle(copy: string): void {
    fs.renameSync(weightsOf(copy), path.join(copy, "pytorch_model.bin"));
  }
});
