// Starts, watches and ends one Python worker process. Knows no message and no socket; the only file that imports
// node:child_process.

import { type ChildProcess, spawn } from "node:child_process";
import path from "node:path";
import process from "node:process";
import { WorkerDiedError, WorkerStartError } from "./errors.ts";
import { type EndpointDirectory, makeEndpointDirectory } from "./worker-process/endpoint-directory.ts";
import { findPython, PACKAGE_ROOT } from "./worker-process/find-python.ts";
import { LineSplitter, Tail } from "./worker-process/log-lines.ts";

export { type FindPythonOptions, findPython } from "./worker-process/find-python.ts";

/** A line that the worker process, or something it runs, printed. */
export interface LogLine {
  readonly stream: "stdout" | "stderr";
  readonly text: string;
}

/** How a worker process ended: by itself with a code, or by a signal; neither if it could not be started. */
export interface WorkerExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/**
 * GNU OpenMP lets threads that wait for each other spin for milliseconds, which is the time slice of whoever wants the
 * core they spin on: beside one busy process on two cores, a token took 10 to 20 times as long as alone. A short spin
 * costs the same as a long one on an idle machine, and sleeping at once (OMP_WAIT_POLICY=passive) a quarter more.
 */
function spinShortly(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const isChosen = env.GOMP_SPINCOUNT !== undefined || env.OMP_WAIT_POLICY !== undefined;
  return isChosen ? {} : { GOMP_SPINCOUNT: "1000" };
}

/** What to start. */
export interface WorkerProcessOptions {
  /** The Python to run; default: see `findPython`. */
  readonly python?: string | undefined;
  /** The shared memory that the worker inherits; default: none. */
  readonly arena?: { readonly fd: number; readonly bytes: number; readonly clientBytes: number } | undefined;
  /** Where the worker listens; default: a socket in a fresh folder of mode 0700. */
  readonly endpoint?: string | undefined;
  /** Threads of torch's operators; default: torch's. */
  readonly threads?: number | undefined;
  /** Variables beside and above those of this process. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /** Gets every line of the worker's stdout and stderr. */
  readonly onLog?: ((line: LogLine) => void) | undefined;
}

const STDERR_CHARACTERS = 64 * 1024;
const DEFAULT_GRACE_MS = 5000;
/** After the process ended, its last words may still be in the pipe; a process of its own may hold the pipe for ever. */
const LAST_WORDS_MS = 100;
/** Descriptor of the arena in the worker: the first after stdin, stdout and stderr. */
const ARENA_FD = 3;
/** Lines of stderr in the message of an error; all that is kept is in its `stderr`. */
const LINES_IN_MESSAGE = 20;

/** A running worker process. */
export class WorkerProcess {
  readonly endpoint: string;
  /** The Python that was started. */
  readonly python: string;
  /** Resolves when the process has ended, or could not be started. */
  readonly exited: Promise<WorkerExit>;
  readonly #child: ChildProcess;
  readonly #directory: EndpointDirectory | undefined;
  readonly #stderr = new Tail(STDERR_CHARACTERS);
  #exit: WorkerExit | undefined;
  #spawnError: Error | undefined;

  /** @internal Made by `startWorkerProcess`. */
  constructor(child: ChildProcess, python: string, endpoint: string, directory: EndpointDirectory | undefined) {
    this.#child = child;
    this.python = python;
    this.endpoint = endpoint;
    this.#directory = directory;
    this.exited = this.#watch();
    // Nothing is ever written to stdin: it is there to end when this process does.
    child.stdin?.on("error", () => undefined);
  }

  /** Process id; undefined if it could not be started. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** How the process ended; undefined while it runs. */
  get exit(): WorkerExit | undefined {
    return this.#exit;
  }

  /** The end of what the process wrote to stderr, at most 64 KiB. */
  get stderr(): string {
    return this.#stderr.toString();
  }

  /** @internal Hands every line to `onLog`. */
  relay(onLog: (line: LogLine) => void): void {
    for (const stream of ["stdout", "stderr"] as const) {
      const lines = new LineSplitter((text) => {
        if (stream === "stderr") this.#stderr.push(`${text}\n`);
        onLog({ stream, text });
      });
      this.#child[stream]?.on("data", (chunk: Buffer) => lines.push(chunk));
      this.#child[stream]?.on("end", () => lines.end());
    }
  }

  /** The client is connected: the socket's folder has served its purpose, and nobody else shall find it. */
  connected(): void {
    this.#directory?.remove();
  }

  /** Lets this process end while the worker runs; the worker then ends too, because its stdin does. */
  unref(): void {
    this.#child.unref();
    for (const stream of this.#child.stdio) {
      if (stream !== null && stream !== undefined && "unref" in stream && typeof stream.unref === "function")
        stream.unref();
    }
  }

