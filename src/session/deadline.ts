// What ends a call from the outside: an AbortSignal or a timeout. Knows no messages.

import { CancelledError, InvalidArgumentError, type MarlinError, TimeoutError } from "../errors.ts";

/** What every asynchronous method takes. */
export interface CallOptions {
  /** Aborting rejects the promise at once with `CancelledError`, whose `cause` is the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds until the promise rejects with `TimeoutError`. Default: none. */
  readonly timeout?: number | undefined;
}

/** Longest delay of a JavaScript timer, in milliseconds; a longer one would fire at once. */
const MAX_TIMEOUT = 2 ** 31 - 1;

/** Throws `InvalidArgumentError` if an option has the wrong type, `CancelledError` if `signal` has aborted already. */
export function checkCallOptions({ signal, timeout }: CallOptions, what: string): void {
  if (timeout !== undefined && !(typeof timeout === "number" && timeout > 0 && timeout <= MAX_TIMEOUT)) {
    throw new InvalidArgumentError(
      `\`timeout\` must be a positive number of milliseconds, at most ${MAX_TIMEOUT}, got ${String(timeout)}.`,
    );
  }
  if (signal === undefined) return;
  if (!(signal instanceof AbortSignal)) {
    throw new InvalidArgumentError(`\`signal\` must be an AbortSignal, got ${typeof signal}.`);
  }
  if (signal.aborted) throw cancelled(signal, what);
}

/**
 * Calls `onEnd` once, when `signal` aborts or `timeout` passes, whichever comes first.
 * Returns what stops the watch.
 */
export function watchDeadline(
  { signal, timeout }: CallOptions,
  what: string,
  onEnd: (error: MarlinError) => void,
): () => void {
  const unlisten = signal === undefined ? undefined : listen(signal, () => end(cancelled(signal, what)));
  const timer =
    timeout === undefined
      ? undefined
      : setTimeout(
          () => end(new TimeoutError(`${what} did not end within its \`timeout\` of ${timeout} ms.`)),
          timeout,
        );
  return stop;

  function end(error: MarlinError): void {
    stop();
    onEnd(error);
  }

  function stop(): void {
    clearTimeout(timer);
    unlisten?.();
  }
}

/** Those who wait for one signal, and the one listener on it. */
interface Watch {
  readonly callbacks: Set<() => void>;
  readonly onAbort: () => void;
}

// One listener for each signal, however many calls share it: Node warns of a leak from the eleventh on.
const watches = new WeakMap<AbortSignal, Watch>();

/** Calls `callback` when `signal` aborts. Returns what takes it away; with the last one goes the listener. */
function listen(signal: AbortSignal, callback: () => void): () => void {
  const { callbacks, onAbort } = watches.get(signal) ?? startWatch(signal);
  callbacks.add(callback);
  return () => {
    if (!callbacks.delete(callback) || callbacks.size > 0) return;
    watches.delete(signal);
    signal.removeEventListener("abort", onAbort);
  };
}

function startWatch(signal: AbortSignal): Watch {
  const callbacks = new Set<() => void>();
  const onAbort = (): void => {
    for (const callback of [...callbacks]) callback();
  };
  const watch = { callbacks, onAbort };
  watches.set(signal, watch);
  signal.addEventListener("abort", onAbort, { once: true });
  return watch;
}

function cancelled(signal: AbortSignal, what: string): CancelledError {
  return new CancelledError(`${what} was cancelled by its \`signal\`.`, { cause: signal.reason });
}
