// `marlin doctor`: checks everything that running needs, one line each, and says what to do about what is missing.

import { Worker } from "../../client/worker.ts";
import { findPython, PACKAGE_ROOT } from "../../worker-process/find-python.ts";
import { captureProgram } from "../child.ts";
import type { Context, WorkerFlags } from "../context.ts";
import { type Finding, fail, ok, skip } from "../doctor/check.ts";
import { checkDisk, checkNativeModule, checkNode, checkSharedMemory } from "../doctor/machine-checks.ts";
import { checkPython } from "../doctor/python-checks.ts";
import { ExitCode } from "../exit.ts";
import { formatSeconds } from "../format.ts";

const MARKS: Readonly<Record<Finding["status"], string>> = { ok: "ok  ", warn: "warn", fail: "FAIL", skip: "skip" };
const NAME_WIDTH = 16;

/** One document: all findings. Fails if one of them does. */
export async function doctor(context: Context, flags: WorkerFlags): Promise<number> {
  const { output, signal } = context;
  const python = findPython({ python: flags.python });
  const findings = await output.during("Checking", async () => {
    const parts = [
      checkNode(),
      await checkNativeModule("zeromq", () => import("zeromq")),
      await checkNativeModule("koffi", () => import("koffi")),
      checkSharedMemory(),
      await checkDisk(PACKAGE_ROOT),
      ...(await checkPython(python, (command, args) => captureProgram(command, args, signal))),
    ];
    const worker = await checkWorker(context, flags, parts);
    // What was cut short looks like what is broken.
    signal.throwIfAborted();
    return [...parts, worker];
  });
  for (const { name, status, found, advice } of findings) {
    output.line(`${MARKS[status]}  ${name.padEnd(NAME_WIDTH)}${found}`);
    if (advice !== undefined) output.line(`      ${" ".repeat(NAME_WIDTH)}-> ${advice}`);
  }
  const failed = findings.filter(({ status }) => status === "fail").length;
  output.line(failed === 0 ? "\nEverything that running needs is there." : `\n${failed} to repair.`);
  output.json({ ok: failed === 0, findings });
  return failed === 0 ? ExitCode.ok : ExitCode.failed;
}

/** The whole way once: a worker starts, shares memory, and answers. Pointless while a part of it is known to be broken. */
async function checkWorker({ signal }: Context, flags: WorkerFlags, parts: readonly Finding[]): Promise<Finding> {
  if (parts.some(({ status }) => status === "fail")) return skip("worker", "all of the above");
  const began = performance.now();
  try {
    await using worker = await Worker.spawn({ python: flags.python, threads: flags.threads, signal });
    await worker.ping({ signal });
    return ok("worker", `started and answered in ${formatSeconds((performance.now() - began) / 1000)}`);
  } catch (error) {
    return fail(
      "worker",
      error instanceof Error ? error.message : String(error),
      "see the message; docs/errors.md has its code",
    );
  }
}
