// The checks of `npm test` and `npm run check`: what each runs, and where its counts come from.

import fs from "node:fs";
import path from "node:path";
import { ROOT, STATE } from "../setup/paths.mjs";
import { listFiles } from "../setup/stamp.mjs";
import { countJunit, countVitest } from "./counts.mjs";

const NODE = process.execPath;
const REPORTS = path.join(STATE, "reports");
const BIOME = bin("@biomejs/biome", "bin/biome");
const TSC = bin("typescript", "bin/tsc");
const VITEST = bin("vitest", "vitest.mjs");
const SIMULATED = ["test/ptx/tests", "test/gpu"];
const MUTANTS = ["test/ptx/tests/test_mutants.py", "test/gpu/test_gemm_mutants.py"];
const MAGIC = ["gemm", "gemm_random", "plan", "scaled_opening", "traffic"].map((name) => `test/gpu/test_${name}.py`);
const CPP = /\.(?:cpp|cc|h|hpp|cu|cuh)$/;

/**
 * @typedef {object} Check
 * @property {string} name for `--only`
 * @property {string} title
 * @property {"static" | "test"} kind
 * @property {[string, ...string[]][]} commands run in order, all of them
 * @property {boolean} [onRequest] runs only when named by `--only`
 * @property {() => import("./counts.mjs").Counts | undefined} [counts] its report; without one, the check counts as one test
 */

/**
 * Every check, in order: the fast ones first. The last seven run only when asked for by name.
 * @param {{ python: string }} tools the Python that has the test tools
 * @returns {Check[]}
 */
export function checks({ python }) {
  const simulated = pytest({
    name: "ptx-all",
    title: "All of the GPU kernels, and others, on the PTX simulator, and what was simulated",
    markers: "not cuda",
    folders: [...SIMULATED, ...MUTANTS.map((file) => `--ignore=${file}`)],
  });
  // The other way to open codes, whose choice is made when modules are loaded.
  const quick = ["-m", "pytest", "-q", "-m", "not slow and not cuda"];
  const openedByMagic = ["env", "MARLIN_OPENING=magic", python, ...quick, ...MAGIC];
  return [
    {
      name: "lint",
      title: "Lint and format: Biome, ruff, clang-format",
      kind: "static",
      commands: [
        [NODE, BIOME, "ci", "--error-on-warnings"],
        [python, "-m", "ruff", "check"],
        [python, "-m", "ruff", "format", "--check"],
        ...clangFormat(python, ["--dry-run", "-Werror"]),
      ],
    },
    {
      name: "types",
      title: "Types: tsc, mypy --strict",
      kind: "static",
      commands: [
        [NODE, TSC, "-p", ".", "--noEmit"],
        [NODE, TSC, "-p", "test", "--noEmit"],
        [python, "-m", "mypy"],
      ],
    },
    {
      name: "publint",
      title: "Package: publint",
      kind: "static",
      commands: [[NODE, bin("publint", "src/cli.js"), "--strict"]],
    },
    { name: "cpp", title: "C++ checks of csrc", kind: "test", commands: [[python, "csrc/tests/run.py"]] },
    {
      name: "vitest",
      title: "TypeScript tests: vitest",
      kind: "test",
      commands: [
        [NODE, VITEST, "run", "--reporter=default", "--reporter=json", `--outputFile.json=${report("vitest.json")}`],
      ],
      counts: () => readReport("vitest.json", countVitest),
    },
    pytest({ name: "pytest", title: "Python tests: pytest", markers: "not slow and not cuda" }),
    {
      name: "ptx-cpp",
      title: "C++ checks of the PTX simulator",
      kind: "test",
      commands: [[python, "test/ptx/tests/run.py"]],
    },
    pytest({
      name: "ptx",
      title: "GPU kernels, and others, on the PTX simulator",
      markers: "not slow and not cuda",
      folders: SIMULATED,
    }),
    {
      name: "arm64",
      title: "C++ checks of csrc for arm64, under qemu",
      kind: "test",
      onRequest: true,
      commands: [[python, "csrc/tests/run.py", "--target", "arm64"]],
    },
    {
      name: "cuda",
      title: "The CUDA library: it builds, loads without a GPU, and says what it refuses",
      kind: "test",
      onRequest: true,
      commands: [
        ["env", "MARLIN_CUDA=1", python, "setup.py", "build_ext", "--inplace"],
        [python, "-m", "pytest", "-q", "python/tests/test_ops_cuda_errors.py", "python/tests/test_kernel_info.py"],
      ],
    },
    {
      name: "sass",
      title: "Issue slots of the GPU kernels, as bench/results/sass.md has them",
      kind: "test",
      onRequest: true,
      commands: [[python, "bench/sass/table.py", "--check"]],
    },
    { ...simulated, commands: [...simulated.commands, openedByMagic], onRequest: true },
    {
      ...pytest({
        name: "ptx-mutants",
        title: "Errors put into those kernels, and what notices them",
        markers: "not cuda",
        folders: MUTANTS,
      }),
      onRequest: true,
    },
    {
      ...pytest({ name: "stress", title: "Slow tests: pytest", markers: "slow and not cuda" }),
      onRequest: true,
    },
    {
      ...pytest({ name: "gpu", title: "GPU tests: pytest", markers: "cuda", folders: ["test/gpu"] }),
      onRequest: true,
    },
  ];

  /** @param {{ name: string, title: string, markers: string, folders?: string[] }} options */
  function pytest({ name, title, markers, folders = [] }) {
    return {
      name,
      title,
      kind: "test",
      commands: [[python, "-m", "pytest", "-q", "-m", markers, `--junitxml=${report(`${name}.xml`)}`, ...folders]],
      counts: () => readReport(`${name}.xml`, countJunit),
    };
  }
}

/** The commands of `npm run fmt`. @param {{ python: string }} tools */
export function formatters({ python }) {
  return [
    [NODE, BIOME, "check", "--write"],
    [python, "-m", "ruff", "check", "--fix"],
    [python, "-m", "ruff", "format"],
    ...clangFormat(python, ["-i"]),
    [NODE, "scripts/tree.mjs", "--write"],
  ];
}

function bin(name, file) {
  return path.join("node_modules", name, ...file.split("/"));
}

/** One command for all C++ files; none where there is no such file. */
function clangFormat(python, flags) {
  const files = ["csrc", "test/gpu", "test/ptx"]
    .flatMap((folder) => listFiles(path.join(ROOT, folder)))
    .filter((file) => CPP.test(file));
  if (files.length === 0) return [];
  // The PyPI package's own entry point: the clang-format on PATH may be another version, which formats otherwise.
  const entry = "from clang_format import clang_format; clang_format()";
  return [[python, "-c", entry, ...flags, ...files.map((file) => path.relative(ROOT, file))]];
}

function report(name) {
  return path.join(REPORTS, name);
}

/** Reads and removes a report, so that the next run cannot take it for its own. */
function readReport(name, count) {
  if (!fs.existsSync(report(name))) return undefined;
  const text = fs.readFileSync(report(name), "utf8");
  fs.rmSync(report(name));
  return count(text);
}
