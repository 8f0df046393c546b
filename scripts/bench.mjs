// `npm run bench:linear`, `npm run bench:bridge`: the same set-up as `npm start`, then a benchmark of bench/ with the
// arguments given.

import process from "node:process";
import { runFrontDoor } from "./setup/front-door.mjs";
import { ROOT } from "./setup/paths.mjs";

await runFrontDoor(async ({ setUp, runCommand, setupOptions, rest: [suite, ...rest] }) => {
  const { python } = await setUp(setupOptions);
  return runCommand(process.execPath, [`${ROOT}/dist/cli/main.js`, "bench", suite, "--", ...rest], {
    ...process.env,
    MARLIN_PYTHON: python,
  });
});
