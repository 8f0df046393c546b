// `marlin inspect <checkpoint>`: what a checkpoint holds. The worker reads headers only; no weights are loaded.

import { type Context, startWorker, type WorkerFlags } from "../context.ts";
import { ExitCode } from "../exit.ts";
import { formatTree } from "../format.ts";

/** Options of `marlin inspect`. */
export interface InspectFlags extends WorkerFlags {
  readonly checkpoint: string;
}

/** One document: what `checkpoint.inspect` of docs/protocol.md answers. */
export async function inspect(context: Context, flags: InspectFlags): Promise<number> {
  const { output, signal } = context;
  await using worker = await startWorker(context, flags);
  const description = await worker.call("checkpoint.inspect", [flags.checkpoint], {}, { signal });
  output.line(formatTree(description));
  output.json(description);
  return ExitCode.ok;
}
