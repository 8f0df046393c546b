import { expect, test } from "vitest";
import { countJunit, countVitest } from "../../../scripts/testing/counts.mjs";
import { settle, summarize } from "../../../scripts/testing/run.mjs";

test("vitest's report is counted; a file that does not load is a failure", () => {
  const report = {
    numPassedTests: 7,
    numFailedTests: 1,
    numPendingTests: 2,
    numTodoTests: 0,
    testResults: [
      { status: "passed", assertionResults: [{ status: "passed" }] },
      { status: "failed", assertionResults: [{ status: "failed" }] },
      { status: "failed", assertionResults: [] },
    ],
  };
  expect(countVitest(JSON.stringify(report))).toEqual({ passed: 7, failed: 2, skipped: 2 });
});

test("pytest's report is counted; errors are failures", () => {
  const xml = `<?xml version="1.0"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="2" skipped="3" tests="10" time="1.0"><testcase classname="failures" name="x" /></testsuite></testsuites>`;
  expect(countJunit(xml)).toEqual({ passed: 4, failed: 3, skipped: 3 });
});

test("a check without a report counts as one test", () => {
  expect(settle(true, undefined)).toEqual({ passed: 1, failed: 0, skipped: 0 });
  expect(settle(false, undefined)).toEqual({ passed: 0, failed: 1, skipped: 0 });
});

test("a check that failed though its tests passed has one failure", () => {
  expect(settle(false, { passed: 5, failed: 0, skipped: 0 })).toEqual({ passed: 5, failed: 1, skipped: 0 });
});

test("the last line is the sum", () => {
  const rows = [
    { name: "lint", ok: true, seconds: 1, passed: 1, failed: 0, skipped: 0 },
    { name: "vitest", ok: false, seconds: 65, passed: 41, failed: 2, skipped: 1 },
  ];
  const lines = summarize(rows).trimEnd().split("\n");
  expect(lines.at(-1)).toBe("42 passed, 2 failed");
  expect(lines.find((line) => line.startsWith("FAILED"))).toMatch(
    /^FAILED {2}vitest +1 min 05 s {2}41 passed, 2 failed, 1 skipped$/,
  );
});
