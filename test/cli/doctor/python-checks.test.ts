import { expect, test } from "vitest";
import { checkPython, type RunProgram } from "../../../src/cli/doctor/python-checks.ts";

const ALL = {
  torch: "2.13.0",
  numpy: "2.4.6",
  safetensors: "0.8.0",
  transformers: "5.24.0",
  tokenizers: "0.23.3",
  pyzmq: "27.3.0",
  msgspec: "0.22.0",
};
const KERNEL = {
  info: { kernel: "avx512", reason: "the processor has it", torch_version: "2.13.0" },
  gpu: { info: { kernel: "mma_sync", reason: "the GPU has it" } },
};

interface Machine {
  readonly version?: string;
  readonly packages?: Readonly<Record<string, string | null>>;
  readonly kernel?: object | string;
  readonly compiler?: boolean;
  readonly python?: boolean;
}

/** Answers as the programs of a machine would. */
function machine({
  version = "3.11.7",
  packages = ALL,
  kernel = KERNEL,
  compiler = true,
  python = true,
}: Machine = {}): RunProgram {
  const success = (stdout: string) => ({ code: 0, stdout, stderr: "" });
  const failure = (stderr: string) => ({ code: 1, stdout: "", stderr });
  return async (command, args) => {
    if (command !== "/py") return compiler ? success("g++ 12.2.0\nmore") : failure("");
    if (!python) return { code: null, stdout: "", stderr: "" };
    if (args.includes("torch")) return success(JSON.stringify({ version, packages }));
    return typeof kernel === "string" ? failure(kernel) : success(JSON.stringify(kernel));
  };
}

const statuses = async (given: Machine = {}): Promise<Record<string, string>> =>
  Object.fromEntries((await checkPython("/py", machine(given))).map(({ name, status }) => [name, status]));

test("a complete machine is ok in everything", async () => {
  expect(await statuses()).toEqual({
    python: "ok",
    torch: "ok",
    "python packages": "ok",
    compiler: "ok",
    operators: "ok",
    kernel: "ok",
    "gpu kernel": "ok",
  });
});

test.each([
  [
    "no Python",
    { python: false },
    {
      python: "fail",
      torch: "skip",
      operators: "skip",
      kernel: "skip",
      "gpu kernel": "skip",
      "python packages": "skip",
    },
  ],
  ["an old Python", { version: "3.9.2" }, { python: "fail" }],
  ["no torch", { packages: { ...ALL, torch: null } }, { torch: "fail", operators: "skip", kernel: "skip" }],
  ["an old torch", { packages: { ...ALL, torch: "2.9.1+cu126" } }, { torch: "fail", operators: "skip" }],
  ["no pyzmq", { packages: { ...ALL, pyzmq: null } }, { "python packages": "fail" }],
  [
    "operators that are not built",
    { kernel: { code: "extension_missing", message: "not built" } },
    { operators: "fail", kernel: "skip", "gpu kernel": "skip" },
  ],
  [
    "no marlin package",
    { kernel: "ModuleNotFoundError: No module named 'marlin'" },
    { operators: "fail", kernel: "skip" },
  ],
  ["the portable kernel", { kernel: { ...KERNEL, info: { ...KERNEL.info, kernel: "generic" } } }, { kernel: "warn" }],
  [
    "a torch without a GPU",
    { kernel: { ...KERNEL, gpu: { code: "unsupported", message: "no GPU" } } },
    { kernel: "ok", "gpu kernel": "skip" },
  ],
  [
    "a GPU without its library",
    { kernel: { ...KERNEL, gpu: { code: "extension_missing", message: "not built" } } },
    { kernel: "ok", "gpu kernel": "warn" },
  ],
  ["no compiler, operators built", { compiler: false }, { compiler: "warn" }],
  ["no compiler, operators not built", { compiler: false, kernel: "no" }, { compiler: "fail" }],
])("%s is found", async (_, given, expected) => {
  expect(await statuses(given)).toMatchObject(expected);
});

test("whatever is not ok says what to do", async () => {
  const gpu = { code: "extension_missing", message: "not built" };
  const findings = [
    ...(await checkPython("/py", machine({ packages: { ...ALL, pyzmq: null }, kernel: "x", compiler: false }))),
    ...(await checkPython("/py", machine({ kernel: { ...KERNEL, gpu } }))),
  ];
  for (const { status, advice } of findings) {
    if (status === "fail" || status === "warn") expect(advice).toMatch(/\S/);
  }
  expect(findings.find(({ name }) => name === "python packages")?.advice).toContain("pip install pyzmq");
});
