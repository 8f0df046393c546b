// Runs the checks one after another with their output in view, and ends with a summary table.

import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { ROOT, STATE } from "../setup/paths.mjs";
import { formatSeconds } from "../steps/progress.mjs";
import { InterruptedError } from "../steps/step.mjs";

/** Far beyond what any command takes; a test that hangs must not hang whoever waits for the result. */
const LIMIT_MS = 15 * 60_000;
const KILL_AFTER_MS = 5000;

/**
 * @param {import("./checks.mjs").Check[]} checks
 * @param {{ env: NodeJS.ProcessEnv, signal: AbortSignal, write?: (text: string) => void }} options
 * @returns {Promise<number>} the exit code
 */
export async function runChecks(checks, { env, signal, write = (text) => process.stdout.write(text) }) {
  fs.mkdirSync(path.join(STATE, "reports"), { recursive: true });
  const rows = [];
  for (const check of checks) {
    write(`\n=== ${check.title} ===\n`);
    check.counts?.();
    const began = performance.now();
    const ok = await runAll(check.commands, { env, signal });
    if (signal.aborted) throw new InterruptedError();
    const seconds = (performance.now() - began) / 1000;
    write(`--- ${check.name}: ${ok ? "ok" : "FAILED"}, ${formatSeconds(seconds)}\n`);
    rows.push({ name: check.name, ok, seconds, ...settle(ok, check.counts?.()) });
  }
  write(summarize(rows));
  return rows.every(({ ok }) => ok) ? 0 : 1;
}

/**
 * Pure: the counts of a check. One without a report counts as one test, and one that failed has at least one failure,
 * so that the sum never says "0 failed" beside a failing exit code.
 * @param {boolean} ok
 * @param {import("./counts.mjs").Counts | undefined} counts
 */
export function settle(ok, counts) {
  if (counts === undefined) return { passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: 0 };
  return { ...counts, failed: ok ? counts.failed : Math.max(1, counts.failed) };
}

/** Pure: the table, and the last line `N passed, N failed`. */
export function summarize(rows) {
  const width = Math.max(...rows.map(({ name }) => name.length));
  const lines = rows.map(({ name, ok, seconds, passed, failed, skipped }) => {
    const counts = `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
    return `${ok ? "ok    " : "FAILED"}  ${name.padEnd(width)}  ${formatSeconds(seconds).padStart(12)}  ${counts}`;
  });
  const total = (key) => rows.reduce((sum, row) => sum + row[key], 0);
  return `\n${lines.join("\n")}\n\n${total("passed")} passed, ${total("failed")} failed\n`;
}

/** All commands run, also after one failed: a check reports everything at once. */
export async function runAll(commands, options) {
  let ok = true;
  for (const command of commands) {
    if (options.signal.aborted) return false;
    ok = (await run(command, options)) && ok;
  }
  return ok;
}

function run([command, ...args], { env, signal }) {
  // A group of its own: what the command started ends with it. A process left behind would go on with the tests, and
  // hold open the pipe that continuous integration reads.
  const child = spawn(command, args, { cwd: ROOT, env, stdio: ["ignore", "inherit", "inherit"], detached: true });
  let killer;
  const abort = () => {
    signalGroup(child, "SIGTERM");
    killer = setTimeout(() => signalGroup(child, "SIGKILL"), KILL_AFTER_MS);
  };
  signal.addEventListener("abort", abort, { once: true });
  const limit = setTimeout(() => {
    process.stderr.write(`\`${command}\` did not end within ${formatSeconds(LIMIT_MS / 1000)}, and is stopped.\n`);
    abort();
  }, LIMIT_MS);
  return new Promise((resolve) => {
    const settleRun = (ok) => {
      clearTimeout(limit);
      if (!signalGroup(child, 0)) clearTimeout(killer);
      signal.removeEventListener("abort", abort);
      resolve(ok);
    };
    child.once("error", (error) => {
      process.stderr.write(`\`${command}\` could not be started: ${error.message}\n`);
      settleRun(false);
    });
    child.once("close", (code) => settleRun(code === 0));
  });
}

/** Sends a signal to a command and to all that it started. @returns {boolean} false if none of them is left */
function signalGroup({ pid }, signal) {
  if (pid === undefined) return false;
  try {
    return process.kill(-pid, signal);
  } catch (error) {
    if (error.code === "ESRCH") return false;
    throw error;
  }
}
