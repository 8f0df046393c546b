// Ctrl-C: the first ends generation and the worker cleanly, the second ends this process at once.
// A worker whose client is gone ends by itself: its standard input closes.

import process from "node:process";
import { ExitCode } from "./exit.ts";

/** npm passes on to its child the signal that the terminal already sent: two within this time are one key press. */
const SAME_PRESS_MS = 300;

/** Listens for signals until disposed. */
export interface Interrupt extends Disposable {
  /** Fires at the first signal. */
  readonly signal: AbortSignal;
  /** The exit code that says which signal came; undefined if none did. */
  readonly exitCode: number | undefined;
}

/** Begins to listen for SIGINT and SIGTERM. `onFirst` tells the user what happens. */
export function listenForInterrupt(onFirst: () => void): Interrupt {
  const controller = new AbortController();
  let exitCode: number | undefined;
  let pressedAt = 0;
  const press = (code: number): void => {
    const now = performance.now();
    if (exitCode === undefined) {
      exitCode = code;
      pressedAt = now;
      onFirst();
      controller.abort(new Error("The user interrupted the command."));
    } else if (now - pressedAt > SAME_PRESS_MS) {
      process.exit(code);
    }
  };
  const onInterrupt = (): void => press(ExitCode.interrupted);
  const onTerminate = (): void => press(ExitCode.terminated);
  process.on("SIGINT", onInterrupt);
  process.on("SIGTERM", onTerminate);
  return {
    signal: controller.signal,
    get exitCode() {
      return exitCode;
    },
    [Symbol.dispose]: () => {
      process.off("SIGINT", onInterrupt);
      process.off("SIGTERM", onTerminate);
    },
  };
}
