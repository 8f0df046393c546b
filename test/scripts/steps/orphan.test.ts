import { spawn } from "node:child_process";
import { once } from "node:events";
import os from "node:os";
import path from "node:path";
import { afterEach, expect, test } from "vitest";
import { endOrphan, forgetChild, noteChild } from "../../../scripts/steps/orphan.mjs";

const note = path.join(os.tmpdir(), `marlin-running-${process.pid}.json`);
afterEach(() => forgetChild(note));

const sleeper = (): ReturnType<typeof spawn> =>
  spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { detached: true, stdio: "ignore" });

test("a command that a killed start left running is ended", async () => {
  const child = sleeper();
  const closed = once(child, "close");
  noteChild(child.pid, note);
  await endOrphan(note);
  expect(await closed).toEqual([null, "SIGKILL"]);
});

test("a command that ended by itself is forgotten, and nothing is killed", async () => {
  const child = sleeper();
  noteChild(child.pid, note);
  forgetChild(note);
  await endOrphan(note);
  expect(child.kill(0)).toBe(true);
  child.kill("SIGKILL");
  await once(child, "close");
});
