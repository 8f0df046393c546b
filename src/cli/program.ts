// The command line: names, options, help. Parses, and hands each command its flags; does nothing itself.

import type { Readable } from "node:stream";
import { Command, CommanderError } from "commander";
import { VERSION } from "../client/version.ts";
import { CancelledError } from "../errors.ts";
import { type BenchFlags, bench, SUITES } from "./commands/bench.ts";
import { type DemoFlags, demo } from "./commands/demo.ts";
import { doctor } from "./commands/doctor.ts";
import { inspect } from "./commands/inspect.ts";
import { type QuantizeFlags, quantize } from "./commands/quantize.ts";
import { type RunFlags, run } from "./commands/run.ts";
import { BUNDLED_MODEL, type Context, type WorkerFlags } from "./context.ts";
import { ExitCode, errorDocument, errorText, UsageError } from "./exit.ts";
import {
  activation,
  bits,
  type CommonFlags,
  dtype,
  groupSize,
  integer,
  repeatable,
  withCommon,
  withGeneration,
  withPython,
  withWorker,
} from "./options.ts";
import { createOutput } from "./output.ts";
import type { OutputStream } from "./progress.ts";
import { readPrompt } from "./prompt.ts";

const DEFAULT_PROMPT = "def read_config(path):\n";

/** Both measurements of the demo read the same tokens, so few are enough to compare; seconds on a laptop. */
const HELDOUT_TOKENS = 4096;

const EXIT_CODES = `
Exit codes: 0 done; 1 failed, the message has the code of docs/errors.md; 2 wrong command line; 130 interrupted.`;

/** Where a program reads and writes; injected, so that tests need no process. */
export interface Streams {
  readonly stdin: Readable;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
}

/** Runs one command line. Resolves with the exit code and never rejects. */
export async function runProgram(args: readonly string[], streams: Streams, signal: AbortSignal): Promise<number> {
  let exitCode: number = ExitCode.ok;
  // A failure of the parser itself is told before any command could say how.
  let flags: CommonFlags = { json: args.includes("--json"), verbose: args.includes("--verbose") };
  const action = (command: (context: Context) => Promise<number>, given: CommonFlags): Promise<void> => {
    flags = given;
    return command({ output: createOutput({ ...streams, json: given.json }), signal }).then((code) => {
      exitCode = code;
    });
  };
  const output = (): ReturnType<typeof createOutput> => createOutput({ ...streams, json: flags.json });
  try {
    await buildProgram(action, streams).parseAsync(args, { from: "user" });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return ExitCode.ok;
      output().json(errorDocument(new UsageError(error.message.replace(/^error: /, "")), flags.verbose));
      return ExitCode.usage;
    }
    if (signal.aborted) {
      output().json(errorDocument(new CancelledError("The command was interrupted."), flags.verbose));
      return ExitCode.interrupted;
    }
    output().json(errorDocument(error, flags.verbose));
    output().note(errorText(error, flags.verbose));
    return error instanceof UsageError ? ExitCode.usage : ExitCode.failed;
  }
}

type Action = (command: (context: Context) => Promise<number>, flags: CommonFlags) => Promise<void>;

function buildProgram(action: Action, { stdin, stdout, stderr }: Streams): Command {
  const program = new Command("marlin")
    .description("4-bit PyTorch models, driven from TypeScript.")
    .version(VERSION)
    .addHelpText("after", EXIT_CODES)
    .exitOverride()
    .configureOutput({ writeOut: (text) => stdout.write(text), writeErr: (text) => stderr.write(text) });

  withGeneration(withWorker(withCommon(program.command("demo"))), { maxNewTokens: 160, temperature: 0.7 })
    .description("measure the bundled model in full precision and in 4 bits, and stream text")
    .option("--prompt <text>", "what to continue; - reads standard input", DEFAULT_PROMPT)
    .option("--heldout-tokens <n>", "how much of the held-out text is measured", integer(1), HELDOUT_TOKENS)
    .option("--model <path>", "another model: a folder or a hub id", BUNDLED_MODEL)
    .addOption(groupSize())
    .action((flags: DemoFlags & CommonFlags) =>
      action(async (context) => demo(context, { ...flags, prompt: await readPrompt(flags.prompt, stdin) }), flags),
    );

  withGeneration(withWorker(withCommon(program.command("run <model> <prompt>"))), { maxNewTokens: 256, temperature: 0 })
    .description("continue a prompt (- reads it from standard input) with a model: a folder or a hub id")
    .addOption(dtype())
    .option("--quantize", "put the Linears in few bits while loading", false)
    .option("--stop <text>", "end before this text; may be given several times", repeatable)
    .addOption(bits().implies({ quantize: true }))
    .addOption(groupSize().implies({ quantize: true }))
    .addOption(activation().implies({ quantize: true }))
    .action((model: string, prompt: string, flags: Omit<RunFlags, "model" | "prompt"> & CommonFlags) =>
      action(async (context) => run(context, { ...flags, model, prompt: await readPrompt(prompt, stdin) }), flags),
    );

  withWorker(withCommon(program.command("quantize <model>")))
    .description("put a model's Linears in 4 or 8 bits and save it as a safetensors checkpoint")
    .requiredOption("--out <folder>", "where to save it")
    .option("--asymmetric", "a zero point per group, rather than a symmetric range", false)
    .addOption(dtype())
    .option("--overwrite", "replace what is in the folder", false)
    .addOption(bits())
    .addOption(groupSize())
    .action((model: string, flags: Omit<QuantizeFlags, "model"> & CommonFlags) =>
      action((context) => quantize(context, { ...flags, model }), flags),
    );

  withWorker(withCommon(program.command("inspect <checkpoint>")))
    .description("say what a checkpoint holds: tensors, dtypes, quantization; loads no weights")
    .action((checkpoint: string, flags: WorkerFlags & CommonFlags) =>
      action((context) => inspect(context, { ...flags, checkpoint }), flags),
    );

  withWorker(withCommon(program.command("doctor")))
    .description("check Python, torch, the compiler, the operators, shared memory and ZeroMQ, and say what to do")
    .action((flags: WorkerFlags & CommonFlags) => action((context) => doctor(context, flags), flags));

  withPython(withCommon(program.command("bench <suite> [args...]")))
    .description(`run a benchmark (${SUITES.join(", ")}); what follows -- goes to it`)
    .action((suite: string, args: string[], flags: Omit<BenchFlags, "suite" | "args"> & CommonFlags) =>
      action((context) => bench(context, { ...flags, suite, args }), flags),
    );

  return program;
}
