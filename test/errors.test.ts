import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import * as errors from "../src/errors.ts";
import {
  CancelledError,
  errorFromWire,
  InternalError,
  isErrorCode,
  MarlinError,
  PythonError,
  WorkerDiedError,
} from "../src/errors.ts";

interface Row {
  readonly code: string;
  readonly className: string;
}

const rows: readonly Row[] = [
  ...readFileSync(new URL("../docs/errors.md", import.meta.url), "utf8").matchAll(/^\| `([a-z_]+)` \| `([A-Za-z]+)`/gm),
].map(([, code = "", className = ""]) => ({ code, className }));

const exported: Readonly<Record<string, unknown>> = { ...errors };

describe("docs/errors.md", () => {
  test("is read", () => {
    expect(rows.length).toBeGreaterThan(20);
  });

  test.each(rows)("$code is a $className", ({ code, className }) => {
    const error = errorFromWire({ code, message: "m", type: "", traceback: "", details: {} });
    expect(error.constructor).toBe(exported[className]);
    expect(error.name).toBe(className);
    expect(error.code).toBe(code);
  });

  test("has a row for every class", () => {
    const classes = Object.keys(exported).filter((name) => name.endsWith("Error") && name !== "MarlinError");
    expect(classes.sort()).toEqual(rows.map(({ className }) => className).sort());
  });
});

describe("an error from the wire", () => {
  const wire = {
    code: "python_error",
    message: "division by zero",
    type: "builtins.ZeroDivisionError",
    traceback: "Traceback …",
    details: { n: 1 },
  };

  test.each(["python_error", "arena_full", "internal"])("keeps everything as %s", (code) => {
    const error = errorFromWire({ ...wire, code });
    expect(error).toMatchObject({
      message: "division by zero",
      pythonType: "builtins.ZeroDivisionError",
      traceback: "Traceback …",
      details: { n: 1 },
    });
  });

  test.each(["new_in_2", "constructor", ""])("of the unknown code %j is internal and says the code", (code) => {
    const error = errorFromWire({ ...wire, code });
    expect(error).toBeInstanceOf(InternalError);
    expect(error.details).toEqual({ n: 1, code });
    expect(isErrorCode(code)).toBe(false);
  });
});

describe("isInstance", () => {
  test("tells the package's errors from others", () => {
    expect(MarlinError.isInstance(new PythonError("m"))).toBe(true);
    expect(MarlinError.isInstance(new Error("m"))).toBe(false);
    expect(MarlinError.isInstance({ code: "internal" })).toBe(false);
    expect(MarlinError.isInstance(null)).toBe(false);
  });

  test("of a subclass tells it from the others", () => {
    expect(PythonError.isInstance(new PythonError("m"))).toBe(true);
    expect(PythonError.isInstance(new InternalError("m"))).toBe(false);
    expect(PythonError.isInstance(new MarlinError("m"))).toBe(false);
  });

  test("knows errors of another copy of the package", () => {
    class PythonError extends Error {}
    Object.defineProperty(PythonError.prototype, Symbol.for("marlin-torch.error"), { value: true });
    Object.defineProperty(PythonError.prototype, "name", { value: "PythonError" });
    expect(MarlinError.isInstance(new PythonError())).toBe(true);
    expect(errors.PythonError.isInstance(new PythonError())).toBe(true);
    expect(CancelledError.isInstance(new PythonError())).toBe(false);
  });
});

test("an error keeps its cause, also undefined, and has none unless given", () => {
  expect(new CancelledError("m", { cause: "why" }).cause).toBe("why");
  expect("cause" in new CancelledError("m", { cause: undefined })).toBe(true);
  expect("cause" in new CancelledError("m")).toBe(false);
});

test("the stack begins with the class and the message", () => {
  expect(new PythonError("division by zero").stack).toMatch(/^PythonError: division by zero\n/);
});

test("the end of a worker has its code, signal and stderr", () => {
  const error = new WorkerDiedError("m", { exitCode: null, signal: "SIGKILL", stderr: "last words" });
  expect(error).toMatchObject({ exitCode: null, signal: "SIGKILL", stderr: "last words" });
});
