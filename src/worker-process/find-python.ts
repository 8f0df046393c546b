// Which Python runs the worker. A pure function of its arguments; starts nothing.

import { existsSync } from "node:fs";
import path from "node:path";
import process from "node:process";

/** The package's folder: this file is in `src/` or `dist/` of it. */
export const PACKAGE_ROOT: string = path.join(import.meta.dirname, "..", "..");

/** What `findPython` looks at; everything has the running program's value as default. */
export interface FindPythonOptions {
  /** A Python that the caller names: taken as it is. */
  readonly python?: string | undefined;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly packageRoot?: string;
  readonly platform?: NodeJS.Platform;
  readonly exists?: (file: string) => boolean;
}

/**
 * The Python to run: the one named by the caller or by `MARLIN_PYTHON`, else the first that exists of: the active virtual
 * environment, the active conda environment, the package's own `.venv`; else `python3` from the PATH.
 */
export function findPython(options: FindPythonOptions = {}): string {
  const {
    python,
    env = process.env,
    packageRoot = PACKAGE_ROOT,
    platform = process.platform,
    exists = existsSync,
  } = options;
  const named = python ?? env.MARLIN_PYTHON;
  if (named !== undefined && named !== "") return named;
  const isWindows = platform === "win32";
  const inVenv = isWindows ? ["Scripts", "python.exe"] : ["bin", "python"];
  const inConda = isWindows ? ["python.exe"] : ["bin", "python"];
  const candidates = [
    within(env.VIRTUAL_ENV, inVenv),
    within(env.CONDA_PREFIX, inConda),
    within(path.join(packageRoot, ".venv"), inVenv),
  ];
  return candidates.find((file) => file !== undefined && exists(file)) ?? (isWindows ? "python" : "python3");
}

function within(folder: string | undefined, steps: readonly string[]): string | undefined {
  return folder === undefined || folder === "" ? undefined : path.join(folder, ...steps);
}
