import fs from "node:fs";
import { expect, test } from "vitest";
import { firstSentence, withTree } from "../../scripts/tree.mjs";

test("README.md has the file tree of the sources (npm run fmt renews it)", () => {
  const readme = fs.readFileSync("README.md", "utf8");
  expect(readme).toBe(withTree(readme, "."));
});

test.each([
  ["// One thing. Another.\nimport x;", "One thing"],
  ["#!/usr/bin/env node\n// A program, on\n// two lines.\n", "A program, on two lines"],
  ['"""A module: what it is.\n\nMore."""\n', "A module: what it is"],
  ["// Names `a.ts` and docs/b.md, no end\n", "Names `a.ts` and docs/b.md, no end"],
  ["import x;\n// Not a header.\n", ""],
])("the first sentence of %j is %j", (text, sentence) => {
  expect(firstSentence(text)).toBe(sentence);
});

test("a long sentence is cut at a clause", () => {
  const sentence = firstSentence(`// ${"word ".repeat(15)}here, ${"word ".repeat(15)}there.\n`);
  expect(sentence).toMatch(/here$/);
});
