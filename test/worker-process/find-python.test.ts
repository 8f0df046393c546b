import path from "node:path";
import { describe, expect, test } from "vitest";
import { findPython } from "../../src/worker-process.ts";

const all = () => true;
const env = { MARLIN_PYTHON: "/named/python", VIRTUAL_ENV: "/venv", CONDA_PREFIX: "/conda" };
const linux = { platform: "linux", packageRoot: "/package", exists: all } as const;

describe("the Python that runs the worker", () => {
  test.each([
    ["the one that the caller names", { python: "/mine", env }, "/mine"],
    ["the one of MARLIN_PYTHON", { env }, "/named/python"],
    ["the active virtual environment's", { env: { ...env, MARLIN_PYTHON: undefined } }, "/venv/bin/python"],
    ["the active conda environment's", { env: { CONDA_PREFIX: "/conda" } }, "/conda/bin/python"],
    ["the package's own", { env: {} }, "/package/.venv/bin/python"],
  ])("is %s", (_, options, expected) => {
    expect(findPython({ ...linux, ...options })).toBe(expected);
  });

  test("is taken as it is named, also where it does not exist", () => {
    expect(findPython({ ...linux, python: "/missing", env, exists: () => false })).toBe("/missing");
    expect(findPython({ ...linux, env, exists: () => false })).toBe("/named/python");
  });

  test("passes over environments without a Python, and over empty variables", () => {
    const exists = (file: string) => file.startsWith("/conda");
    expect(findPython({ ...linux, env: { ...env, MARLIN_PYTHON: "" }, exists })).toBe("/conda/bin/python");
    expect(findPython({ ...linux, env: { VIRTUAL_ENV: "", CONDA_PREFIX: "" } })).toBe("/package/.venv/bin/python");
    expect(findPython({ ...linux, env: {}, exists: () => false })).toBe("python3");
  });

  test("has other names on Windows", () => {
    const windows = { platform: "win32", packageRoot: "p", exists: all } as const;
    expect(findPython({ ...windows, env: { VIRTUAL_ENV: "v" } })).toBe(path.join("v", "Scripts", "python.exe"));
    expect(findPython({ ...windows, env: { CONDA_PREFIX: "c" } })).toBe(path.join("c", "python.exe"));
    expect(findPython({ ...windows, env: {}, exists: () => false })).toBe("python");
  });
});
