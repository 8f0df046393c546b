// A transport over a ZeroMQ DEALER socket (ipc:// or tcp://). Knows no message. The only file that imports zeromq.

import { setTimeout as delay } from "node:timers/promises";
import { Context, Dealer, Observer } from "zeromq";
import { CancelledError, ConnectError, ConnectionClosedError, InternalError, InvalidArgumentError } from "../errors.ts";
import { DEFAULT_LIMITS, type Limits } from "../protocol.ts";
import type { Transport } from "../transport.ts";

/** Settings of a connection. */
export interface ZeromqOptions {
  /** `max_frame_bytes` bounds what the socket takes in; the peer is dropped for more. Default: the protocol's. */
  readonly limits?: Limits;
  /** Milliseconds until nobody having answered is a ConnectError. Default: 10 000. */
  readonly connectTimeout?: number;
  /** Ends the attempt with CancelledError. */
  readonly signal?: AbortSignal | undefined;
}

const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;
/** How soon a worker that is not listening yet is tried again. */
const RETRY_MS = 20;
/** How long after the last `receive()` the process may still be kept alive: see `#rest`. */
const REST_MS = 20;
/** `sun_path` has 108 bytes, the last of them a zero. */
const IPC_PATH_BYTES = 107;
const MAX_PORT = 65535;
/**
 * ZeroMQ must not reconnect: a worker that comes back at this endpoint is another one. It cannot be told so (-1 makes it
 * drop what the peer sent last, and so does ZMQ_IMMEDIATE: both close the pipe at a disconnect, read or not); an hour is
 * longer than it takes to close the socket.
 */
const RECONNECT_MS = 3_600_000;

// One context for all sockets of this thread. `blocky: false` and `linger: 0`: a message to a dead peer must not keep
// the process from exiting.
let context: Context | undefined;

/**
 * Connects to the worker that listens at `endpoint`; waits for it to begin listening, up to `connectTimeout`.
 *
 * @throws ConnectError if nobody answered in time, CancelledError if `signal` fired, InvalidArgumentError for an
 *   endpoint that is neither `ipc://path` nor `tcp://host:port`.
 */
export async function connectZeromq(endpoint: string, options: ZeromqOptions = {}): Promise<Transport> {
  checkEndpoint(endpoint);
  const { limits = DEFAULT_LIMITS, connectTimeout = DEFAULT_CONNECT_TIMEOUT_MS, signal } = options;
  const timeout = AbortSignal.timeout(connectTimeout);
  const ended = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
  try {
    for (;;) {
      ended.throwIfAborted();
      const transport = await attempt(endpoint, limits, ended);
      if (transport !== undefined) return transport;
      await delay(RETRY_MS, undefined, { signal: ended });
    }
  } catch (error) {
    if (signal?.aborted === true) {
      throw new CancelledError(`Connecting to \`${endpoint}\` was cancelled.`, { cause: signal.reason });
    }
    if (timeout.aborted) throw new ConnectError(`Nobody answered at \`${endpoint}\` within ${connectTimeout} ms.`);
    throw error;
  }
}

function checkEndpoint(endpoint: string): void {
  const ipcPath = /^ipc:\/\/(.+)$/s.exec(endpoint)?.[1];
  const tcpPort = Number(/^tcp:\/\/.+:(\d+)$/.exec(endpoint)?.[1]);
  if (ipcPath === undefined && !(tcpPort > 0 && tcpPort <= MAX_PORT)) {
    throw new InvalidArgumentError(
      `\`endpoint\` must be \`ipc://path\` or \`tcp://host:port\`, got ${JSON.stringify(endpoint)}.`,
    );
  }
  if (ipcPath !== undefined && Buffer.byteLength(ipcPath) > IPC_PATH_BYTES) {
    throw new InvalidArgumentError(
      `\`endpoint\` must have a path of at most ${IPC_PATH_BYTES} bytes, got ${Buffer.byteLength(ipcPath)}.`,
    );
  }
}

/** One try to connect; undefined if nobody listens. */
async function attempt(endpoint: string, limits: Limits, ended: AbortSignal): Promise<Transport | undefined> {
  context ??= new Context({ blocky: false });
  const socket = new Dealer({
    context,
    linger: 0,
    maxMessageSize: limits.max_frame_bytes,
    reconnectInterval: RECONNECT_MS,
  });
  const observer = new Observer(socket);
  // Ends the handshake, too: the observer is told.
  const giveUp = (): void => socket.close();
  ended.addEventListener("abort", giveUp);
  let isConnected = false;
  try {
    socket.connect(endpoint);
    isConnected = await shakesHands(observer, endpoint);
    return isConnected ? new ZeromqTransport(socket, observer, endpoint) : undefined;
  } finally {
    ended.removeEventListener("abort", giveUp);
    if (!isConnected) {
      socket.close();
      await readToEnd(observer);
    }
  }
}

/**
 * Reads an observer whose socket is closed or has another observer, until it closes itself. One that is closed or
 * collected before it was told its end leaves sockets behind in ZeroMQ, for ever.
 */
async function readToEnd(observer: Observer): Promise<void> {
  let hasEnded = observer.closed;
  while (!hasEnded) hasEnded = (await observer.receive()).type === "end";
}

