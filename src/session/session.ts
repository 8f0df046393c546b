// A session with one worker: what every call needs, from its id to its end. Cancelling, credit, limits, releases, and
// the failure of all at once. Knows no socket (Transport) and no process; what a value means to the program is the
// client's matter.

import { decodeMessage, encodeMessage } from "../codec.ts";
import {
  ConnectionClosedError,
  errorFromWire,
  InternalError,
  MarlinError,
  ProtocolError,
  TooManyCallsError,
} from "../errors.ts";
import type {
  BlockRelease,
  CallMessage,
  Message,
  PingMessage,
  ProgressData,
  WelcomeMessage,
  WireMap,
  WireValue,
} from "../protocol.ts";
import type { Transport } from "../transport.ts";
import { atCallSite, captureCallSite } from "./call-site.ts";
import { type CallOptions, checkCallOptions, watchDeadline } from "./deadline.ts";
import { type Answer, type Handlers, PendingCalls } from "./pending.ts";
import { ReleaseQueue } from "./releases.ts";
import { CallStream, STREAM_WINDOW, type StreamSink } from "./stream.ts";

/** What a session needs beside its transport and the worker's welcome. */
export interface SessionOptions {
  /** Called with references to our blocks that the worker gives back. */
  readonly onRelease?: (blocks: readonly BlockRelease[]) => void;
  /**
   * Called when the connection broke, for an owner who can soon say more than `error` does; it has to call `fail` then.
   * Default: the session fails at once.
   */
  readonly onBroken?: ((error: ConnectionClosedError) => void) | undefined;
}

/** What one call of a method needs beside its arguments. */
export interface MethodOptions extends CallOptions {
  /** Called with each progress report; asking for them costs the worker messages. */
  readonly onProgress?: ((progress: ProgressData) => void) | undefined;
  /** Called once, when the message is certain to be sent: takes the references of the blocks that it mentions. */
  readonly onSend?: (() => void) | undefined;
}

/** What a streaming call needs when it starts. */
export interface StreamArguments {
  readonly args: readonly WireValue[];
  readonly kwargs: WireMap;
  /** As in `MethodOptions`. */
  readonly onSend?: (() => void) | undefined;
}

/** What the worker's I/O thread says of its executor. */
export interface Pong {
  /** True while a call is running. */
  readonly isBusy: boolean;
  /** Calls that wait for their turn. */
  readonly queued: number;
}

/** Wraps a handler that settles a call, so that the watch over its signal and timeout ends. */
type Settled = <T>(handler: (value: T) => void) => (value: T) => void;

/**
 * How long a call that was given up is waited for, in milliseconds. A worker ends most of them at once; a foreign call ends
 * when it returns, which may be never, and must not keep a program alive that is done.
 */
const GIVEN_UP_MS = 1000;

