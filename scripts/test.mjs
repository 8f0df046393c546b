// `npm test`: the same set-up as `npm start` plus the test tools, then every check; all run even if one fails.
// `npm test -- --only vitest,pytest` runs some. The last line is `N passed, N failed`; the exit code is 1 if any failed.

import process from "node:process";
import { runFrontDoor } from "./setup/front-door.mjs";
import { StepError } from "./steps/step.mjs";
import { checks } from "./testing/checks.mjs";
import { runChecks } from "./testing/run.mjs";

await runFrontDoor(async ({ setUp, setupOptions, rest, signal }) => {
  const only = readOnly(rest);
  const { python } = await setUp({ ...setupOptions, development: true });
  const selected = checks({ python }).filter(({ name, onRequest }) =>
    only === undefined ? !onRequest : only.includes(name),
  );
  // As the worker has it (src/worker-process.ts): several processes with torch share the machine.
  // Where nvcc can be had, set-up has installed it: a check that can't find it shall fail, not skip.
  const nvcc = process.platform === "linux" ? { MARLIN_REQUIRE_NVCC: "1" } : {};
  const env = { GOMP_SPINCOUNT: "1000", ...nvcc, ...process.env, MARLIN_PYTHON: python };
  return runChecks(selected, { env, signal });
});

/** @param {string[]} args @returns {string[] | undefined} */
function readOnly(args) {
  const known = checks({ python: "" }).map(({ name }) => name);
  const [flag, list, ...extra] = args.flatMap((argument) => argument.split("="));
  if (flag === undefined) return undefined;
  const only = (list ?? "").split(",");
  if (flag !== "--only" || extra.length > 0 || only.some((name) => !known.includes(name))) {
    throw new StepError(`Expected \`--only NAME,...\` with names of ${known.join(", ")}, got \`${args.join(" ")}\`.`);
  }
  return only;
}
