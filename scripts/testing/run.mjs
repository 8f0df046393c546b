// Runs checks, two at a time where there are cores for it, with the output of each in one piece, and ends with a table.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { STATE } from "../setup/paths.mjs";
import { formatSeconds } from "../steps/progress.mjs";
import { InterruptedError } from "../steps/step.mjs";
import { runAll } from "./command.mjs";
import { takeTurns } from "./turns.mjs";

/** Most checks keep one core busy, and some of them all cores; with more at a time tests would wait for each other. */
const AT_ONCE = Math.min(2, os.availableParallelism());

/**
 * The static checks come first: they read what the tests write, such as `dist/`.
 * @param {import("./checks.mjs").Check[]} checks
 * @param {{ env: NodeJS.ProcessEnv, signal: AbortSignal, write?: (text: string | Buffer) => void, atOnce?: number }} options
 * @returns {Promise<number>} the exit code
 */
export async function runChecks(checks, options) {
  const { signal, write = (text) => process.stdout.write(text), atOnce = AT_ONCE } = options;
  fs.mkdirSync(path.join(STATE, "reports"), { recursive: true });
  const next = takeTurns(write);
  const runOne = async (check) => {
    if (signal.aborted) return undefined;
    const turn = next();
    // A check that is alone has the terminal for itself, and its colours.
    const row = await runCheck(check, { ...options, write: turn.write, ownsTerminal: checks.length === 1 });
    turn.end();
    return row;
  };
  const rows = [];
  for (const kind of ["static", "test"]) {
    rows.push(
      ...(await mapAtOnce(
        checks.filter((check) => check.kind === kind),
        runOne,
        atOnce,
      )),
    );
    if (signal.aborted) throw new InterruptedError();
  }
  write(summarize(rows));
  return rows.every(({ ok }) => ok) ? 0 : 1;
}

async function runCheck(check, { env, signal, write, ownsTerminal }) {
  write(`\n=== ${check.title} ===\n`);
  check.counts?.();
  const began = performance.now();
  const ok = await runAll(check.commands, ownsTerminal ? { env, signal } : { env, signal, write });
  const seconds = (performance.now() - began) / 1000;
  write(`--- ${check.name}: ${ok ? "ok" : "FAILED"}, ${formatSeconds(seconds)}\n`);
  return { name: check.name, ok, seconds, ...settle(ok, check.counts?.()) };
}

/**
 * The results of `run` for all items, in their order; `limit` of them at a time, begun in that order.
 * @template T, R
 * @param {T[]} items
 * @param {(item: T) => Promise<R>} run
 * @param {number} limit
 */
async function mapAtOnce(items, run, limit) {
  const results = Array(items.length);
  const numbers = items.keys();
  const work = async () => {
    for (const number of numbers) results[number] = await run(items[number]);
  };
  await Promise.all(Array.from({ length: limit }, work));
  return results;
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
