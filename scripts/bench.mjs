// `npm run bench:linear`, `bench:decode`, `bench:bridge`, `bench:gpu`: the same set-up as `npm start`, then a benchmark
// of bench/ with the arguments given.

import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { runFrontDoor } from "./setup/front-door.mjs";
import { ROOT } from "./setup/paths.mjs";

await runFrontDoor(async ({ setUp, runCommand, setupOptions, rest: [suite, ...rest] }) => {
  const { python } = await setUp(setupOptions);
  const env = { ...process.env, MARLIN_PYTHON: python };
  const script = path.join(ROOT, "bench", `bench_${suite}.py`);
  if (fs.existsSync(script)) return runCommand(python, [script, ...rest], env);
  return runCommand(process.execPath, [`${ROOT}/dist/cli/main.js`, "bench", suite, "--", ...rest], env);
});
