// `npm run fmt`: formats every language in place, applies the lint fixes that are safe, and renews README's file tree.

import process from "node:process";
import { runFrontDoor } from "./setup/front-door.mjs";
import { formatters } from "./testing/checks.mjs";
import { runAll } from "./testing/command.mjs";

await runFrontDoor(async ({ setUp, setupOptions, signal }) => {
  const { python } = await setUp({ ...setupOptions, development: true });
  return (await runAll(formatters({ python }), { env: process.env, signal })) ? 0 : 1;
});
