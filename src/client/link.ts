// Connects to a worker: over shared memory to one that it starts, over the transport alone to one that runs. The only
// place that names a concrete transport, and that knows both the process and the session.

import { Arena } from "../arena/arena.ts";
import { ConnectError, ConnectionClosedError, ProtocolError, TimeoutError } from "../errors.ts";
import type { WelcomeMessage } from "../protocol.ts";
import { type CallOptions, checkCallOptions, watchDeadline } from "../session/deadline.ts";
import { shakeHands } from "../session/handshake.ts";
import { Session } from "../session/session.ts";
import type { Transport } from "../transport.ts";
import { connectZeromq } from "../transports/zeromq.ts";
import { type LogLine, startWorkerProcess, type WorkerExit, type WorkerProcess } from "../worker-process.ts";
import { Connection } from "./connection.ts";
import { callRules, checkArgument, checkOptions, count, environment, type Rules, text } from "./options.ts";
import { createHandle } from "./proxy.ts";
import { VERSION } from "./version.ts";

/** How a worker is started. */
export interface SpawnOptions extends CallOptions {
  /**
   * The Python that runs the worker. Default: `MARLIN_PYTHON`, the active virtual or conda environment, the package's own
   * `.venv`, `python3`.
   */
  readonly python?: string | undefined;
  /** Threads that torch may use. Default: torch's own choice. */
  readonly threads?: number | undefined;
  /** Size of the shared memory in bytes, a multiple of 4096; half of it is for tensors made here. Default: 256 MiB. */
  readonly arenaBytes?: number | undefined;
  /** Variables of the worker's environment beside and above those of this process; undefined takes one away. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /** Milliseconds until the worker must be ready. Default: 120 000, since importing torch from a cold disk takes long. */
  readonly timeout?: number | undefined;
}

/** How a running worker is reached. */
export interface ConnectOptions extends CallOptions {
  /** Milliseconds until the worker must have answered. Default: 10 000. */
  readonly timeout?: number | undefined;
}

/** Events of a worker process. */
export interface WorkerEvents {
  /** A line that the worker process wrote to its stdout or stderr. */
  log: LogLine;
  /** The worker process ended. */
  exit: WorkerExit;
}

/** Those who listen, by event. */
type Listeners = { readonly [Name in keyof WorkerEvents]: Set<(event: WorkerEvents[Name]) => void> };

const spawnRules: Rules = { ...callRules, python: text, threads: count, arenaBytes: count, env: environment };

const CLIENT = `marlin-torch/${VERSION}`;
const SPAWN_TIMEOUT = 120_000;
const CONNECT_TIMEOUT = 10_000;
/** Milliseconds for a worker that failed to start: it has nothing to finish. */
const FAILED_START_GRACE = 1000;
/** Milliseconds from the end of the connection to the end of the process, which says more about the cause. */
const DEATH_NEWS = 1000;

/** A connected worker, and what ends with it. */
export class Link {
  readonly connection: Connection;
  readonly #listeners: Listeners;
  readonly #process: WorkerProcess | undefined;
  #closing: Promise<void> | undefined;

  constructor(connection: Connection, listeners: Listeners = makeListeners(), process?: WorkerProcess) {
    this.connection = connection;
    this.#listeners = listeners;
    this.#process = process;
  }

  /** Adds a listener and returns what takes it away. A worker that was connected to has no events. */
  on<Name extends keyof WorkerEvents>(event: Name, listener: (event: WorkerEvents[Name]) => void): () => void {
    const listeners: Set<(event: WorkerEvents[Name]) => void> = this.#listeners[event];
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }

  /** Says goodbye and ends a worker of ours within `grace` milliseconds. May be called again. */
  close(grace: number): Promise<void> {
    this.#closing ??= this.#close(grace);
    return this.#closing;
  }

  async #close(grace: number): Promise<void> {
    const start = performance.now();
    await this.connection.session.close({ timeout: grace });
    await this.#process?.stop({ grace: Math.max(0, grace - (performance.now() - start)) });
  }
}

