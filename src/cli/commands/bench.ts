// `marlin bench <suite>`: runs a benchmark of bench/ in this terminal. The benchmarks are part of a clone only.

import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { UnsupportedError } from "../../errors.ts";
import { findPython, PACKAGE_ROOT } from "../../worker-process/find-python.ts";
import { runForeground } from "../child.ts";
import type { Context, WorkerFlags } from "../context.ts";
import { UsageError } from "../exit.ts";

const SCRIPTS = new Map([
  ["linear", "bench/bench_linear.py"],
  ["bridge", "bench/bridge/run.mjs"],
]);

/** The names of the benchmarks. */
export const SUITES: readonly string[] = [...SCRIPTS.keys()];

/** Options of `marlin bench`. */
export interface BenchFlags extends WorkerFlags {
  readonly suite: string;
  /** For the benchmark itself. */
  readonly args: readonly string[];
  readonly json: boolean;
}

/** Its exit code is the benchmark's; with `json` the benchmark prints JSON only. */
export async function bench({ signal }: Context, flags: BenchFlags): Promise<number> {
  const script = SCRIPTS.get(flags.suite);
  if (script === undefined) {
    throw new UsageError(`Expected a benchmark of ${SUITES.join(", ")}, got ${JSON.stringify(flags.suite)}.`);
  }
  if (!fs.existsSync(path.join(PACKAGE_ROOT, script))) {
    throw new UnsupportedError(
      `The benchmark \`${script}\` is part of a clone of the project, not of the published package.`,
    );
  }
  const command = script.endsWith(".py") ? findPython({ python: flags.python }) : process.execPath;
  return await runForeground(command, [script, ...(flags.json ? ["--json"] : []), ...flags.args], signal);
}
