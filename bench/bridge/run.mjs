// `npm run bench:bridge [-- --quick --json --rounds N]`: installs the peers, compiles the bench, runs it. The peers are
// no dependency of the package; node-calls-python compiles against the Python in the path, and where that fails npm
// leaves it out, and the bench says so.

import { spawnSync } from "node:child_process";
import { rmSync, symlinkSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { areNodePackagesCurrent } from "../../scripts/setup/node-packages.mjs";

const folder = fileURLToPath(new URL(".", import.meta.url));
const root = fileURLToPath(new URL("../..", import.meta.url));
const compiled = new URL("../../build/bench-bridge/", import.meta.url);

if (!areNodePackagesCurrent(folder)) {
  process.stderr.write("Installing the peers (pythonia, node-calls-python).\n");
  prepare("npm", ["ci", "--no-audit", "--no-fund"], folder);
}
prepare(process.execPath, ["node_modules/typescript/bin/tsc", "-p", folder], root);
// The compiled files lie outside this folder and must find its packages, also after the checkout was moved.
rmSync(new URL("node_modules", compiled), { force: true });
symlinkSync("../../bench/bridge/node_modules", new URL("node_modules", compiled));

// In this process, so that a signal to it ends the bench.
process.chdir(root);
process.env.MARLIN_BENCH_FOLDER = folder;
await import(new URL("main.js", compiled));

/** Runs a command whose words all go to stderr; ends this process if it fails, as the command has said why. */
function prepare(command, args, cwd) {
  const { status } = spawnSync(command, args, { cwd, stdio: ["ignore", 2, 2] });
  if (status !== 0) process.exit(1);
}
