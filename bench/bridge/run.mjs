// `npm run bench:bridge [-- --quick --json --rounds N]`: installs the peers, compiles the bench, runs it. The peers are
// no dependency of the package; node-calls-python compiles against the Python in the path, and is left out with its
// reason where that fails.

import { execFileSync } from "node:child_process";
import { existsSync, symlinkSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL(".", import.meta.url));
const root = fileURLToPath(new URL("../..", import.meta.url));
const compiled = fileURLToPath(new URL("../../build/bench-bridge/", import.meta.url));

if (!existsSync(`${folder}node_modules/pythonia`)) {
  process.stderr.write("Installing the peers (pythonia, node-calls-python).\n");
  execFileSync("npm", ["ci", "--no-audit", "--no-fund"], { cwd: folder, stdio: ["ignore", 2, 2] });
}
execFileSync(process.execPath, [`${root}node_modules/typescript/bin/tsc`, "-p", folder], { stdio: ["ignore", 2, 2] });
// The compiled files lie outside this folder and must find its packages.
if (!existsSync(`${compiled}node_modules`)) symlinkSync(`${folder}node_modules`, `${compiled}node_modules`);
try {
  execFileSync(process.execPath, [`${compiled}main.js`, ...process.argv.slice(2)], {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, MARLIN_BENCH_FOLDER: folder },
  });
} catch (error) {
  process.exitCode = error.status ?? 1;
}
