// The options that several commands share, and how their values are read. Knows no command.

import { type Command, InvalidArgumentError, Option } from "commander";
import { ACTIVATIONS } from "../client/model.ts";

/** As python/marlin/primitives.py has them; asked for before minutes of loading, not after. */
const GROUP_SIZES: readonly number[] = [32, 64, 128, -1];
const BITS: readonly number[] = [4, 8];

/** `--json` and `--verbose`, of every command. */
export interface CommonFlags {
  readonly json: boolean;
  readonly verbose: boolean;
}

/** Adds the options of every command. */
export function withCommon(command: Command): Command {
  return command
    .option("--json", "print JSON on stdout and nothing else", false)
    .option("--verbose", "with an error, print where it came from", false);
}

/** Adds `--python`. */
export function withPython(command: Command): Command {
  return command.option("--python <path>", "the Python to use (default: MARLIN_PYTHON, an active environment, .venv)");
}

/** Adds the options of commands that start a worker. */
export function withWorker(command: Command): Command {
  return withPython(command).option(
    "--threads <n>",
    "threads that torch may use (default: its own choice)",
    integer(1),
  );
}

/** Adds the options of commands that generate. */
export function withGeneration(
  command: Command,
  defaults: { readonly maxNewTokens: number; readonly temperature: number },
): Command {
  return command
    .option("--max-new-tokens <n>", "stop after this many tokens", integer(1), defaults.maxNewTokens)
    .option("--temperature <t>", "0 takes the likeliest token, more is more varied", number(0), defaults.temperature)
    .option("--top-p <p>", "sample from the likeliest tokens that make up this share", share, 1)
    .option("--seed <n>", "the same seed gives the same text", integer(0), 0)
    .option("--no-stream", "print the text at the end, not as it comes");
}

/** `--group-size`. */
export function groupSize(): Option {
  return new Option("--group-size <g>", `weights that share a scale: ${GROUP_SIZES.join(", ")} for one group`)
    .argParser((text) => {
      const value = Number(text);
      if (GROUP_SIZES.includes(value)) return value;
      throw new InvalidArgumentError(`Expected one of ${GROUP_SIZES.join(", ")}, got ${JSON.stringify(text)}.`);
    })
    .default(128);
}

/** `--bits`. */
export function bits(): Option {
  return new Option("--bits <b>", "bits of a weight: 4 or 8")
    .argParser((text) => {
      const value = BITS.find((known) => String(known) === text);
      if (value !== undefined) return value;
      throw new InvalidArgumentError(`Expected 4 or 8, got ${JSON.stringify(text)}.`);
    })
    .default(4);
}

/** `--activation`. */
export function activation(): Option {
  return new Option("--activation <format>", "what inputs are multiplied in: auto keeps their precision")
    .choices(ACTIVATIONS)
    .default("auto");
}

/** `--dtype`. */
export function dtype(): Option {
  return new Option("--dtype <name>", "of the weights that stay in floating point (default: the checkpoint's)").choices(
    ["float32", "bfloat16", "float16"],
  );
}

/** Reads an integer of at least `minimum`. */
export function integer(minimum: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isSafeInteger(value) || value < minimum || text.trim() === "") {
      throw new InvalidArgumentError(`Expected an integer of at least ${minimum}, got ${JSON.stringify(text)}.`);
    }
    return value;
  };
}

/** Reads a number of at least `minimum`. */
export function number(minimum: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isFinite(value) || value < minimum || text.trim() === "") {
      throw new InvalidArgumentError(`Expected a number of at least ${minimum}, got ${JSON.stringify(text)}.`);
    }
    return value;
  };
}

/** Reads a share: above 0, at most 1. */
export function share(text: string): number {
  const value = Number(text);
  if (value > 0 && value <= 1) return value;
  throw new InvalidArgumentError(`Expected a number above 0 and at most 1, got ${JSON.stringify(text)}.`);
}

/** Collects the texts of an option that may be given several times. */
export function repeatable(text: string, earlier: readonly string[] = []): readonly string[] {
  if (text === "") throw new InvalidArgumentError("Expected a text, got an empty one.");
  return [...earlier, text];
}
