// `marlin bench <suite>`: runs a benchmark of bench/ in this terminal. The benchmarks are part of a clone only.

import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { InternalError, InvalidArgumentError, UnsupportedError } from "../../errors.ts";
import { findPython, PACKAGE_ROOT } from "../../worker-process/find-python.ts";
import { runForeground } from "../child.ts";
import type { Context } from "../context.ts";
import { ExitCode, UsageError } from "../exit.ts";

const SCRIPTS = new Map([
  ["linear", "bench/bench_linear.py"],
  ["decode", "bench/bench_decode.py"],
  ["bridge", "bench/bridge/run.mjs"],
]);

/** The names of the benchmarks. */
export const SUITES: readonly string[] = [...SCRIPTS.keys()];

/** Options of `marlin bench`. */
export interface BenchFlags {
  /** The Python to measure in; else the client's usual search. */
  readonly python?: string;
  readonly suite: string;
  /** For the benchmark itself. */
  readonly args: readonly string[];
}

/**
 * Its exit code is the benchmark's. Every benchmark prints a table and then its results as one line of JSON: in JSON mode
 * that line is the document, and the table goes to stderr.
 */
export async function bench({ output, signal }: Context, flags: BenchFlags): Promise<number> {
  const script = SCRIPTS.get(flags.suite);
  if (script === undefined) {
    throw new UsageError(`Expected a benchmark of ${SUITES.join(", ")}, got ${JSON.stringify(flags.suite)}.`);
  }
  if (!fs.existsSync(path.join(PACKAGE_ROOT, script))) {
    throw new UnsupportedError(
      `The benchmark \`${script}\` is part of a clone of the project, not of the published package.`,
    );
  }
  const python = findPython({ python: flags.python });
  const command = script.endsWith(".py") ? python : process.execPath;
  const env = { MARLIN_PYTHON: python };
  const run = (onLine?: (line: string) => void): Promise<number> =>
    runForeground(command, [script, ...flags.args], { env, signal, onLine }).catch((cause: unknown) => {
      throw new InvalidArgumentError(`\`--python\` must be a Python that runs, got ${python}.`, { cause });
    });
  if (!output.isJson) return await run();

  let last: string | undefined;
  const onLine = (line: string): void => {
    if (last !== undefined) output.note(last);
    last = line;
  };
  const code = await run(onLine);
  if (code === ExitCode.ok && last !== undefined) {
    output.json(JSON.parse(last));
    return code;
  }
  if (last !== undefined) output.note(last);
  const message = `The benchmark \`${script}\` ended with exit code ${code}; what it wrote is above.`;
  throw code === ExitCode.usage ? new UsageError(message) : new InternalError(message);
}
