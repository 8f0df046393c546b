import { expect, test } from "vitest";
import { errorDocument, errorText, UsageError } from "../../src/cli/exit.ts";
import { InvalidArgumentError, PythonError } from "../../src/errors.ts";

const remote = new PythonError("ValueError: bad", {
  pythonType: "ValueError",
  traceback: "Traceback: line 3\n",
  details: { at: 3 },
});

test("an error is one sentence with its code", () => {
  expect(errorText(new InvalidArgumentError("`x` must be 1, got 2."), false)).toBe(
    "marlin: `x` must be 1, got 2. [invalid_argument]",
  );
  expect(errorText(new UsageError("Expected a prompt."), false)).toBe("marlin: Expected a prompt. [usage]");
  expect(errorText("text", false)).toBe("marlin: text [internal]");
});

test("--verbose adds the Python traceback and the stack", () => {
  const text = errorText(remote, true);
  expect(text).toContain("Traceback: line 3");
  expect(text).toContain("exit.test.ts");
  expect(errorText(remote, false)).not.toContain("Traceback");
});

test("machines get code, message and details", () => {
  expect(errorDocument(remote, false)).toEqual({
    error: { code: "python_error", message: "ValueError: bad", details: { at: 3 } },
  });
  expect(errorDocument(remote, true).error.traceback).toContain("line 3");
});
