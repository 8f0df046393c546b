// Programs that a command runs to their end: what doctor asks, and the benches. Knows no worker.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { PACKAGE_ROOT } from "../worker-process/find-python.ts";
import { ExitCode } from "./exit.ts";

/** A program that answers to doctor has this long; a cold import of torch takes seconds. */
const CAPTURE_TIMEOUT_MS = 120_000;

/** How a program ended, and what it wrote. */
export interface ProgramResult {
  /** Null if it did not run, or was ended by a signal. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program and keeps what it writes; never rejects. Python finds the `marlin` of this package. */
export async function captureProgram(
  command: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<ProgramResult> {
  const child = spawn(command, args, {
    env: pythonEnvironment(),
    stdio: ["ignore", "pipe", "pipe"],
    // Not spawn's own timeout: for a program that does not exist it would keep this process alive until it passes.
    signal: AbortSignal.any([signal, AbortSignal.timeout(CAPTURE_TIMEOUT_MS)]),
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const code = await exitCode(child).catch(() => null);
  return { code, stdout, stderr };
}

/** How a program runs in the foreground. */
export interface ForegroundOptions {
  /** Added to the environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Takes each line of its stdout, which otherwise is this terminal. */
  readonly onLine?: ((line: string) => void) | undefined;
}

/** Runs a program with this terminal, in the package's folder; resolves with its exit code. Rejects if it cannot start. */
export async function runForeground(
  command: string,
  args: readonly string[],
  options: ForegroundOptions,
): Promise<number> {
  const { env, signal, onLine } = options;
  const child = spawn(command, args, {
    cwd: PACKAGE_ROOT,
    env: { ...pythonEnvironment(), ...env },
    stdio: ["inherit", onLine === undefined ? "inherit" : "pipe", "inherit"],
    signal,
  });
  // Both at once: a program that cannot start, or is interrupted, rejects while its output is still waited for.
  const [code] = await Promise.all([exitCode(child), readLines(child, onLine)]);
  return code ?? ExitCode.failed;
}

async function readLines({ stdout }: ChildProcess, onLine: ForegroundOptions["onLine"]): Promise<void> {
  if (onLine === undefined || stdout === null) return;
  for await (const line of createInterface({ input: stdout })) onLine(line);
}

/** Waits for the end of a child and of its output; rejects if it could not start. */
async function exitCode(child: ChildProcess): Promise<number | null> {
  const [code] = await once(child, "close");
  return typeof code === "number" ? code : null;
}

function pythonEnvironment(): NodeJS.ProcessEnv {
  const own = path.join(PACKAGE_ROOT, "python");
  const inherited = process.env.PYTHONPATH;
  return { ...process.env, PYTHONPATH: inherited === undefined ? own : `${own}${path.delimiter}${inherited}` };
}
