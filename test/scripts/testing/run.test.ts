import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { InterruptedError } from "../../../scripts/steps/step.mjs";
import { runChecks } from "../../../scripts/testing/run.mjs";

let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "marlin checks "));
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

/** A check that says its name, makes a file of it, waits for that of another check, and says that it has ended. */
function meeting(name: string, other: string, kind: "static" | "test" = "test") {
  const [own, wanted] = [name, other].map((file) => JSON.stringify(path.join(folder, file)));
  const script = `
    const fs = require("node:fs");
    console.log("${name} begins");
    fs.writeFileSync(${own}, "");
    const look = () => fs.existsSync(${wanted}) ? console.log("${name} ends") : setTimeout(look, 10);
    look();
  `;
  return {
    name,
    title: `Check ${name}`,
    kind,
    commands: [[process.execPath, "-e", script]] as [string, ...string[]][],
  };
}

async function run(checks: ReturnType<typeof meeting>[], atOnce: number, signal = new AbortController().signal) {
  let printed = "";
  const write = (text: string | Buffer): void => {
    printed += text;
  };
  const code = await runChecks(checks, { env: process.env, signal, atOnce, write });
  return { code, lines: printed.split("\n").filter((line) => / (?:begins|ends)$|^\d+ passed/.test(line)) };
}

test("two checks run at the same time, and the output of each stays in one piece", async () => {
  const { code, lines } = await run([meeting("a", "b"), meeting("b", "a")], 2);
  expect(code).toBe(0);
  expect(lines.slice(0, 4)).toEqual(["a begins", "a ends", "b begins", "b ends"]);
  expect(lines.at(-1)).toBe("2 passed, 0 failed");
});

test("static checks end before tests begin", async () => {
  const { lines } = await run([meeting("test", "static"), meeting("static", "static", "static")], 2);
  expect(lines.slice(0, 4)).toEqual(["static begins", "static ends", "test begins", "test ends"]);
});

test("one at a time, each in its order", async () => {
  const { lines } = await run([meeting("a", "a"), meeting("b", "a")], 1);
  expect(lines.slice(0, 4)).toEqual(["a begins", "a ends", "b begins", "b ends"]);
});

test("an interruption ends all that runs, and begins nothing more", async () => {
  const interrupted = new AbortController();
  const waiting = run([meeting("a", "never"), meeting("b", "never"), meeting("c", "c")], 2, interrupted.signal);
  await expect.poll(() => fs.readdirSync(folder).sort()).toEqual(["a", "b"]);
  interrupted.abort();
  await expect(waiting).rejects.toThrow(InterruptedError);
  expect(fs.readdirSync(folder).sort()).toEqual(["a", "b"]);
});
