import fs from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { listFiles } from "../../scripts/setup/stamp.mjs";

const PAGES = [
  ...["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"],
  ...["docs", "bench", "examples", "training"].flatMap((folder) =>
    fs
      .readdirSync(folder)
      .filter((name) => name.endsWith(".md"))
      .map((name) => path.join(folder, name)),
  ),
];
/** Variables of the operating system and of Python, whose meaning is everywhere the same. */
const COMMON_VARIABLES = ["PATH", "PYTHONPATH"];
const packageJson = JSON.parse(fs.readFileSync("package.json", "utf8"));

test.each(PAGES)("every link to a file in %s leads to one", (page) => {
  const links = [...fs.readFileSync(page, "utf8").matchAll(/\]\((?!https?:)([^)#]+)/g)].map((match) => match[1] ?? "");
  expect(links.filter((link) => !fs.existsSync(path.join(path.dirname(page), link)))).toEqual([]);
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

test("every variable of the environment that the code reads is in the table of docs/architecture.md", () => {
  const code = ["src", "scripts", "python/marlin", "csrc", "setup.py"]
    .flatMap((entry) => listFiles(entry))
    .filter((file) => /\.(?:ts|mjs|py|cpp|h)$/.test(file))
    .map((file) => fs.readFileSync(file, "utf8"))
    .join("\n");
  const read = [...code.matchAll(/(?:\benv\.|environ(?:\.get\(|\[)"|getenv\(")([A-Z][A-Z_]+)\b/g)].map(
    (match) => match[1] ?? "",
  );
  expect(read).toContain("MARLIN_CPU_KERNEL");
  const page = fs.readFileSync("docs/architecture.md", "utf8");
  expect(
    [...new Set(read)].filter((name) => !COMMON_VARIABLES.includes(name) && !page.includes(`\`${name}\``)),
  ).toEqual([]);
});

test("the codes without a class in Python are those that docs/errors.md names", () => {
  const page = fs.readFileSync("docs/errors.md", "utf8");
  const python = fs.readFileSync("python/marlin/errors.py", "utf8");
  const inPython = [...python.matchAll(/code[^=\n]*= "([a-z_]+)"/g)].map((match) => match[1] ?? "");
  const codes = [...page.matchAll(/^\| `([a-z_]+)` \|/gm)].map((match) => match[1] ?? "");
  const clientOnly = /only a client can meet \(([^)]+)\)/.exec(page)?.[1] ?? "";
  expect(codes.filter((code) => !inPython.includes(code)).sort()).toEqual(
    [...clientOnly.matchAll(/`([a-z_]+)`/g)].map((match) => match[1] ?? ""),
  );
});

test.each([".", "bench/bridge"])("every package of %s with an install script is allowed to run it", (folder) => {
  const { allowScripts } = JSON.parse(fs.readFileSync(path.join(folder, "package.json"), "utf8"));
  const { packages } = JSON.parse(fs.readFileSync(path.join(folder, "package-lock.json"), "utf8"));
  const scripted = Object.entries<{ hasInstallScript?: boolean; dev?: boolean; optional?: boolean }>(packages)
    .filter(([name, entry]) => name !== "" && entry.hasInstallScript === true)
    .map(([name]) => path.relative("node_modules", name));
  expect(scripted.filter((name) => allowScripts[name] === undefined)).toEqual([]);
});

test("CONTRIBUTING.md stays under 100 lines", () => {
  expect(fs.readFileSync("CONTRIBUTING.md", "utf8").split("\n").length).toBeLessThan(100);
});
