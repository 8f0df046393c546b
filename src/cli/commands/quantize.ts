// `marlin quantize <model> --out DIR`: puts a model's Linears in 4 bits and saves the result as a checkpoint.

import fs from "node:fs/promises";
import type { LoadOptions } from "../../client/model.ts";
import type { Context, WorkerFlags } from "../context.ts";
import { loadModel, report, startWorker } from "../context.ts";
import { ExitCode, UsageError } from "../exit.ts";
import { formatBytes, formatRatio, formatTable } from "../format.ts";

/** Options of `marlin quantize`. */
export interface QuantizeFlags extends WorkerFlags {
  readonly model: string;
  readonly out: string;
  readonly groupSize: number;
  /** Zero points per group, rather than a symmetric range. */
  readonly asymmetric: boolean;
  readonly dtype?: LoadOptions["dtype"];
  /** Replace what is in `out`. */
  readonly overwrite: boolean;
}

/** One document: the report of the quantization, and what was saved. */
export async function quantize(context: Context, flags: QuantizeFlags): Promise<number> {
  const { output, signal } = context;
  if (!flags.overwrite) await requireEmpty(flags.out);
  await using worker = await startWorker(context, flags);
  await using model = await loadModel(context, worker, flags.model, { dtype: flags.dtype });
  const quantized = await output.during(`Quantizing to 4 bits, group ${flags.groupSize}`, async (step) =>
    model.quantize({ groupSize: flags.groupSize, symmetric: !flags.asymmetric, onProgress: report(step), signal }),
  );
  const saved = await output.during(`Saving to ${flags.out}`, async (step) =>
    model.save(flags.out, { overwrite: flags.overwrite, onProgress: report(step), signal }),
  );
  const { weightBytes, floatWeightBytes } = model.info;
  output.line(
    formatTable([
      ["layers in 4 bits", String(quantized.layers.length)],
      ["layers left as they were", String(quantized.skipped.length)],
      ["weights before", formatBytes(floatWeightBytes)],
      ["weights now", `${formatBytes(weightBytes)}`],
      ["smaller by", formatRatio(floatWeightBytes / weightBytes)],
    ]),
  );
  for (const { name, reason } of quantized.skipped) output.line(`  left: ${name}: ${reason}`);
  output.line(`Saved ${formatBytes(saved.bytes)} to ${saved.path}`);
  output.json({ ...saved, weightBytes, floatWeightBytes, report: quantized });
  return ExitCode.ok;
}

/** Refuses before minutes of work, not after. */
async function requireEmpty(folder: string): Promise<void> {
  const entries = await fs.readdir(folder).catch(() => []);
  if (entries.length > 0)
    throw new UsageError(
      `Expected \`--out\` to be a new or empty folder, got ${folder} with files in it; --overwrite replaces them.`,
    );
}
