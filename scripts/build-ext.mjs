// `npm run build:ext`: builds the operators in csrc/, whether or not their sources changed.

import { runFrontDoor } from "./setup/front-door.mjs";

await runFrontDoor(async ({ setUp, setupOptions }) => {
  await setUp({ ...setupOptions, forceExtension: true });
  return 0;
});
