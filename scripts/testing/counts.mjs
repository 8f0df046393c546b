// Reads how many tests passed and failed out of the reports that vitest and pytest write. Pure.

/** @typedef {{ passed: number, failed: number, skipped: number }} Counts */

/**
 * vitest's JSON report. A file that could not be loaded has no tests, and counts as one failure.
 * @param {string} text
 * @returns {Counts}
 */
export function countVitest(text) {
  const report = JSON.parse(text);
  const broken = report.testResults.filter(
    (file) => file.status === "failed" && !file.assertionResults.some(({ status }) => status === "failed"),
  );
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests + broken.length,
    skipped: report.numPendingTests + (report.numTodoTests ?? 0),
  };
}

/**
 * pytest's JUnit report. A collection error counts as a failure; an expected failure as skipped, as pytest writes it.
 * @param {string} text
 * @returns {Counts}
 */
export function countJunit(text) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for (const [suite] of text.matchAll(/<testsuite\s[^>]*>/g)) {
    const attribute = (name) => Number(new RegExp(`\\s${name}="(\\d+)"`).exec(suite)?.[1] ?? 0);
    const failed = attribute("failures") + attribute("errors");
    counts.failed += failed;
    counts.skipped += attribute("skipped");
    counts.passed += attribute("tests") - failed - attribute("skipped");
  }
  return counts;
}
