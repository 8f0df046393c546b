// Compiles src/ to dist/ when its sources changed.

import fs from "node:fs";
import path from "node:path";
import { runStep } from "../steps/step.mjs";
import { ROOT } from "./paths.mjs";
import { clearStamp, hashInputs, isStamped, listFiles, writeStamp } from "./stamp.mjs";

const NAME = "typescript";
const OUTPUT = /(?:\.d\.ts|\.js)(?:\.map)?$/;

/** @param {{ signal?: AbortSignal }} options */
export async function ensureTypescript({ signal }) {
  // A published package ships dist/ and no compiler.
  if (!fs.existsSync(path.join(ROOT, "tsconfig.json"))) return;
  const hash = hashInputs({ files: ["src", "tsconfig.json", "node_modules/typescript/package.json"] });
  if (isStamped(NAME, hash) && fs.existsSync(path.join(ROOT, "dist", "cli", "main.js"))) return;
  clearStamp(NAME);
  await runStep({
    name: "tsc",
    label: "Compiling TypeScript",
    command: process.execPath,
    args: [path.join("node_modules", "typescript", "bin", "tsc"), "-p", "."],
    signal,
  });
  pruneOutputs(ROOT);
  writeStamp(NAME, hash);
}

/** Removes outputs whose source is gone, so that the package never ships a deleted module. */
export function pruneOutputs(root) {
  for (const output of listFiles(path.join(root, "dist"))) {
    const stem = path.relative(path.join(root, "dist"), output).replace(OUTPUT, "");
    if (!fs.existsSync(path.join(root, "src", `${stem}.ts`))) fs.rmSync(output);
  }
}
