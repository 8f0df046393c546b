import path from "node:path";
import { expect, test } from "vitest";
import {
  checkGivenPython,
  choosePython,
  findBasePython,
  isAtLeast,
  parseVersion,
  probePython,
} from "../../../scripts/setup/python.mjs";

type Info = NonNullable<ReturnType<typeof probePython>>;

const info = (changes: Partial<Info> = {}): Info => ({
  executable: "/usr/bin/python3",
  version: [3, 11, 7],
  abi: "cpython-311",
  bits: 64,
  hasVenv: true,
  hasPip: true,
  packages: { torch: "2.11.0+cu128" },
  ...changes,
});

test("the option comes first, then MARLIN_PYTHON, the virtual environment, the conda environment", () => {
  const env = { MARLIN_PYTHON: "/m/python", VIRTUAL_ENV: "/v", CONDA_PREFIX: "/c" };
  expect(choosePython({ option: "/o/python", env })).toEqual({ path: "/o/python", from: "--python" });
  expect(choosePython({ env })).toEqual({ path: "/m/python", from: "MARLIN_PYTHON" });
  expect(choosePython({ env: { ...env, MARLIN_PYTHON: "" } })).toEqual({ path: "/v/bin/python", from: "VIRTUAL_ENV" });
  expect(choosePython({ env: { CONDA_PREFIX: "/c" } })).toEqual({ path: "/c/bin/python", from: "CONDA_PREFIX" });
  expect(choosePython({ env: {} })).toBeUndefined();
});

test("the project's own .venv, activated, is not somebody else's environment", () => {
  const venv = path.resolve(".venv");
  expect(choosePython({ env: { VIRTUAL_ENV: venv }, venv })).toBeUndefined();
});

test("--venv overrules what is active", () => {
  expect(choosePython({ ownVenv: true, env: { VIRTUAL_ENV: "/v", MARLIN_PYTHON: "/m" } })).toBeUndefined();
});

test.each([
  ["does not exist", undefined, /Expected a Python at `\/x\/python` \(from --python\)/],
  ["is too old", info({ version: [3, 9, 18] }), /Expected Python 3\.10 or newer from --python, got Python 3\.9\.18/],
  ["has no torch", info({ packages: {} }), /has no torch.*pip install torch/s],
  ["has a torch that is too old", info({ packages: { torch: "2.9.1" } }), /Expected torch 2\.10 or newer.*got 2\.9\.1/],
])("a given Python that %s is refused with what to do", (_, probed, message) => {
  expect(() => checkGivenPython({ path: "/x/python", from: "--python" }, probed)).toThrow(message);
});

test("a given Python with torch is taken as it is", () => {
  const probed = info();
  expect(checkGivenPython({ path: "/x/python", from: "--python" }, probed)).toBe(probed);
});

test("the first Python on PATH that is new enough and has venv makes .venv", () => {
  const there: Record<string, Info> = {
    python3: info({ version: [3, 9, 2] }),
    "python3.12": info({ version: [3, 12, 1], hasVenv: false }),
    "python3.11": info({ executable: "/usr/bin/python3.11" }),
  };
  expect(findBasePython((name: string) => there[name]).executable).toBe("/usr/bin/python3.11");
});

test.each([
  ["no Python", {}, /found no Python on PATH/],
  ["only an old Python", { python3: info({ version: [3, 8, 1] }) }, /found only Python 3\.8\.1/],
  ["no venv module", { python3: info({ hasVenv: false }) }, /has no `venv` module/],
  ["32 bit", { python3: info({ bits: 32 }) }, /64 bit/],
])("with %s the message says what to install", (_, there: Record<string, Info>, message) => {
  expect(() => findBasePython((name: string) => there[name])).toThrow(message);
  expect(() => findBasePython((name: string) => there[name])).toThrow(/What to do: \S/);
});

test("versions compare by number", () => {
  expect(parseVersion("2.10.1+cu128")).toEqual([2, 10, 1]);
  expect(isAtLeast([2, 9], [2, 10])).toBe(false);
  expect(isAtLeast([2, 10], [2, 10, 0])).toBe(true);
  expect(isAtLeast([3], [2, 10])).toBe(true);
});

test("a real Python describes itself", () => {
  const probed = probePython("python3");
  expect(probed?.version[0]).toBe(3);
  expect(probed?.executable).toMatch(/python/);
});

test("a program that is no Python is none", () => {
  expect(probePython("/bin/echo")).toBeUndefined();
  expect(probePython("/no/such/python")).toBeUndefined();
});
