// `marlin run <model> <prompt>`: generates text, token by token.

import type { Activation, LoadOptions } from "../../client/model.ts";
import type { Context, WorkerFlags } from "../context.ts";
import { loadModel, startWorker } from "../context.ts";
import { ExitCode } from "../exit.ts";
import { type GenerateFlags, generate } from "../generate.ts";

/** Options of `marlin run`. */
export interface RunFlags extends WorkerFlags, GenerateFlags {
  readonly model: string;
  readonly prompt: string;
  readonly dtype?: LoadOptions["dtype"];
  /** Put the Linears in `bits` on the way in. */
  readonly quantize: boolean;
  readonly bits: number;
  readonly activation: Activation;
  readonly groupSize: number;
  /** Show the text as it comes, rather than at the end. */
  readonly stream: boolean;
}

/** Streams: in JSON mode a line per piece, then one with the summary. Without `stream` only the summary, with the text. */
export async function run(context: Context, flags: RunFlags): Promise<number> {
  const { output } = context;
  await using worker = await startWorker(context, flags);
  await using model = await loadModel(context, worker, flags.model, {
    dtype: flags.dtype,
    quantize: flags.quantize
      ? { bits: flags.bits, groupSize: flags.groupSize, activation: flags.activation }
      : undefined,
  });
  const generated = await generate(context, model, flags.prompt, flags, (text) => {
    if (!flags.stream || text === "") return;
    output.write(text);
    output.json({ text });
  });
  if (!flags.stream) output.write(generated.text);
  output.line();
  const { text, ...summary } = generated;
  output.json(flags.stream ? summary : { text, ...summary });
  if (!output.isJson) output.note(`${summary.newTokens} tokens, ${summary.tokensPerSecond.toFixed(1)} tokens/s`);
  return ExitCode.ok;
}
