// What the commands of package.json share: the options about set-up, signals, and how a failure is shown.

import { spawn } from "node:child_process";
import { constants } from "node:os";
import process from "node:process";
import { InterruptedError, StepError } from "../steps/step.mjs";
import { setUp } from "./setup.mjs";

/** @type {NodeJS.Signals[]} */
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"];

/**
 * Runs a command of package.json and exits with its code.
 * @param {(tools: {
 *   setUp: (options: object) => Promise<{ python: string }>,
 *   runCommand: typeof runCommand,
 *   setupOptions: { python?: string, ownVenv: boolean },
 *   rest: string[],
 *   signal: AbortSignal,
 * }) => Promise<number>} main resolves with the exit code
 */
export async function runFrontDoor(main) {
  const interrupted = new AbortController();
  let received;
  const onSignal = (signal) => {
    received ??= signal;
    interrupted.abort();
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    const { setupOptions, rest } = splitArguments(process.argv.slice(2));
    process.exitCode = await main({
      setUp: (options) => setUp({ signal: interrupted.signal, ...options }),
      runCommand,
      setupOptions,
      rest,
      signal: interrupted.signal,
    });
  } catch (error) {
    if (!(error instanceof StepError || error instanceof InterruptedError)) throw error;
    process.stderr.write(`\n${error.message}\n`);
    process.exitCode = error instanceof InterruptedError ? exitCodeOf(received ?? "SIGINT") : 1;
  } finally {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
}

/**
 * Takes the options about set-up out of the arguments; the rest belongs to the command.
 * @param {string[]} args
 */
export function splitArguments(args) {
  const setupOptions = { ownVenv: false };
  const rest = [];
  for (let i = 0; i < args.length; i++) {
    const argument = args[i];
    if (argument === "--") return { setupOptions, rest: [...rest, ...args.slice(i)] };
    if (argument === "--venv") setupOptions.ownVenv = true;
    else if (argument.startsWith("--python=")) setupOptions.python = argument.slice("--python=".length);
    else if (argument === "--python") {
      i += 1;
      if (args[i] === undefined) throw new StepError("Expected a path after `--python`, got nothing.");
      setupOptions.python = args[i];
    } else rest.push(argument);
  }
  return { setupOptions, rest };
}

/**
 * Runs a command in the foreground with this terminal; signals go to it, and its exit code comes back.
 * @param {string} command
 * @param {string[]} args
 * @param {NodeJS.ProcessEnv} [env]
 * @returns {Promise<number>}
 */
export function runCommand(command, args, env = process.env) {
  const child = spawn(command, args, { env, stdio: "inherit" });
  const forward = (signal) => child.kill(signal);
  for (const signal of SIGNALS) process.on(signal, forward);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      for (const name of SIGNALS) process.off(name, forward);
      resolve(code ?? exitCodeOf(signal));
    });
  });
}

function exitCodeOf(signal) {
  return 128 + (constants.signals[signal] ?? 0);
}
