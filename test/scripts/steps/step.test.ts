import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { explainFailure, runLogged } from "../../../scripts/steps/step.mjs";

const note = path.join(os.tmpdir(), `marlin-step-${process.pid}.json`);

const node = (program: string) => ({
  name: "test-step",
  label: "Testing",
  command: process.execPath,
  args: ["-e", program],
  note,
});

test("every line is reported without control sequences, and the log has all of it", async () => {
  const lines: string[] = [];
  const result = await runLogged(
    node(`process.stdout.write("\\x1b[32mgreen\\x1b[0m\\n10%\\r20%\\n"); process.stderr.write("problem\\n")`),
    (line: string) => lines.push(line),
  );
  expect(result.code).toBe(0);
  expect(lines.sort()).toEqual(["10%", "20%", "green", "problem"]);
  expect(fs.readFileSync(result.log, "utf8")).toContain("problem\n");
  expect(path.basename(result.log)).toBe("test-step.log");
});

test("a failure says how it ended, the end of the output, what to do, and where the log is", async () => {
  const options = node(`console.error("write failed: ENOSPC"); process.exit(3)`);
  const message = explainFailure(options, await runLogged(options, () => {}));
  expect(message).toMatch(/^Testing: the command ended with code 3\./);
  expect(message).toContain("    write failed: ENOSPC\n");
  expect(message).toContain("What to do: the disk is full.");
  expect(message).toMatch(/The whole output: .*test-step\.log$/);
});

test("a command that does not exist is a failure, not an exception", async () => {
  const options = { name: "test-step", label: "Testing", command: "/no/such/command", args: [], note };
  const result = await runLogged(options, () => {});
  expect(explainFailure(options, result)).toMatch(/could not be started/);
});

test("an abort ends the command", async () => {
  const controller = new AbortController();
  const result = await runLogged(
    { ...node(`console.log("running"); setInterval(() => {}, 1000)`), signal: controller.signal },
    () => controller.abort(),
  );
  expect(result.signal).toBe("SIGTERM");
});
