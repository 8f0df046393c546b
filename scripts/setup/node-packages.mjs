// The Node packages: `npm ci` when node_modules is missing or older than package-lock.json.

import fs from "node:fs";
import path from "node:path";
import { runStep } from "../steps/step.mjs";
import { ROOT } from "./paths.mjs";

/** npm writes this file last, so its time says when an installation was completed. */
const INSTALLED = path.join("node_modules", ".package-lock.json");

/** True if an `npm ci` completed after package-lock.json last changed; also in a published package, which has no such file. */
export function areNodePackagesCurrent(root = ROOT) {
  const locked = fs.statSync(path.join(root, "package-lock.json"), { throwIfNoEntry: false });
  if (locked === undefined) return true;
  const installed = fs.statSync(path.join(root, INSTALLED), { throwIfNoEntry: false });
  return installed !== undefined && installed.mtimeMs >= locked.mtimeMs;
}

/** @param {{ signal?: AbortSignal }} options */
export async function ensureNodePackages({ signal }) {
  if (areNodePackagesCurrent()) return;
  // Under `npm start`, npm tells its own path; its configuration (registry, proxy) comes by environment and files.
  const npm = process.env.npm_execpath;
  const [command, prefix] = npm?.endsWith(".js") ? [process.execPath, [npm]] : ["npm", []];
  await runStep({
    name: "npm-ci",
    label: "Installing Node packages",
    command,
    args: [...prefix, "ci", "--include=dev", "--no-audit", "--no-fund"],
    signal,
  });
}
