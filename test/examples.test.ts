// The examples run as a user runs them: compiled, importing the package by its name.

import fs from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { Program } from "./client/programs.ts";

const FOLDER = fileURLToPath(new URL("../examples", import.meta.url));
const MAX_LINES = 60;

/** What each prints, in part. */
const OUTPUT: Readonly<Record<string, readonly (string | RegExp)[]>> = {
  "01-hello": [
    /^Python 3\./,
    "1.4142135623730951 3.14159",
    "Float32Array(6) [ 0, 1, 2, 3, 4, 5 ]",
    "\n15\n",
    "Handle(",
  ],
  "02-tensors": ["sum 19", "Float32Array(4) [ 7, 7, 7, 7 ]", "Uint16Array(2)", /mean -?0\.\d/],
  "03-cancel": ["1\n2\n3\n", "cancelled: Error: seen enough", "timeout"],
};

const names = fs
  .readdirSync(FOLDER)
  .filter((name) => name.endsWith(".ts"))
  .map((name) => name.replace(/\.ts$/, ""));

test("every TypeScript example is known here", () => {
  expect(names).toEqual(Object.keys(OUTPUT));
});

test.each(names)("%s is short, and prints what it is about", async (name) => {
  expect(fs.readFileSync(`${FOLDER}/${name}.ts`, "utf8").split("\n").length).toBeLessThan(MAX_LINES);
  const program = new Program(`examples/${name}`);
  const { code } = await program.exited();
  expect(program.stderr).toBe("");
  expect(code).toBe(0);
  for (const part of OUTPUT[name] ?? []) {
    if (typeof part === "string") expect(program.stdout).toContain(part);
    else expect(program.stdout).toMatch(part);
  }
  await program.expectNothingLeft();
});
