import fs from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";

const PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
const packageJson = JSON.parse(fs.readFileSync("package.json", "utf8"));

test.each(PAGES)("every link to a file in %s leads to one", (page) => {
  const links = [...fs.readFileSync(page, "utf8").matchAll(/\]\((?!https?:)([^)#]+)/g)].map((match) => match[1] ?? "");
  expect(links.filter((link) => !fs.existsSync(link))).toEqual([]);
});

test.each(PAGES)("every npm script named in %s exists", (page) => {
  const named = [...fs.readFileSync(page, "utf8").matchAll(/npm run ([\w:]+)/g)].map((match) => match[1] ?? "");
  expect(named.filter((name) => !(name in packageJson.scripts))).toEqual([]);
});

test("the package ships what it needs to set itself up, and no build output of a machine", () => {
  for (const file of [
    "dist",
    "python/marlin",
    "csrc",
    "models",
    "scripts",
    "setup.py",
    "pyproject.toml",
    "constraints.txt",
  ]) {
    expect(packageJson.files).toContain(file);
  }
  expect(packageJson.files).toContain("!**/*.so");
});

test("every package with an install script is allowed to run it", () => {
  const { packages } = JSON.parse(fs.readFileSync("package-lock.json", "utf8"));
  const scripted = Object.entries<{ hasInstallScript?: boolean; dev?: boolean; optional?: boolean }>(packages)
    .filter(([name, entry]) => name !== "" && entry.hasInstallScript === true)
    .map(([name]) => path.relative("node_modules", name));
  expect(scripted.filter((name) => packageJson.allowScripts[name] === undefined)).toEqual([]);
});

test("CONTRIBUTING.md stays under 100 lines", () => {
  expect(fs.readFileSync("CONTRIBUTING.md", "utf8").split("\n").length).toBeLessThan(100);
});