/** Calls of one worker, over one transport. */
export class Session {
  /** What the worker said of itself. */
  readonly welcome: WelcomeMessage;
  readonly #transport: Transport;
  readonly #onRelease: (blocks: readonly BlockRelease[]) => void;
  readonly #onBroken: ((error: ConnectionClosedError) => void) | undefined;
  readonly #releases = new ReleaseQueue(() => this.#sendReleases());
  readonly #pending = new PendingCalls(
    (value) => this.#releases.addAllOf(value),
    (id) => this.#abandon(id),
  );
  #isReceiving = false;
  /** True until those who wait for the answers of this turn of the event loop have seen them. */
  #hasAnswered = false;
  #nextId = 1;
  /** Why the session is over; makes an error for each call that asks. */
  #ended: (() => MarlinError) | undefined;
  /** Set while `close` waits for the worker's answer. */
  #onBye: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  /** Takes over `transport` after its handshake. */
  constructor(transport: Transport, welcome: WelcomeMessage, options: SessionOptions = {}) {
    this.#transport = transport;
    this.welcome = welcome;
    this.#onRelease = options.onRelease ?? (() => {});
    this.#onBroken = options.onBroken;
  }

  /** Calls that the worker has not ended, those included that the program gave up. */
  get inFlight(): number {
    return this.#pending.size;
  }

  /** True once the session takes no more calls. */
  get isEnded(): boolean {
    return this.#ended !== undefined;
  }

  /** Calls `method` and resolves with its result. Handles and blocks in the result belong to the caller. */
  call(method: string, args: readonly WireValue[], kwargs: WireMap, options: MethodOptions = {}): Promise<WireValue> {
    const site = captureCallSite();
    const { onProgress } = options;
    return new Promise((resolve, reject) => {
      const fail = (error: MarlinError): void => reject(atCallSite(error, site));
      this.#begin(
        (id) => ({ type: "call", id, method, args, kwargs, credit: 0, progress: onProgress !== undefined }),
        (settled) => ({ onResult: settled(resolve), onError: settled(fail), onProgress }),
        `\`${method}\``,
        options,
      );
    });
  }

  /**
   * Calls a streaming method. The call starts with the first `next()`, which takes the arguments from `describe` and rejects
   * with what that throws; `return()` cancels the call. A `timeout` counts from the start to the end of the whole stream.
   */
  stream(method: string, describe: () => StreamArguments, options: CallOptions = {}): CallStream {
    const site = captureCallSite();
    return new CallStream((sink: StreamSink) => {
      const { args, kwargs, onSend } = describe();
      const { id, stop } = this.#begin(
        (id) => ({ type: "call", id, method, args, kwargs, credit: STREAM_WINDOW, progress: false }),
        (settled) => ({
          onResult: settled((value: WireValue) => sink.end(value)),
          onError: settled((error: MarlinError) => sink.fail(atCallSite(error, site))),
          onItem: (value) => sink.item(value),
        }),
        `\`${method}\``,
        { ...options, onSend },
      );
      return {
        grant: (items) => this.#send({ type: "credit", id, items }),
        wait: (isWaiting) => {
          this.#pending.setWaiting(id, isWaiting);
          this.#receive();
        },
        cancel: () => {
          stop();
          this.#abandon(id);
        },
        discard: (value) => this.#releases.addAllOf(value),
      };
    });
  }

  /** Asks the worker's I/O thread whether it is there; it answers also while Python computes. */
  ping(options: CallOptions = {}): Promise<Pong> {
    const site = captureCallSite();
    return new Promise((resolve, reject) => {
      const fail = (error: MarlinError): void => reject(atCallSite(error, site));
      this.#begin(
        (id) => ({ type: "ping", id }),
        (settled) => ({
          onPong: settled(({ busy, queued }) => resolve({ isBusy: busy !== null, queued })),
          onError: settled(fail),
        }),
        "`ping`",
        options,
      );
    });
  }

  /** Gives a handle back to the worker, with the next message or at the next turn of the event loop. */
  releaseHandle(id: number): void {
    this.#releases.addHandle(id);
  }

  /** Gives one reference to a block of the worker back, with the next message or at the next turn of the event loop. */
  releaseBlock(block: number, generation: number): void {
    this.#releases.addBlock(block, generation);
  }

  /** Gives back all that a value holds which nobody will use. */
  discard(value: WireValue): void {
    this.#releases.addAllOf(value);
  }

  /** Ends the session: everything in flight and all later calls reject with errors that `describe` makes. */
  fail(describe: () => MarlinError): void {
    this.#onBye?.();
    if (this.#ended !== undefined) return;
    this.#ended = describe;
    this.#pending.rejectAll(describe);
    this.#transport.close();
  }

  /**
   * Leaves: what is in flight rejects with `ConnectionClosedError`, the worker is told and given `timeout` milliseconds
   * to answer. Does not throw, and may be called again.
   */
  close(options: { readonly timeout: number }): Promise<void> {
    this.#closing ??= this.#leave(options.timeout);
    return this.#closing;
  }

  async #leave(timeout: number): Promise<void> {
    if (this.#ended !== undefined) return;
    const answered = new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeout);
      this.#onBye = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#send({ type: "bye" });
    this.#ended = () => new ConnectionClosedError("The worker was closed by this program.");
    this.#pending.rejectAll(this.#ended);
    this.#receive();
    await answered;
    this.#onBye = undefined;
    this.#transport.close();
  }

  /**
   * Registers a call under a fresh id and sends it. Throws if it cannot be sent; then nothing is registered.
   * Returns its id and what ends the watch over signal and timeout.
   */
  #begin(
    describe: (id: number) => CallMessage | PingMessage,
    handle: (settled: Settled) => Handlers,
    what: string,
    options: MethodOptions,
  ): { readonly id: number; readonly stop: () => void } {
    checkCallOptions(options, what);
    if (this.#ended !== undefined) throw this.#ended();
    const { limits } = this.welcome;
    if (this.#pending.size >= limits.max_calls) {
      throw new TooManyCallsError(
        `${what} would be one call more than the ${limits.max_calls} that the worker accepts at a time; await some first.`,
      );
    }
    const id = this.#nextId;
    const frames = encodeMessage(describe(id), limits);
    options.onSend?.();
    this.#nextId++;
    let stop = (): void => {};
    const settled: Settled = (handler) => (value) => {
      stop();
      handler(value);
    };
    this.#pending.add(id, what, handle(settled));
    this.#sendReleases();
    this.#sendFrames(frames);
    stop = watchDeadline(options, what, (error) => {
      this.#pending.reject(id, error);
      this.#abandon(id);
    });
    this.#receive();
    return { id, stop };
  }

  /** Tells the worker to stop a call whose promise is settled. Cancelling a ping does nothing there. */
  #abandon(id: number): void {
    if (!this.#pending.giveUp(id)) return;
    this.#send({ type: "cancel", id });
    this.#receive();
    setTimeout(() => this.#stopWaiting(id), GIVEN_UP_MS).unref();
  }

  /** What the call still holds is given back when the program receives its next answer. */
  #stopWaiting(id: number): void {
    this.#pending.setWaiting(id, false);
    // A pending receive cannot be taken back, but the I/O thread's answer ends it.
    if (this.#isReceiving && this.#pending.waiting === 0) this.ping().catch(() => {});
  }

  #send(message: Message): void {
    if (this.#ended !== undefined) return;
    this.#sendReleases();
    this.#sendFrames(encodeMessage(message, this.welcome.limits));
  }

  #sendReleases(): void {
    for (const message of this.#releases.take()) {
      if (this.#ended === undefined) this.#sendFrames(encodeMessage(message, this.welcome.limits));
    }
  }

  #sendFrames(frames: readonly Uint8Array[]): void {
    this.#transport.send(frames).catch((error: unknown) => this.#failWith(error));
  }

  // Receives only while somebody waits: a pending receive keeps the event loop alive, and an idle program should exit.
  #receive(): void {
    if (this.#isReceiving) return;
    this.#isReceiving = true;
    this.#receiveWhileWaiting().catch((error: unknown) => this.#failWith(error));
  }

  async #receiveWhileWaiting(): Promise<void> {
    try {
      while (this.#pending.waiting > 0 || this.#onBye !== undefined) {
        const message = decodeMessage(await this.#transport.receive(), this.welcome.limits);
        // An answer before it may name the same blocks: whoever waits for that one comes first.
        if (this.#hasAnswered && givesBack(message)) await nextTurn();
        this.#dispatch(message);
      }
    } finally {
      this.#isReceiving = false;
    }
  }

  #failWith(error: unknown): void {
    if (error instanceof ConnectionClosedError && this.#onBroken !== undefined && this.#ended === undefined) {
      this.#onBroken(error);
      return;
    }
    this.fail(() => {
      if (MarlinError.isInstance(error)) return copyOf(error);
      return new InternalError(`The session with the worker broke: ${String(error)}.`, { cause: error });
    });
  }

  /** After `close`, answers to calls that were rejected then still arrive; the worker frees all that they hold. */
  #answer(id: number, message: Answer): void {
    if (this.#ended !== undefined) return;
    if (!this.#hasAnswered) {
      this.#hasAnswered = true;
      setImmediate(() => {
        this.#hasAnswered = false;
      });
    }
    this.#pending.dispatch(id, message);
  }

  #dispatch(message: Message): void {
    switch (message.type) {
      case "item":
      case "progress":
      case "pong":
        this.#answer(message.id, message);
        return;
      case "result":
        this.#onRelease(message.blocks);
        this.#answer(message.id, message);
        return;
      case "error":
        this.#onRelease(message.blocks);
        // Nobody can tell which call an error without an id answers, so none may wait for its own any longer.
        if (message.id === null) throw errorFromWire(message.error);
        this.#answer(message.id, message);
        return;
      case "release":
        this.#onRelease(message.blocks);
        return;
      case "bye":
        if (this.#onBye === undefined) throw new ConnectionClosedError("The worker said goodbye.");
        this.#onBye();
        this.#onBye = undefined;
        return;
      default:
        throw new ProtocolError(`The worker sent a \`${message.type}\`, which only a client sends.`);
    }
  }
}

/** An error of the same class and fields, so that each rejected call can have its own stack. */
function copyOf(error: MarlinError): MarlinError {
  const { code, message, pythonType, traceback, details } = error;
  const copy = errorFromWire({ code, message, type: pythonType, traceback, details });
  copy.cause = error;
  return copy;
}

function givesBack(message: Message): boolean {
  return "blocks" in message && message.blocks.length > 0;
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