/** Resolves with true when peer and socket have agreed to talk, with false when there is no peer. */
async function shakesHands(observer: Observer, endpoint: string): Promise<boolean> {
  for (;;) {
    const event = await observer.receive();
    switch (event.type) {
      case "handshake":
        return true;
      case "close":
      case "connect:retry":
      case "disconnect":
      case "end":
        return false;
      case "handshake:error:auth":
      case "handshake:error:protocol":
      case "handshake:error:other":
        throw new ConnectError(`\`${endpoint}\` answered, but not as a worker: ${event.error.message}.`, {
          cause: event.error,
        });
      default:
    }
  }
}

interface Outgoing {
  readonly frames: readonly Uint8Array[];
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

class ZeromqTransport implements Transport {
  readonly #socket: Dealer;
  readonly #endpoint: string;
  #observer: Observer;
  #isWatching = false;
  #isReceiving = false;
  #isSending = false;
  #received = 0;
  readonly #outgoing: Outgoing[] = [];
  /** The peer went away; what it sent before may still wait to be received. */
  #gone: ConnectionClosedError | undefined;
  /** Closed, for this reason. */
  #failure: ConnectionClosedError | undefined;
  readonly #restTimer: NodeJS.Timeout;

  constructor(socket: Dealer, observer: Observer, endpoint: string) {
    this.#socket = socket;
    this.#observer = observer;
    this.#endpoint = endpoint;
    this.#restTimer = setTimeout(() => this.#rest(), REST_MS).unref();
  }

  get closed(): boolean {
    return this.#failure !== undefined;
  }

  send(frames: readonly Uint8Array[]): Promise<void> {
    const ended = this.#failure ?? this.#gone;
    if (ended !== undefined) return Promise.reject(ended);
    return new Promise((resolve, reject) => {
      this.#outgoing.push({ frames, resolve, reject });
      if (!this.#isSending) void this.#sendAll();
    });
  }

  /** A ZeroMQ socket takes one send at a time; this loop is the queue in front of it. */
  async #sendAll(): Promise<void> {
    this.#isSending = true;
    for (let next = this.#outgoing.shift(); next !== undefined; next = this.#outgoing.shift()) {
      try {
        await this.#socket.send([...next.frames]);
        next.resolve();
      } catch (error) {
        next.reject(this.#failed(error));
      }
    }
    this.#isSending = false;
  }

  async receive(): Promise<Uint8Array[]> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#isReceiving) throw new InternalError("One `receive()` may be pending, got a second.");
    this.#isReceiving = true;
    if (!this.#isWatching && this.#gone === undefined) void this.#watch(this.#observer);
    try {
      const frames = await this.#socket.receive();
      this.#received++;
      return frames;
    } catch (error) {
      if (this.#gone !== undefined) this.#fail(this.#gone);
      throw this.#failed(error);
    } finally {
      this.#isReceiving = false;
      this.#restTimer.refresh();
    }
  }

  /** A pending receive does not notice that the peer died (ZeroMQ hides it); its observer does. */
  async #watch(observer: Observer): Promise<void> {
    this.#isWatching = true;
    for (;;) {
      const event = await observer.receive();
      if (event.type === "end") return;
      if (event.type === "disconnect") void this.#lose();
    }
  }

  /** Fails what waits for a peer that is gone, but lets what it said last be received first. */
  async #lose(): Promise<void> {
    if (this.#failure !== undefined) return;
    const reason = new ConnectionClosedError(`The peer at \`${this.#endpoint}\` went away.`);
    this.#gone = reason;
    this.#rejectOutgoing(reason);
    this.#socket.receiveTimeout = 0;
    const received = this.#received;
    // The last messages were in the socket before the event was in the observer, but the socket's turn in the event
    // loop may come after the observer's.
    await nextTurn();
    await nextTurn();
    if (this.#isReceiving && this.#received === received) this.#fail(reason);
  }

  /**
   * Lets the process exit. A pending `observer.receive()` keeps it alive and cannot be taken back, but a new observer
   * takes the old one's place without a gap, and holds nothing until it is read. Making one costs more than a call
   * does, hence the wait: a caller who awaits call after call never gets here.
   */
  #rest(): void {
    if (this.#isReceiving || !this.#isWatching || this.closed) return;
    try {
      this.#observer = new Observer(this.#socket);
      this.#isWatching = false;
    } catch (cause) {
      this.#fail(new ConnectionClosedError(`The connection to \`${this.#endpoint}\` cannot be observed.`, { cause }));
    }
  }

  close(): void {
    this.#fail(new ConnectionClosedError("The connection was closed."));
  }

  #fail(error: ConnectionClosedError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    clearTimeout(this.#restTimer);
    this.#rejectOutgoing(error);
    this.#socket.close();
    if (!this.#isWatching) void readToEnd(this.#observer);
  }

  #rejectOutgoing(error: ConnectionClosedError): void {
    for (const outgoing of this.#outgoing.splice(0)) outgoing.reject(error);
  }

  /** A socket fails pending work when it is closed: the reason for closing says more than its error. */
  #failed(error: unknown): Error {
    return this.#failure ?? new InternalError("The ZeroMQ socket failed.", { cause: error });
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
