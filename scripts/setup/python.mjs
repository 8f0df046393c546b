// Which Python is used: one that the user points at, as it is, or one of PATH from which set-up makes .venv.
// Knows how to ask an interpreter about itself; installs nothing.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { howToInstall } from "../steps/advice.mjs";
import { StepError } from "../steps/step.mjs";
import { VENV } from "./paths.mjs";

const PROBE = path.join(path.dirname(fileURLToPath(import.meta.url)), "probe.py");
/** A cold start from a slow disk takes seconds; more is a hang. */
const PROBE_TIMEOUT_MS = 60_000;

export const OLDEST_PYTHON = [3, 10];
/** The first torch with the stable ABI that the extension is built against. */
export const OLDEST_TORCH = [2, 10];

/** Names tried on PATH for .venv: the system's own choice first, then the versions that torch has builds for. */
const BASE_NAMES = ["python3", "python3.13", "python3.12", "python3.11", "python3.14", "python3.10", "python"];

/**
 * @typedef {object} PythonInfo what probe.py prints
 * @property {string} executable
 * @property {[number, number, number]} version
 * @property {string} abi
 * @property {number} bits
 * @property {boolean} hasVenv
 * @property {boolean} hasPip
 * @property {Record<string, string>} packages normalised name -> version
 */

/**
 * The Python that the user points at, and by what; undefined if set-up is to make its own.
 * The same order as the client's: option, MARLIN_PYTHON, active virtual environment, active conda environment.
 * @param {{ option?: string, ownVenv?: boolean, env?: NodeJS.ProcessEnv, venv?: string }} choice
 * @returns {{ path: string, from: string } | undefined}
 */
export function choosePython({ option, ownVenv = false, env = process.env, venv = VENV }) {
  if (option !== undefined) return { path: option, from: "--python" };
  if (ownVenv) return undefined;
  if (env.MARLIN_PYTHON) return { path: env.MARLIN_PYTHON, from: "MARLIN_PYTHON" };
  for (const name of ["VIRTUAL_ENV", "CONDA_PREFIX"]) {
    const prefix = env[name];
    if (prefix && realPath(prefix) !== realPath(venv)) return { path: path.join(prefix, "bin", "python"), from: name };
  }
  return undefined;
}

/**
 * Asks an interpreter about itself.
 * @param {string} command a path or a name on PATH
 * @returns {PythonInfo | undefined} undefined if it does not exist or does not run
 */
export function probePython(command, env = process.env) {
  const result = spawnSync(command, [PROBE], { encoding: "utf8", env, timeout: PROBE_TIMEOUT_MS });
  if (result.status !== 0) return undefined;
  try {
    return JSON.parse(result.stdout);
  } catch {
    return undefined;
  }
}

/**
 * Finds the Python on PATH to make .venv from.
 * @param {(name: string) => PythonInfo | undefined} probe
 * @returns {PythonInfo}
 * @throws {StepError} saying what to install
 */
export function findBasePython(probe = probePython) {
  const found = BASE_NAMES.map((name) => probe(name)).filter((info) => info !== undefined);
  const recent = found.filter((info) => isAtLeast(info.version, OLDEST_PYTHON) && info.bits === 64);
  const usable = recent.find((info) => info.hasVenv);
  if (usable !== undefined) return usable;
  const wanted = `Python ${OLDEST_PYTHON.join(".")} or newer (64 bit)`;
  if (recent.length > 0) {
    throw new StepError(
      `${describe(recent[0])} has no \`venv\` module, which set-up needs to make .venv.\nWhat to do: ${howToInstall("venv")}`,
    );
  }
  const got = found.length === 0 ? "no Python on PATH" : `only ${found.map(describe).join(", ")}`;
  throw new StepError(
    `Expected ${wanted}, found ${got}.\nWhat to do: ${howToInstall("python")}, or point at one: npm start -- --python /path/to/python`,
  );
}

/**
 * Checks that a Python the user points at can serve as it is.
 * @param {{ path: string, from: string }} choice
 * @param {PythonInfo | undefined} info
 * @returns {PythonInfo}
 * @throws {StepError}
 */
export function checkGivenPython(choice, info) {
  const own = "or let set-up make its own .venv: npm start -- --venv";
  if (info === undefined) {
    throw new StepError(
      `Expected a Python at \`${choice.path}\` (from ${choice.from}), but it does not exist or does not run.`,
    );
  }
  if (!isAtLeast(info.version, OLDEST_PYTHON)) {
    throw new StepError(
      `Expected Python ${OLDEST_PYTHON.join(".")} or newer from ${choice.from}, got ${describe(info)}.\nWhat to do: choose another, ${own}`,
    );
  }
  const torch = info.packages.torch;
  if (torch === undefined) {
    throw new StepError(
      `${describe(info)} (from ${choice.from}) has no torch, and set-up puts none into an environment that is not its own.\nWhat to do: install it there (${info.executable} -m pip install torch), ${own}`,
    );
  }
  if (!isAtLeast(parseVersion(torch), OLDEST_TORCH)) {
    throw new StepError(
      `Expected torch ${OLDEST_TORCH.join(".")} or newer in ${describe(info)} (from ${choice.from}), got ${torch}, which is left as it is.\nWhat to do: choose another environment, ${own}`,
    );
  }
  return info;
}

/** `Python 3.11.7 (/usr/bin/python3)`. */
export function describe(info) {
  return `Python ${info.version.join(".")} (${info.executable})`;
}

/** The leading numbers of a version: "2.10.1+cu128" is [2, 10, 1]. */
export function parseVersion(text) {
  const match = /^\d+(?:\.\d+)*/.exec(text);
  return match === null ? [] : match[0].split(".").map(Number);
}

export function isAtLeast(version, oldest) {
  for (let i = 0; i < oldest.length; i++) {
    const difference = (version[i] ?? 0) - oldest[i];
    if (difference !== 0) return difference > 0;
  }
  return true;
}

function realPath(file) {
  try {
    return fs.realpathSync(file);
  } catch {
    return path.resolve(file);
  }
}
