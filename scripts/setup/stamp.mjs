// Stamps: a step is skipped while the hash of its inputs equals the one written after it last succeeded.
// A stamp is written last, so an interrupted step has none and runs again.

import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { ROOT, STAMPS } from "./paths.mjs";

/**
 * Hashes files, folders (recursively) and plain strings, in a stable order.
 * @param {{ files?: string[], values?: Record<string, string>, root?: string }} inputs paths relative to `root`
 * @returns {string} hex SHA-256
 */
export function hashInputs({ files = [], values = {}, root = ROOT }) {
  const hash = createHash("sha256");
  for (const file of files.flatMap((entry) => listFiles(path.join(root, entry))).sort()) {
    hash.update(`${path.relative(root, file)}\0`);
    hash.update(createHash("sha256").update(fs.readFileSync(file)).digest());
  }
  for (const key of Object.keys(values).sort()) hash.update(`${key}=${values[key]}\0`);
  return hash.digest("hex");
}

/** All files below `entry`, or `entry` itself; nothing where it does not exist. Caches of other tools do not count. */
export function listFiles(entry) {
  const stat = fs.statSync(entry, { throwIfNoEntry: false });
  if (stat === undefined) return [];
  if (!stat.isDirectory()) return [entry];
  return fs
    .readdirSync(entry)
    .filter((name) => name !== "__pycache__")
    .flatMap((name) => listFiles(path.join(entry, name)));
}

/** True while the step `name` last succeeded with the inputs `hash`. */
export function isStamped(name, hash, folder = STAMPS) {
  const file = path.join(folder, name);
  return fs.existsSync(file) && fs.readFileSync(file, "utf8") === hash;
}

/** Records that the step `name` succeeded; atomic, so that a half-written stamp cannot exist. */
export function writeStamp(name, hash, folder = STAMPS) {
  fs.mkdirSync(folder, { recursive: true });
  const temporary = path.join(folder, `${name}.${process.pid}`);
  fs.writeFileSync(temporary, hash);
  fs.renameSync(temporary, path.join(folder, name));
}

/** Forgets a stamp before its step changes anything, so that an interruption is seen. */
export function clearStamp(name, folder = STAMPS) {
  fs.rmSync(path.join(folder, name), { force: true });
}
