// `marlin inspect <checkpoint>`: what a checkpoint holds. The worker reads headers only; no weights are loaded.

import { type Context, startWorker, type WorkerFlags } from "../context.ts";
import { ExitCode } from "../exit.ts";
import { formatBytes, formatCount, formatTable } from "../format.ts";

/** Options of `marlin inspect`. */
export interface InspectFlags extends WorkerFlags {
  readonly checkpoint: string;
}

/** What `checkpoint.inspect` answers (docs/protocol.md). */
interface Checkpoint {
  readonly path: string;
  readonly files: readonly string[];
  readonly bytes: number;
  readonly parameters: number;
  readonly quantization: Readonly<Record<string, unknown>> | null;
  readonly tensors: readonly {
    readonly name: string;
    readonly dtype: string;
    readonly shape: readonly number[];
    readonly bytes: number;
  }[];
}

/** One document: what the worker answers. */
export async function inspect(context: Context, flags: InspectFlags): Promise<number> {
  const { output, signal } = context;
  await using worker = await startWorker(context, flags);
  const checkpoint = await worker.call<Checkpoint>("checkpoint.inspect", [flags.checkpoint], {}, { signal });
  const { tensors, files, bytes, parameters } = checkpoint;
  output.line(
    formatTable(
      tensors.map(({ name, dtype, shape, bytes: size }) => [name, dtype, `[${shape.join(", ")}]`, formatBytes(size)]),
    ),
  );
  output.line(`\n${checkpoint.path}: ${files.join(", ")}`);
  output.line(`${tensors.length} tensors, ${formatBytes(bytes)}, ${formatCount(parameters)} parameters`);
  output.line(`Quantization: ${describeQuantization(checkpoint.quantization)}`);
  output.json(checkpoint);
  return ExitCode.ok;
}

/** `bits 4, group_size 128, ...`: the plain values, whatever tool wrote them, and for how many layers they hold. */
function describeQuantization(quantization: Checkpoint["quantization"]): string {
  if (quantization === null) return "none";
  const parts = Object.entries(quantization).map(([key, value]) => {
    if (typeof value !== "object" || value === null) return `${key} ${value}`;
    return `${Object.keys(value).length} ${key}`;
  });
  return parts.join(", ");
}
