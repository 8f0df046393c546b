// Checks of the Python that would run the worker: version, packages, compiler, operators, kernel.

import type { ProgramResult } from "../child.ts";
import { type Finding, fail, isAtLeast, ok, skip, warn } from "./check.ts";

const OLDEST_PYTHON = [3, 10];
const OLDEST_TORCH = [2, 10];
const PACKAGES = ["numpy", "safetensors", "transformers", "tokenizers", "pyzmq", "msgspec"];
const COMPILERS = ["c++", "g++", "clang++"];
const SET_UP = "npm start sets everything up (installed from npm: npm --prefix node_modules/marlin-torch start)";
const BUILD = "npm run build:ext (installed from npm: npm --prefix node_modules/marlin-torch run build:ext)";

/** Runs a program to its end; never rejects. */
export type RunProgram = (command: string, args: readonly string[]) => Promise<ProgramResult>;

// Asked of the Python itself; imports no package, so that a broken one cannot hide the others.
const DESCRIBE = `
import json, sys
from importlib import metadata
def version(name):
    try: return metadata.version(name)
    except metadata.PackageNotFoundError: return None
print(json.dumps({"version": "%d.%d.%d" % sys.version_info[:3], "packages": {name: version(name) for name in sys.argv[1:]}}))
`;

const DESCRIBE_KERNEL = `
import dataclasses, json
from marlin.errors import MarlinError
from marlin.ops import kernel_info
def ask(device):
    try:
        return {"info": dataclasses.asdict(kernel_info(device))}
    except MarlinError as error:
        return {"code": error.code, "message": str(error)}
print(json.dumps({**ask("cpu"), "gpu": ask("cuda")}, default=str))
`;

/** All checks of `python`; each that needs what another did not find is skipped. */
export async function checkPython(python: string, run: RunProgram): Promise<readonly Finding[]> {
  const described = readObject(await run(python, ["-c", DESCRIBE, "torch", ...PACKAGES]));
  const compiler = await findCompiler(run);
  if (described === undefined) {
    return [
      fail("python", `${python} does not run`, `install Python 3.10 or newer; ${SET_UP}`),
      ...["torch", "python packages", "operators", "kernel", "gpu kernel"].map((name) => skip(name, "a Python")),
      compilerFinding(compiler, false),
    ];
  }
  const packages = readMap(described.packages);
  const torch = checkTorch(packages.torch);
  const operators = torch.status === "ok" ? await checkOperators(python, run) : SKIPPED_OPERATORS;
  return [
    checkVersion(python, String(described.version)),
    torch,
    checkPackages(packages),
    compilerFinding(compiler, operators[0]?.status === "ok"),
    ...operators,
  ];
}

function checkVersion(python: string, version: string): Finding {
  const found = `${version} (${python})`;
  return isAtLeast(version, OLDEST_PYTHON)
    ? ok("python", found)
    : fail("python", found, "point at Python 3.10 or newer with --python or MARLIN_PYTHON");
}

function checkTorch(version: unknown): Finding {
  if (typeof version !== "string")
    return fail("torch", "not installed", `${SET_UP}; or install torch in that environment`);
  return isAtLeast(version, OLDEST_TORCH)
    ? ok("torch", version)
    : fail("torch", version, "the operators need torch 2.10 or newer: update it, or point at another Python");
}

function checkPackages(packages: Readonly<Record<string, unknown>>): Finding {
  const missing = PACKAGES.filter((name) => typeof packages[name] !== "string");
  const found = PACKAGES.filter((name) => !missing.includes(name)).map((name) => `${name} ${packages[name]}`);
  return missing.length === 0
    ? ok("python packages", found.join(", "))
    : fail("python packages", `missing: ${missing.join(", ")}`, `pip install ${missing.join(" ")}; or ${SET_UP}`);
}

async function findCompiler(run: RunProgram): Promise<string | undefined> {
  for (const name of COMPILERS) {
    const { code, stdout } = await run(name, ["--version"]);
    if (code === 0) return stdout.split("\n")[0];
  }
  return undefined;
}

function compilerFinding(compiler: string | undefined, isBuilt: boolean): Finding {
  if (compiler !== undefined) return ok("compiler", compiler);
  const advice =
    "install g++ 11 or clang 14, or newer (Debian: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install)";
  // Without a compiler everything runs, if only the operators are built already.
  return isBuilt ? warn("compiler", "none", advice) : fail("compiler", "none", advice);
}

const SKIPPED_OPERATORS: readonly Finding[] = ["operators", "kernel", "gpu kernel"].map((name) => skip(name, "torch"));
const SKIPPED_KERNELS: readonly Finding[] = ["kernel", "gpu kernel"].map((name) => skip(name, "the operators"));

async function checkOperators(python: string, run: RunProgram): Promise<readonly Finding[]> {
  const result = await run(python, ["-c", DESCRIBE_KERNEL]);
  const answer = readObject(result);
  if (answer === undefined) {
    const reason = result.stderr.trim().split("\n").at(-1) ?? "";
    return [fail("operators", reason, BUILD), ...SKIPPED_KERNELS];
  }
  if (answer.info === undefined) {
    const advice = answer.code === "kernel_unavailable" ? "unset MARLIN_CPU_KERNEL" : BUILD;
    return [fail("operators", String(answer.message), advice), ...SKIPPED_KERNELS];
  }
  const info = readMap(answer.info);
  const kernel = `${info.kernel}: ${info.reason}`;
  return [
    ok("operators", `built with torch ${info.torch_version}`),
    info.kernel === "generic"
      ? warn("kernel", kernel, "a processor with AVX-512 runs the fast kernel")
      : ok("kernel", kernel),
    checkGpu(readMap(answer.gpu)),
  ];
}

/** A machine without a usable GPU lacks nothing; one whose GPU could be used does. */
function checkGpu(answer: Readonly<Record<string, unknown>>): Finding {
  const name = "gpu kernel";
  if (answer.info !== undefined) {
    const info = readMap(answer.info);
    return ok(name, `${info.kernel}: ${info.reason}`);
  }
  const message = String(answer.message);
  return answer.code === "extension_missing"
    ? warn(name, message, `MARLIN_CUDA=1 ${BUILD}`)
    : { name, status: "skip", found: message };
}

function readObject({ code, stdout }: ProgramResult): Readonly<Record<string, unknown>> | undefined {
  if (code !== 0) return undefined;
  try {
    return readMap(JSON.parse(stdout));
  } catch {
    return undefined;
  }
}

function readMap(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? { ...value } : {};
}
