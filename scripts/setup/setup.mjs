// Everything between a fresh clone and a program that runs, each part only if it is not there yet.
// Safe to interrupt and to run twice at the same time.

import { endOrphan } from "../steps/orphan.mjs";
import { showStep } from "../steps/progress.mjs";
import { InterruptedError } from "../steps/step.mjs";
import { ensureExtension, hasLibrary, requireCompiler } from "./extension.mjs";
import { acquireLock } from "./lock.mjs";
import { ensureNodePackages } from "./node-packages.mjs";
import { ensureGivenPackages, ensureOwnPackages, mustMakeVenv } from "./packages.mjs";
import { LOCK } from "./paths.mjs";
import { checkGivenPython, choosePython, findBasePython, probePython } from "./python.mjs";
import { ensureTypescript } from "./typescript.mjs";

/**
 * Sets up what is missing.
 * @param {{ python?: string, ownVenv?: boolean, development?: boolean, forceExtension?: boolean, signal?: AbortSignal }} [options]
 *   `python`: use this one as it is; `ownVenv`: make .venv whatever environment is active;
 *   `development`: the test tools too
 * @returns {Promise<{ python: string }>} the Python to run the worker with
 * @throws {import("../steps/step.mjs").StepError | InterruptedError}
 */
export async function setUp({ python, ownVenv, development = false, forceExtension = false, signal } = {}) {
  const choice = choosePython({ option: python, ownVenv });
  const given = choice === undefined ? undefined : checkGivenPython(choice, probePython(choice.path));
  // What set-up cannot bring itself is asked for before minutes of downloads, not after.
  const base = choice === undefined && mustMakeVenv() ? findBasePython() : undefined;
  if (!hasLibrary()) requireCompiler();
  const release = await lock(signal);
  try {
    await endOrphan();
    await ensureNodePackages({ signal });
    await ensureTypescript({ signal });
    const info =
      given === undefined
        ? await ensureOwnPackages({ base, development, signal })
        : await ensureGivenPackages({
            info: given,
            development,
            signal,
            announce: (line) => process.stderr.write(`${line}\n`),
          });
    await ensureExtension({ info, force: forceExtension, signal });
    return { python: info.executable };
  } finally {
    release();
  }
}

async function lock(signal) {
  let waiting;
  try {
    const release = await acquireLock(LOCK, {
      signal,
      onWait: (pid) => {
        waiting = showStep(`Waiting for another set-up in this folder (process ${pid})`);
      },
    });
    waiting?.done();
    return release;
  } catch (error) {
    waiting?.fail();
    throw signal?.aborted ? new InterruptedError() : error;
  }
}
