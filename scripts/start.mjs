// `npm start`: sets up what is missing on this machine, then runs `marlin demo` with the arguments given.
// Plain Node, no dependencies: on a fresh clone nothing is installed yet. Set-up reports to stderr.

import process from "node:process";

const OLDEST_NODE = [20, 12];

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor < OLDEST_NODE[1])) {
  console.error(
    `Expected Node ${OLDEST_NODE.join(".")} or newer, got ${process.versions.node}.\nWhat to do: https://nodejs.org/`,
  );
  process.exit(1);
}
if (process.platform === "win32") {
  console.error("Windows is served through WSL: clone and start inside a Linux distribution there.");
  process.exit(1);
}

// Imported only now, so that an old Node meets the message above and not a syntax error.
const { runFrontDoor } = await import("./setup/front-door.mjs");

await runFrontDoor(async ({ setUp, runCommand, setupOptions, rest }) => {
  const { python } = await setUp(setupOptions);
  const { ROOT } = await import("./setup/paths.mjs");
  return runCommand(process.execPath, [`${ROOT}/dist/cli/main.js`, "demo", ...rest], {
    ...process.env,
    MARLIN_PYTHON: python,
  });
});
