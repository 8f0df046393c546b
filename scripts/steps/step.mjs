// Runs one command of set-up or of the tests: progress while it runs, all its output in .marlin/logs/,
// and on failure the end of that output and what to do.

import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { LOGS, ROOT } from "../setup/paths.mjs";
import { advise } from "./advice.mjs";
import { forgetChild, killGroup, NOTE, noteChild } from "./orphan.mjs";
import { showStep } from "./progress.mjs";

const TAIL_LINES = 25;
/** Enough for the longest compiler complaint; the whole output is in the log file. */
const TAIL_BYTES = 64 * 1024;
/** A child that ignores the signal is killed after this. */
const KILL_AFTER_MS = 3000;

/** A failed step. `message` is complete: what failed, the end of its output, what to do. */
export class StepError extends Error {
  name = "StepError";
}

/** The user pressed Ctrl-C, or asked this process to end. */
export class InterruptedError extends Error {
  name = "InterruptedError";
  constructor() {
    super("Interrupted. Nothing is broken: the next start goes on from here.");
  }
}

/**
 * @typedef {object} StepOptions
 * @property {string} name short name: the log file is .marlin/logs/<name>.log
 * @property {string} label shown while it runs
 * @property {string} command
 * @property {string[]} args
 * @property {NodeJS.ProcessEnv} [env] replaces the environment
 * @property {string} [cwd]
 * @property {RegExp} [ignore] lines that are not shown as the latest
 * @property {string} [note] the file that names the running command, for `endOrphan`
 * @property {AbortSignal} [signal] ends the child, then rejects with InterruptedError
 */

/**
 * Runs a step; resolves when its exit code is 0.
 * @param {StepOptions} options
 * @throws {StepError | InterruptedError}
 */
export async function runStep(options) {
  const shown = showStep(options.label);
  const result = await runLogged(options, (line) => {
    if (options.ignore?.test(line) !== true) shown.update(line);
  });
  if (options.signal?.aborted) {
    shown.fail("interrupted");
    throw new InterruptedError();
  }
  if (result.code === 0) {
    shown.done();
    return;
  }
  shown.fail();
  throw new StepError(explainFailure(options, result));
}

/**
 * Runs a command with its output in the log file; never throws for the command's own failure.
 * @param {StepOptions} options
 * @param {(line: string) => void} onLine every non-empty line, without control characters
 * @returns {Promise<{ code: number | null, signal: string | null, tail: string, log: string }>}
 */
export async function runLogged({ name, command, args, env = process.env, cwd = ROOT, signal, note = NOTE }, onLine) {
  fs.mkdirSync(LOGS, { recursive: true });
  const log = path.join(LOGS, `${name}.log`);
  const file = fs.openSync(log, "w");
  let tail = "";
  const take = (text) => {
    fs.writeSync(file, text);
    tail = (tail + text).slice(-TAIL_BYTES);
  };
  take(`$ ${[command, ...args].join(" ")}\n`);
  try {
    // A group of its own: what it starts ends with it, and Ctrl-C reaches it through us alone.
    const child = spawn(command, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"], detached: true });
    if (child.pid !== undefined) noteChild(child.pid, note);
    let killer;
    const abort = () => {
      if (child.pid === undefined) return;
      killGroup(child.pid, "SIGTERM");
      killer = setTimeout(() => killGroup(child.pid, "SIGKILL"), KILL_AFTER_MS);
    };
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort, { once: true });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8");
      let rest = "";
      stream.on("data", (text) => {
        take(text);
        const lines = (rest + text).split(/[\r\n]+/);
        rest = lines.pop() ?? "";
        for (const line of lines.map(plainText)) if (line !== "") onLine(line.trim());
      });
    }
    const ended = await new Promise((resolve) => {
      child.once("error", (error) => {
        take(`${error.message}\n`);
        resolve({ code: null, signal: null });
      });
      child.once("close", (code, killedBy) => resolve({ code, signal: killedBy }));
    });
    clearTimeout(killer);
    forgetChild(note);
    signal?.removeEventListener("abort", abort);
    return { ...ended, tail, log };
  } finally {
    fs.closeSync(file);
  }
}

/** The message of a failed step. */
export function explainFailure({ label, name }, { code, signal, tail, log }) {
  const how =
    signal !== null ? `was ended by ${signal}` : code === null ? "could not be started" : `ended with code ${code}`;
  const lines = tail
    .split(/[\r\n]+/)
    .map(plainText)
    .filter((line) => line !== "")
    .slice(-TAIL_LINES);
  const advice = advise({ name, output: tail, code, signal });
  return [
    `${label}: the command ${how}.`,
    "",
    ...lines.map((line) => `    ${line}`),
    "",
    ...(advice === undefined ? [] : [`What to do: ${advice}`]),
    `The whole output: ${path.relative(process.cwd(), log) || log}`,
  ].join("\n");
}

function plainText(line) {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: removing terminal control sequences is the purpose
  return line.replace(/\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]/g, "").trimEnd();
}
