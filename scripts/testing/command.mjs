// Runs the commands of a check, each in a process group of its own, so that what it started ends with it.

import { spawn } from "node:child_process";
import { ROOT } from "../setup/paths.mjs";
import { formatSeconds } from "../steps/progress.mjs";

/** Far beyond what any command takes; a test that hangs must not hang whoever waits for the result. */
const LIMIT_MS = 15 * 60_000;
const KILL_AFTER_MS = 5000;

/**
 * @typedef {object} Options
 * @property {NodeJS.ProcessEnv} env
 * @property {AbortSignal} signal
 * @property {(text: string | Buffer) => void} [write] takes what commands print; without it they print for themselves,
 *   to a terminal if there is one
 */

/**
 * All commands run, also after one failed: a check reports everything at once.
 * @param {[string, ...string[]][]} commands
 * @param {Options} options
 * @returns {Promise<boolean>} whether all of them succeeded
 */
export async function runAll(commands, options) {
  let ok = true;
  for (const command of commands) {
    if (options.signal.aborted) return false;
    ok = (await run(command, options)) && ok;
  }
  return ok;
}

function run([command, ...args], { env, signal, write }) {
  // A process left behind would go on with the tests, and hold open the pipe that continuous integration reads.
  const output = write ? "pipe" : "inherit";
  const child = spawn(command, args, { cwd: ROOT, env, stdio: ["ignore", output, output], detached: true });
  const complain = write ?? ((text) => process.stderr.write(text));
  let killer;
  const abort = () => {
    signalGroup(child, "SIGTERM");
    killer = setTimeout(() => signalGroup(child, "SIGKILL"), KILL_AFTER_MS);
  };
  signal.addEventListener("abort", abort, { once: true });
  const limit = setTimeout(() => {
    complain(`\`${command}\` did not end within ${formatSeconds(LIMIT_MS / 1000)}, and is stopped.\n`);
    abort();
  }, LIMIT_MS);
  for (const pipe of [child.stdout, child.stderr]) {
    pipe?.on("data", write);
    // Whoever has left the group may outlive the command and hold its pipe; nobody waits for that.
    child.once("exit", () => setTimeout(() => pipe?.destroy(), KILL_AFTER_MS).unref());
  }
  return new Promise((resolve) => {
    const settleRun = (ok) => {
      clearTimeout(limit);
      if (!signalGroup(child, 0)) clearTimeout(killer);
      signal.removeEventListener("abort", abort);
      resolve(ok);
    };
    child.once("error", (error) => {
      complain(`\`${command}\` could not be started: ${error.message}\n`);
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
