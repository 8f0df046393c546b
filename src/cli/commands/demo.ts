// `marlin demo`: what `npm start` runs. Measures the bundled model, puts it in 4 bits, measures again, and streams text.

import fs from "node:fs/promises";
import path from "node:path";
import type { Model, PerplexityReport } from "../../client/model.ts";
import { CheckpointNotFoundError } from "../../errors.ts";
import { BUNDLED_MODEL, type Context, loadModel, report, startWorker, type WorkerFlags } from "../context.ts";
import { ExitCode } from "../exit.ts";
import { formatBytes, formatChange, formatRatio, formatTable } from "../format.ts";
import { type Generated, type GenerateFlags, generate } from "../generate.ts";

/** The first calls find threads and caches cold. */
const WARM_UP_TOKENS = 8;

/** Options of `marlin demo`. */
export interface DemoFlags extends WorkerFlags, GenerateFlags {
  readonly model: string;
  readonly prompt: string;
  readonly groupSize: number;
  /** How much of the held-out text is measured, before and after. */
  readonly heldoutTokens: number;
  /** Show the text as it comes, rather than at the end. */
  readonly stream: boolean;
}

/** What is measured, in full precision and in 4 bits. */
interface Measured {
  readonly dtype: string;
  readonly weightBytes: number;
  readonly perplexity: number;
  readonly tokensPerSecond: number;
}

/** Which kernel runs, as `marlin.kernel_info()` says. */
interface Kernel {
  readonly kernel: string;
  readonly reason: string;
}

/** One document: the model, both measurements and over how many tokens of the held-out text, the kernel, and the text. */
export async function demo(context: Context, flags: DemoFlags): Promise<number> {
  const { output, signal } = context;
  const heldout = await readHeldout();
  await using worker = await startWorker(context, flags);
  await using model = await loadModel(context, worker, flags.model);

  const perplexityBefore = await measurePerplexity(context, model, heldout, flags.heldoutTokens);
  const generatedBefore = await output.during("Generating in full precision", async (step) => {
    const generated = await generateWarm(context, model, flags);
    step.note(`${generated.tokensPerSecond.toFixed(0)} tokens/s`);
    return generated;
  });
  const before = collect(model, perplexityBefore, generatedBefore);

  await output.during(`Quantizing to 4 bits, group ${flags.groupSize}`, async (step) => {
    const { layers } = await model.quantize({ groupSize: flags.groupSize, onProgress: report(step), signal });
    step.note(`${layers.length} layers`);
  });
  const perplexityAfter = await measurePerplexity(context, model, heldout, flags.heldoutTokens);

  output.line(`\n${flags.prompt}`);
  const generated = await generateWarm(context, model, flags, (text) => {
    if (flags.stream) output.write(text);
  });
  output.line(flags.stream ? "" : generated.text);
  const after = collect(model, perplexityAfter, generated);
  const heldoutTokens = perplexityAfter.tokens;

  const { kernel } = await worker.call<{ readonly kernel: Kernel }>("worker.info", [], {}, { signal });
  output.line(`\n${table(before, after, flags.groupSize)}\n`);
  output.line(`Perplexity: over ${heldoutTokens} tokens from the beginning of the held-out text (--heldout-tokens).`);
  output.line(`Kernel: ${kernel.kernel} (${kernel.reason})`);
  output.json({
    model: flags.model,
    groupSize: flags.groupSize,
    heldoutTokens,
    before,
    after,
    kernel,
    prompt: flags.prompt,
    generated,
  });
  return ExitCode.ok;
}

async function readHeldout(): Promise<string> {
  const file = path.join(BUNDLED_MODEL, "heldout.txt");
  try {
    return await fs.readFile(file, "utf8");
  } catch (error) {
    throw new CheckpointNotFoundError(`Expected the bundled model's text at ${file}, but it cannot be read.`, {
      cause: error,
    });
  }
}

async function measurePerplexity(
  { output, signal }: Context,
  model: Model,
  text: string,
  maxTokens: number,
): Promise<PerplexityReport> {
  const precision = model.info.quantization === null ? "full precision" : "4 bits";
  return await output.during(`Measuring perplexity on held-out text, ${precision}`, async (step) => {
    const result = await model.perplexity(text, { maxTokens, onProgress: report(step), signal });
    step.note(`${result.perplexity.toFixed(3)} over ${result.tokens} tokens`);
    return result;
  });
}

async function generateWarm(
  context: Context,
  model: Model,
  flags: DemoFlags,
  onText?: (text: string) => void,
): Promise<Generated> {
  await generate(context, model, flags.prompt, { ...flags, maxNewTokens: WARM_UP_TOKENS });
  return await generate(context, model, flags.prompt, flags, onText);
}

function collect({ info }: Model, { perplexity }: PerplexityReport, { tokensPerSecond }: Generated): Measured {
  return { dtype: info.dtype, weightBytes: info.weightBytes, perplexity, tokensPerSecond };
}

function table(before: Measured, after: Measured, groupSize: number): string {
  return formatTable([
    ["", before.dtype, `4 bits, group ${groupSize}`, ""],
    [
      "bytes of weights",
      formatBytes(before.weightBytes),
      formatBytes(after.weightBytes),
      `${formatRatio(before.weightBytes / after.weightBytes)} smaller`,
    ],
    [
      "perplexity",
      before.perplexity.toFixed(3),
      after.perplexity.toFixed(3),
      formatChange(before.perplexity, after.perplexity),
    ],
    [
      "tokens/s",
      before.tokensPerSecond.toFixed(0),
      after.tokensPerSecond.toFixed(0),
      formatRatio(after.tokensPerSecond / before.tokensPerSecond),
    ],
  ]);
}