  /**
   * Ends the worker: its stdin ends at once, SIGTERM follows at half of `grace`, SIGKILL for it and its children at the
   * end. Resolves when it has ended. May be called twice.
   *
   * @param options.grace - Milliseconds; default 5000.
   */
  async stop(options: { readonly grace?: number } = {}): Promise<WorkerExit> {
    const { grace = DEFAULT_GRACE_MS } = options;
    this.#child.ref(); // who awaits this must not see the process exit before, when only the dying worker is left
    this.#child.stdin?.end();
    const term = setTimeout(() => this.#child.kill("SIGTERM"), grace / 2);
    const kill = setTimeout(() => this.#killGroup(), grace);
    try {
      return await this.exited;
    } finally {
      clearTimeout(term);
      clearTimeout(kill);
    }
  }

  /** The error of a worker that never became ready; `reason` as in "said nothing within 60 s". */
  startError(reason?: string): WorkerStartError {
    const what = this.#spawnError === undefined ? (reason ?? describeExit(this.#exit)) : this.#spawnError.message;
    return new WorkerStartError(this.#message(`The worker (\`${this.python}\`) did not start: ${what}`), {
      ...this.#exitOptions(),
      ...(this.#spawnError === undefined ? {} : { cause: this.#spawnError }),
    });
  }

  /** The error of calls that were in flight when the worker ended. */
  diedError(): WorkerDiedError {
    return new WorkerDiedError(this.#message(`The worker died: ${describeExit(this.#exit)}`), this.#exitOptions());
  }

  #exitOptions(): { readonly exitCode: number | null; readonly signal: string | null; readonly stderr: string } {
    return { exitCode: this.#exit?.code ?? null, signal: this.#exit?.signal ?? null, stderr: this.stderr };
  }

  #message(sentence: string): string {
    const lines = this.stderr.trimEnd().split("\n").slice(-LINES_IN_MESSAGE);
    return lines.join("") === "" ? `${sentence}.` : `${sentence}. It wrote:\n${lines.join("\n")}`;
  }

  async #watch(): Promise<WorkerExit> {
    const exit = await new Promise<WorkerExit>((resolve) => {
      this.#child.once("error", (error) => {
        // Also emitted when a signal cannot be sent; only without a process is it the end.
        if (this.#child.pid !== undefined) return;
        this.#spawnError = error;
        resolve({ code: null, signal: null });
      });
      this.#child.once("exit", (code, signal) => {
        const over = (): void => resolve({ code, signal });
        const timer = setTimeout(over, LAST_WORDS_MS);
        this.#child.once("close", () => {
          clearTimeout(timer);
          over();
        });
      });
    });
    this.#exit = exit;
    this.#directory?.remove();
    return exit;
  }

  #killGroup(): void {
    const { pid } = this.#child;
    if (pid === undefined || this.#exit !== undefined) return;
    try {
      // The worker leads a group of its own, see `detached` below: this reaches what it has started, too.
      process.kill(-pid, "SIGKILL");
    } catch {
      this.#child.kill("SIGKILL");
    }
  }
}

function describeExit(exit: WorkerExit | undefined): string {
  if (exit === undefined) return "it still runs";
  if (exit.signal !== null) return `it was ended by ${exit.signal}`;
  return `it exited with code ${exit.code}`;
}

/**
 * Starts `python -m marlin.worker`. The worker ends by itself when this process does, however that ends.
 *
 * A Python that does not exist shows in `exited`, then in `startError()`.
 *
 * @throws WorkerStartError if no folder for the socket can be made, or the options cannot be passed on.
 */
export function startWorkerProcess(options: WorkerProcessOptions = {}): WorkerProcess {
  const python = findPython({ python: options.python, env: { ...process.env, ...options.env } });
  const directory = options.endpoint === undefined ? makeEndpointDirectory() : undefined;
  const endpoint = options.endpoint ?? directory?.endpoint ?? "";
  try {
    const child = spawn(python, workerArguments(endpoint, options), {
      // A session and process group of its own: a terminal's Ctrl-C reaches this process, which decides for both.
      detached: true,
      env: workerEnvironment(options.env ?? {}),
      stdio: ["pipe", "pipe", "pipe", ...(options.arena === undefined ? [] : [options.arena.fd])],
      windowsHide: true,
    });
    const worker = new WorkerProcess(child, python, endpoint, directory);
    worker.relay(options.onLog ?? (() => undefined));
    return worker;
  } catch (cause) {
    directory?.remove();
    throw new WorkerStartError(`The worker (\`${python}\`) did not start: ${String(cause)}.`, { cause });
  }
}

function workerArguments(endpoint: string, { arena, threads }: WorkerProcessOptions): string[] {
  const args = ["-m", "marlin.worker", "--endpoint", endpoint];
  if (arena !== undefined) {
    args.push("--arena-fd", `${ARENA_FD}`, "--arena-bytes", `${arena.bytes}`);
    args.push("--arena-client-bytes", `${arena.clientBytes}`);
  }
  if (threads !== undefined) args.push("--threads", `${threads}`);
  return args;
}

function workerEnvironment(extra: Readonly<Record<string, string | undefined>>): NodeJS.ProcessEnv {
  const env = { ...process.env, ...extra };
  const paths = [path.join(PACKAGE_ROOT, "python"), env.PYTHONPATH];
  return {
    ...spinShortly(env),
    ...env,
    PYTHONPATH: paths.filter((entry) => entry !== undefined && entry !== "").join(path.delimiter),
    PYTHONUNBUFFERED: "1",
  };
}
