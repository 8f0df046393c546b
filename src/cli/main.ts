#!/usr/bin/env node
// The program `marlin`: connects the command line to this process, its streams and its signals.

import process from "node:process";
import { ExitCode } from "./exit.ts";
import { listenForInterrupt } from "./interrupt.ts";
import { runProgram } from "./program.ts";

const interrupt = listenForInterrupt(() => {
  process.stderr.write("\nStopping; Ctrl-C again ends it at once.\n");
});

// `marlin ... | head`: the reader has seen enough, which is no failure. The worker ends with this process.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(ExitCode.ok);
    throw error;
  });
}

const code = await runProgram(process.argv.slice(2), process, interrupt.signal);
process.exitCode = interrupt.exitCode ?? code;
interrupt[Symbol.dispose]();
