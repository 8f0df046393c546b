// `marlin quantize <model> --out DIR`: puts a model's Linears in few bits and saves the result as a checkpoint.

import fs, { constants } from "node:fs/promises";
import path from "node:path";
import type { LoadOptions } from "../../client/model.ts";
import type { Context, WorkerFlags } from "../context.ts";
import { loadModel, report, startWorker } from "../context.ts";
import { ExitCode, UsageError } from "../exit.ts";
import { formatBytes, formatRatio, formatTable } from "../format.ts";

/** Options of `marlin quantize`. */
export interface QuantizeFlags extends WorkerFlags {
  readonly model: string;
  readonly out: string;
  readonly bits: number;
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
  await checkOut(flags.out, flags.overwrite);
  await using worker = await startWorker(context, flags);
  await using model = await loadModel(context, worker, flags.model, { dtype: flags.dtype });
  const { bits, groupSize } = flags;
  const quantized = await output.during(`Quantizing to ${bits} bits, group ${groupSize}`, async (step) =>
    model.quantize({ bits, groupSize, symmetric: !flags.asymmetric, onProgress: report(step), signal }),
  );
  const saved = await output.during(`Saving to ${flags.out}`, async (step) =>
    model.save(flags.out, { overwrite: flags.overwrite, onProgress: report(step), signal }),
  );
  const { weightBytes, floatWeightBytes } = model.info;
  output.line(
    formatTable([
      [`layers in ${bits} bits`, String(quantized.layers.length)],
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
async function checkOut(out: string, overwrite: boolean): Promise<void> {
  const folder = path.resolve(out);
  const existing = await nearestExisting(folder);
  if (!(await isWritableFolder(existing))) {
    throw new UsageError(`Expected \`--out\` to be a folder that can be written, got ${out}: ${existing} is none.`);
  }
  if (overwrite || existing !== folder) return;
  const entries = await fs.readdir(folder);
  if (entries.length > 0) {
    throw new UsageError(
      `Expected \`--out\` to be a new or empty folder, got ${out} with files in it; --overwrite replaces them.`,
    );
  }
}

/** The path itself, or what is above it and exists. */
async function nearestExisting(file: string): Promise<string> {
  return await fs.access(file).then(
    () => file,
    () => nearestExisting(path.dirname(file)),
  );
}

async function isWritableFolder(file: string): Promise<boolean> {
  const isFolder = (await fs.stat(file)).isDirectory();
  return (
    isFolder &&
    (await fs
      .access(file, constants.W_OK)
      .then(() => true)
      .catch(() => false))
  );
}
