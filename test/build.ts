// Compiles what tests run in processes of their own: the package into dist/, examples and test programs into
// build/programs/, where they import the package by its name, as a user's program does.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

export default function build(): void {
  for (const project of [".", "test/programs"]) {
    execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", project], { cwd: root, stdio: "inherit" });
  }
}
