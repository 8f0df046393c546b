// The options that several commands share, and how their values are read. Knows no command.

import { type Command, InvalidArgumentError, Option } from "commander";

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
    .option("--top-p <p>", "sample from the likeliest tokens that make up this share", number(0, 1), 1)
    .option("--seed <n>", "the same seed gives the same text", integer(0), 0)
    .option("--no-stream", "print the text at the end, not as it comes");
}

/** `--group-size`. */
export function groupSize(): Option {
  return new Option("--group-size <g>", "weights that share a scale: 32, 64, 128, ..., or -1 for one group")
    .argParser(integer(-1))
    .default(128);
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

/** Reads a number from `minimum` to `maximum`. */
export function number(minimum: number, maximum: number = Number.POSITIVE_INFINITY): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isFinite(value) || value < minimum || value > maximum || text.trim() === "") {
      const range = maximum === Number.POSITIVE_INFINITY ? `of at least ${minimum}` : `from ${minimum} to ${maximum}`;
      throw new InvalidArgumentError(`Expected a number ${range}, got ${JSON.stringify(text)}.`);
    }
    return value;
  };
}

/** Collects the values of an option that may be given several times. */
export function repeatable(text: string, earlier: readonly string[] = []): readonly string[] {
  return [...earlier, text];
}
