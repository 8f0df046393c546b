// The file tree of README.md, made from the first sentence of each file. `node scripts/tree.mjs --write` renews it;
// without the flag it exits with 1 if README.md tells another story.

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { ROOT } from "./setup/paths.mjs";

const START = /(<!-- tree:[^>]*-->\n)[\s\S]*?(<!-- \/tree -->)/;
const FOLDERS = ["src", "python/marlin", "csrc", "scripts", "bench", "examples", "training"];
const SOURCE = /\.(?:ts|mjs|py|cpp|h|cu|cuh)$/;
/** Folders of tests, and what has no header of its own: one line each. */
const FIXED = {
  "csrc/tests/": "The kernels without torch, plain and under sanitizers",
  "python/tests/": "pytest; mirrors python/marlin",
  "test/": "vitest; mirrors src/ and scripts/",
  "test/fixtures/wire/": "Golden frames of the wire, read by both languages",
  "models/stdlib-6m/": "The bundled language model, its tokenizer and held-out text",
  "bench/results/": "Raw results; every figure in a document comes from one",
  "docs/": "Architecture, wire, number format, errors",
};
const IGNORED = new Set(["tests", "results", "node_modules", "__pycache__"]);
const COMMENT_COLUMNS = 110;
const INDENT = "  ";

/** The whole block between the markers of README.md. @param {string} root */
export function renderTree(root) {
  const entries = FOLDERS.flatMap((folder) => sourceFiles(root, folder)).map((file) => ({
    file,
    comment: firstSentence(fs.readFileSync(path.join(root, file), "utf8")),
  }));
  const fixed = Object.entries(FIXED)
    .filter(([folder]) => fs.existsSync(path.join(root, folder)))
    .map(([file, comment]) => ({ file, comment }));
  const described = [...mergeSources(entries), ...fixed].sort((a, b) => compareFiles(a.file, b.file));
  const width = Math.max(...described.map(({ file }) => path.posix.basename(file).length + INDENT.length)) + 2;
  const lines = [];
  let folder = "";
  for (const { file, comment } of described) {
    const isFolder = file.endsWith("/");
    if (!isFolder && path.posix.dirname(file) !== folder) {
      folder = path.posix.dirname(file);
      lines.push(`${folder}/`);
    }
    const name = isFolder ? file : `${INDENT}${path.posix.basename(file)}`;
    lines.push(`${name.padEnd(width)}${comment}`);
  }
  return `\`\`\`text\n${lines.join("\n")}\n\`\`\`\n`;
}

/** README.md with its tree renewed. @param {string} text @param {string} root */
export function withTree(text, root) {
  return text.replace(START, (_, start, end) => `${start}${renderTree(root)}${end}`);
}

/** The first sentence of a file's header comment, shortened at a clause if it is long; "" if there is none. @param {string} text */
export function firstSentence(text) {
  const header = /^(?:#!.*\n)?(?:"""([\s\S]*?)"""|((?:\/\/.*\n)+))/.exec(text);
  if (header === null) return "";
  const comment = (header[1] ?? header[2]).replace(/^\/\/ ?/gm, "").split(/\n\s*\n/)[0];
  const sentence = comment
    .replace(/\s+/g, " ")
    .trim()
    .split(/\.(?= |$)/)[0];
  if (sentence.length <= COMMENT_COLUMNS) return sentence;
  const clause = sentence.slice(0, COMMENT_COLUMNS).split(/[;:(,](?=[^;:(,]*$)/)[0];
  return clause.trim();
}

/** Every source file below a folder, relative to the root. Tests have one line for their folder. */
function sourceFiles(root, folder) {
  const absolute = path.join(root, folder);
  if (!fs.existsSync(absolute)) return [];
  return fs
    .readdirSync(absolute, { withFileTypes: true })
    .filter(({ name }) => !IGNORED.has(name))
    .flatMap((entry) => {
      const file = `${folder}/${entry.name}`;
      return entry.isDirectory() ? sourceFiles(root, file) : SOURCE.test(entry.name) ? [file] : [];
    });
}

/** A folder's own files come before its subfolders. */
function compareFiles(a, b) {
  const [folderA, folderB] = [a, b].map((file) => (file.endsWith("/") ? file : `${path.posix.dirname(file)}/`));
  if (folderA === folderB) return a < b ? -1 : 1;
  return folderA < folderB ? -1 : 1;
}

/** `plan.h` and `plan.cpp` are one line, described by the header. */
function mergeSources(entries) {
  const headers = new Set(entries.map(({ file }) => file).filter((file) => file.endsWith(".h")));
  return entries
    .filter(({ file }) => !(file.endsWith(".cpp") && headers.has(file.replace(/\.cpp$/, ".h"))))
    .map(({ file, comment }) => {
      const source = file.replace(/\.h$/, ".cpp");
      const isPair = file.endsWith(".h") && entries.some((entry) => entry.file === source);
      return { file: isPair ? file.replace(/\.h$/, ".{h,cpp}") : file, comment };
    });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const readme = path.join(ROOT, "README.md");
  const before = fs.readFileSync(readme, "utf8");
  const after = withTree(before, ROOT);
  if (process.argv[2] === "--write") fs.writeFileSync(readme, after);
  else if (before !== after) {
    console.error("README.md: the file tree is not that of the sources; `npm run fmt` renews it.");
    process.exitCode = 1;
  }
}
