// The Python packages: which are needed, and their installation with pip.
// In .venv everything is installed as constraints.txt says. In a Python that the user points at, only what is missing,
// under a constraints file that freezes every package already there. The user's pip configuration always holds.

import fs from "node:fs";
import path from "node:path";
import { runStep, StepError } from "../steps/step.mjs";
import { ROOT, STATE, VENV, VENV_PYTHON } from "./paths.mjs";
import { describe, isAtLeast, parseVersion, probePython } from "./python.mjs";
import { clearStamp, hashInputs, isStamped, writeStamp } from "./stamp.mjs";

/** What the worker needs: name -> oldest version. pyproject.toml says the same (a test compares). */
export const RUNTIME = {
  torch: "2.10",
  numpy: "",
  safetensors: "0.5",
  transformers: "4.56",
  tokenizers: "",
  pyzmq: "26",
  msgspec: "0.19",
};

/** What setup.py needs, which builds the operators. */
export const BUILD = { setuptools: "77" };

/** What `npm test` needs besides. */
export const DEVELOPMENT = {
  pytest: "8",
  hypothesis: "",
  ruff: "",
  mypy: "",
  "clang-format": "",
  psutil: "",
};

/** What compiles the GPU kernels, whose PTX the tests run. There is none for other systems than Linux. */
export const CUDA_COMPILER = {
  "nvidia-cuda-nvcc": "13.0",
  "nvidia-cuda-crt": "13.0",
  "nvidia-nvvm": "13.0",
  "nvidia-cuda-cccl": "13.0",
  "nvidia-cuda-runtime": "13.0",
};

const TEST_TOOLS = { ...DEVELOPMENT, ...(process.platform === "linux" ? CUDA_COMPILER : {}) };

/** While this exists, .venv is being made or changed; found at a start, it means that work was cut off. */
const INCOMPLETE = path.join(STATE, "venv-incomplete");
/** Build tools for a Python that has none recent enough, and in which they must not be replaced. */
const BUILD_TOOLS = path.join(STATE, "build-tools");
const STAMP_FOLDER = path.join(VENV, ".stamps");

/** True if there is no .venv that works: none, one cut off while being made, or one whose Python is gone. */
export function mustMakeVenv() {
  return fs.existsSync(INCOMPLETE) || probePython(VENV_PYTHON)?.hasPip !== true;
}

/**
 * Makes or completes .venv.
 * @param {{ base?: import("./python.mjs").PythonInfo, development: boolean, signal?: AbortSignal }} options
 *   `base`: the Python to make it from, if it must be made
 * @returns {Promise<import("./python.mjs").PythonInfo>} about .venv's Python
 */
export async function ensureOwnPackages({ base, development, signal }) {
  // Asked again: while this process waited for the lock, another may have made .venv.
  if (base !== undefined && mustMakeVenv()) {
    markIncomplete();
    await runStep({
      name: "venv",
      label: `Making .venv with ${describe(base)}`,
      command: base.executable,
      args: ["-m", "venv", "--clear", VENV],
      signal,
    });
  }
  let info = probePython(VENV_PYTHON);
  if (info === undefined) {
    throw new StepError("`.venv/bin/python` does not run.\nWhat to do: remove .venv and start again.");
  }
  for (const [name, wanted] of [
    ["runtime", { ...RUNTIME, ...BUILD }],
    ...(development ? [["development", TEST_TOOLS]] : []),
  ]) {
    const hash = hashInputs({
      files: ["constraints.txt"],
      values: { packages: JSON.stringify(wanted), abi: info.abi },
    });
    if (isStamped(name, hash, STAMP_FOLDER) && Object.keys(wanted).every((wantedName) => wantedName in info.packages))
      continue;
    markIncomplete();
    clearStamp(name, STAMP_FOLDER);
    await runStep({
      name: `pip-${name}`,
      label: name === "runtime" ? "Installing Python packages (torch is large)" : "Installing test tools for Python",
      ...pip(VENV_PYTHON, ["-c", path.join(ROOT, "constraints.txt"), ...requirements(wanted)]),
      signal,
    });
    writeStamp(name, hash, STAMP_FOLDER);
    fs.rmSync(INCOMPLETE, { force: true });
    info = probePython(VENV_PYTHON) ?? info;
  }
  return info;
}

/**
 * Installs into the user's Python what is missing there, and changes nothing that is there.
 * @param {{ info: import("./python.mjs").PythonInfo, development: boolean, signal?: AbortSignal, announce: (line: string) => void }} options
 * @returns {Promise<import("./python.mjs").PythonInfo>}
 */
