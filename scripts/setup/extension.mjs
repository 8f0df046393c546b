// Builds csrc/ into python/marlin/ when the sources, torch or the Python changed.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { howToInstall } from "../steps/advice.mjs";
import { runStep, StepError } from "../steps/step.mjs";
import { ensureBuildTools } from "./packages.mjs";
import { ROOT } from "./paths.mjs";
import { clearStamp, hashInputs, isStamped, writeStamp } from "./stamp.mjs";

const NAME = "extension";
/** The names that setup.py tries, in its order, after the variable CXX. */
const COMPILERS = ["c++", "g++", "clang++"];
/** Variables that change what is built. */
const BUILD_VARIABLES = ["MARLIN_CUDA", "MARLIN_DEBUG", "MARLIN_SANITIZE", "CXX", "CXXFLAGS", "CUDA_HOME"];

/**
 * @param {{ info: import("./python.mjs").PythonInfo, force?: boolean, signal?: AbortSignal }} options
 */
export async function ensureExtension({ info, force = false, signal }) {
  const variables = Object.fromEntries(BUILD_VARIABLES.map((name) => [name, process.env[name] ?? ""]));
  const hash = hashInputs({
    files: ["csrc", "setup.py"],
    // No Python symbol is in the library, and torch's are of its stable ABI; but the headers are of one torch.
    values: { ...variables, torch: info.packages.torch, machine: `${process.platform}-${process.arch}` },
  });
  if (!force && isStamped(NAME, hash) && hasLibrary()) return;
  requireCompiler();
  const tools = await ensureBuildTools({ info, signal });
  clearStamp(NAME);
  await runStep({
    name: "build-ext",
    label: "Building the operators (csrc)",
    command: info.executable,
    args: ["setup.py", "build_ext", "--inplace"],
    env: { ...process.env, ...tools },
    signal,
  });
  writeStamp(NAME, hash);
}

/** @throws {StepError} if there is no C++ compiler, before minutes of work show it */
export function requireCompiler(env = process.env) {
  const candidates = env.CXX ? [env.CXX.split(" ")[0]] : COMPILERS;
  if (candidates.some((name) => spawnSync(name, ["--version"], { env, stdio: "ignore" }).status === 0)) return;
  throw new StepError(
    env.CXX
      ? `Expected a C++ compiler in the variable CXX, but \`${env.CXX}\` does not run.`
      : `No C++ compiler was found (${COMPILERS.join(", ")}); the operators in csrc/ are compiled here.\nWhat to do: ${howToInstall("compiler")}`,
  );
}

/** True if some build of the operators is there, current or not. */
export function hasLibrary() {
  return fs.readdirSync(path.join(ROOT, "python", "marlin")).some((name) => name.endsWith(".so"));
}