/** Starts a worker process and connects to it; see `Worker.spawn`. Nothing is left behind if it fails. */
export async function spawnLink(options: SpawnOptions): Promise<Link> {
  checkOptions(options, spawnRules, "Worker.spawn");
  checkCallOptions(options, "Starting the worker");
  const { python, threads, arenaBytes, env } = options;
  const arena = await Arena.create({ bytes: arenaBytes });
  const listeners = makeListeners();
  try {
    checkCallOptions(options, "Starting the worker"); // the signal may have aborted meanwhile
    const onLog = (line: LogLine): void => {
      for (const listener of listeners.log) listener(line);
    };
    const process = startWorkerProcess({ python, threads, arena, env, onLog });
    try {
      const { transport, welcome } = await reachProcess(process, options);
      checkArena(welcome, arena);
      return attach(process, transport, welcome, arena, listeners);
    } catch (error) {
      await process.stop({ grace: FAILED_START_GRACE });
      throw error;
    }
  } catch (error) {
    arena.close();
    throw error;
  }
}

/** Connects to a running worker; see `Worker.connect`. */
export async function connectLink(endpoint: string, options: ConnectOptions): Promise<Link> {
  checkArgument(endpoint, text, "endpoint");
  checkOptions(options, callRules, "Worker.connect");
  checkCallOptions(options, "Connecting to the worker");
  const { signal, timeout = CONNECT_TIMEOUT } = options;
  try {
    const { transport, welcome } = await reach(endpoint, { hasArena: false, signal, timeout });
    return new Link(new Connection(new Session(transport, welcome), undefined, createHandle));
  } catch (error) {
    if (!(error instanceof TimeoutError)) throw error;
    throw new ConnectError(`No worker answered at \`${endpoint}\` within ${timeout} ms.`, { cause: error });
  }
}

interface ReachOptions extends CallOptions {
  readonly hasArena: boolean;
  readonly timeout: number;
}

/** The transport to a worker, once it has said welcome; `attempt` can be aborted from outside. */
async function reach(
  endpoint: string,
  { hasArena, signal, timeout }: ReachOptions,
  attempt: AbortController = new AbortController(),
): Promise<{ readonly transport: Transport; readonly welcome: WelcomeMessage }> {
  const stop = watchDeadline({ signal, timeout }, "Connecting to the worker", (error) => attempt.abort(error));
  try {
    const transport = await connectZeromq(endpoint, { connectTimeout: timeout, signal: attempt.signal });
    const welcome = await shakeHands(transport, { client: CLIENT, hasArena, signal: attempt.signal });
    return { transport, welcome };
  } catch (error) {
    throw attempt.signal.aborted ? attempt.signal.reason : error;
  } finally {
    stop();
  }
}

/** The transport to a worker that is starting; says why it did not start. */
async function reachProcess(
  process: WorkerProcess,
  { signal, timeout = SPAWN_TIMEOUT }: SpawnOptions,
): Promise<{ readonly transport: Transport; readonly welcome: WelcomeMessage }> {
  const attempt = new AbortController();
  void process.exited.then(() => attempt.abort(process.startError()));
  try {
    return await reach(process.endpoint, { hasArena: true, signal, timeout }, attempt);
  } catch (error) {
    if (!(error instanceof TimeoutError || error instanceof ConnectError)) throw error;
    throw process.startError(`it was not ready within ${timeout} ms`);
  }
}

function checkArena({ arena }: WelcomeMessage, { bytes, clientBytes }: Arena): void {
  if (arena?.bytes !== bytes || arena.client_bytes !== clientBytes) {
    throw new ProtocolError(
      `The worker must confirm ${bytes} bytes of shared memory, ${clientBytes} of them ours, got ${JSON.stringify(arena)}.`,
    );
  }
}

function attach(
  process: WorkerProcess,
  transport: Transport,
  welcome: WelcomeMessage,
  arena: Arena,
  listeners: Listeners,
): Link {
  const session = new Session(transport, welcome, {
    onRelease: (blocks) => {
      for (const [block, generation, count] of blocks) arena.releaseForeign(block, generation, count);
    },
    // The connection ends with the process, and may be seen to end first.
    onBroken: ({ message }) => {
      const timer = setTimeout(() => {
        session.fail(() => new ConnectionClosedError(message));
        void process.stop();
      }, DEATH_NEWS);
      void process.exited.then(() => clearTimeout(timer));
    },
  });
  process.connected();
  process.unref();
  void process.exited.then((exit) => {
    session.fail(() => process.diedError());
    arena.close();
    for (const listener of listeners.exit) listener(exit);
  });
  return new Link(new Connection(session, arena, createHandle), listeners, process);
}

function makeListeners(): Listeners {
  return { log: new Set(), exit: new Set() };
}