export async function ensureGivenPackages({ info, development, signal, announce }) {
  const { missing, outdated } = comparePackages({ ...RUNTIME, ...(development ? TEST_TOOLS : {}) }, info.packages);
  if (outdated.length > 0) {
    throw new StepError(
      `${describe(info)} has packages that are too old, and set-up changes none that is there: ${outdated.join(", ")}.\nWhat to do: update them there, or let set-up make its own .venv: npm start -- --venv`,
    );
  }
  if (missing.length === 0) return info;
  requirePip(info, missing);
  announce(
    `Into ${describe(info)}, whose torch ${info.packages.torch} and other packages stay as they are: ${missing.join(", ")}`,
  );
  fs.mkdirSync(STATE, { recursive: true });
  const frozen = path.join(STATE, "frozen.txt");
  fs.writeFileSync(frozen, freeze(info.packages));
  await runStep({
    name: "pip-given",
    label: "Installing the missing Python packages",
    ...pip(info.executable, ["-c", frozen, ...missing]),
    signal,
  });
  return probePython(info.executable) ?? info;
}

/**
 * Makes sure that setup.py can run, without touching the Python it runs in.
 * @param {{ info: import("./python.mjs").PythonInfo, signal?: AbortSignal }} options
 * @returns {Promise<NodeJS.ProcessEnv>} what to add to the environment of the build
 */
export async function ensureBuildTools({ info, signal }) {
  const { missing, outdated } = comparePackages(BUILD, info.packages);
  if (missing.length === 0 && outdated.length === 0) return {};
  const stamp = hashInputs({ files: ["constraints.txt"], values: { build: JSON.stringify(BUILD) } });
  if (!isStamped("build-tools", stamp) || !fs.existsSync(BUILD_TOOLS)) {
    const wanted = requirements(BUILD);
    requirePip(info, wanted);
    clearStamp("build-tools");
    fs.rmSync(BUILD_TOOLS, { recursive: true, force: true });
    await runStep({
      name: "pip-build",
      label: "Installing build tools beside this Python",
      ...pip(info.executable, ["-c", path.join(ROOT, "constraints.txt"), "--target", BUILD_TOOLS, ...wanted]),
      signal,
    });
    writeStamp("build-tools", stamp);
  }
  const inherited = process.env.PYTHONPATH;
  return { PYTHONPATH: inherited ? `${BUILD_TOOLS}${path.delimiter}${inherited}` : BUILD_TOOLS };
}

/**
 * Pure: what of `wanted` is not in `installed`, and what is there but too old.
 * @param {Record<string, string>} wanted name -> oldest version, or ""
 * @param {Record<string, string>} installed
 */
export function comparePackages(wanted, installed) {
  const missing = [];
  const outdated = [];
  for (const [name, oldest] of Object.entries(wanted)) {
    const version = installed[name];
    if (version === undefined) missing.push(...requirements({ [name]: oldest }));
    else if (!isAtLeast(parseVersion(version), parseVersion(oldest)))
      outdated.push(`${name} ${version} (needs ${oldest})`);
  }
  return { missing, outdated };
}

/** Pure: a pip constraints file that pins every installed package. Versions that pip cannot parse are left out. */
export function freeze(installed) {
  const pinned = Object.entries(installed).filter(([, version]) => /^\d+(?:\.\d+)*[\w.+!-]*$/.test(version));
  return pinned.map(([name, version]) => `${name}==${version}\n`).join("");
}

function markIncomplete() {
  fs.mkdirSync(STATE, { recursive: true });
  fs.writeFileSync(INCOMPLETE, "");
}

function requirePip(info, wanted) {
  if (info.hasPip) return;
  throw new StepError(
    `${describe(info)} has no pip, and lacks: ${wanted.join(", ")}.\nWhat to do: install them with the tool that made the environment, e.g. uv pip install --python ${info.executable} ${wanted.join(" ")}`,
  );
}

function requirements(wanted) {
  return Object.entries(wanted).map(([name, oldest]) => (oldest === "" ? name : `${name}>=${oldest}`));
}

function pip(python, args) {
  return {
    // pip is silent while it unpacks gigabytes: the line that says so must not be followed by a detail.
    ignore: /existing installation|uninstall/i,
    command: python,
    args: ["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-compile", ...args],
  };
}
