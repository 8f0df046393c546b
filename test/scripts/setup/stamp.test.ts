import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { clearStamp, hashInputs, isStamped, writeStamp } from "../../../scripts/setup/stamp.mjs";

let root: string;
beforeEach(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), "marlin stamp "));
  fs.mkdirSync(path.join(root, "src", "deep"), { recursive: true });
  fs.writeFileSync(path.join(root, "src", "a.ts"), "one");
  fs.writeFileSync(path.join(root, "src", "deep", "b.ts"), "two");
});
afterEach(() => fs.rmSync(root, { recursive: true }));

const hash = (values = {}): string => hashInputs({ files: ["src", "absent.txt"], values, root });

test("equal inputs have equal hashes", () => {
  expect(hash({ torch: "2.13.0" })).toBe(hash({ torch: "2.13.0" }));
});

test.each([
  ["content", () => fs.writeFileSync(path.join(root, "src", "deep", "b.ts"), "three")],
  ["name", () => fs.renameSync(path.join(root, "src", "a.ts"), path.join(root, "src", "c.ts"))],
  ["presence", () => fs.writeFileSync(path.join(root, "absent.txt"), "")],
])("another %s of a file is another hash", (_, change) => {
  const before = hash();
  change();
  expect(hash()).not.toBe(before);
});

test("another value is another hash", () => {
  expect(hash({ torch: "2.13.0" })).not.toBe(hash({ torch: "2.14.0" }));
});

test("caches of Python do not count", () => {
  const before = hash();
  fs.mkdirSync(path.join(root, "src", "__pycache__"));
  fs.writeFileSync(path.join(root, "src", "__pycache__", "a.pyc"), "");
  expect(hash()).toBe(before);
});

test("a stamp holds for its hash only, until it is cleared", () => {
  const folder = path.join(root, "stamps");
  expect(isStamped("step", "h1", folder)).toBe(false);
  writeStamp("step", "h1", folder);
  expect(isStamped("step", "h1", folder)).toBe(true);
  expect(isStamped("step", "h2", folder)).toBe(false);
  clearStamp("step", folder);
  expect(isStamped("step", "h1", folder)).toBe(false);
  expect(fs.readdirSync(folder)).toEqual([]);
});
