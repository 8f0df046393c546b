// The calls that the worker has not ended yet, and what each does with the messages of its id.
// Knows no transport: the session feeds it messages.

import { errorFromWire, InternalError, type MarlinError, ProtocolError } from "../errors.ts";
import type {
  ErrorMessage,
  ItemMessage,
  PongMessage,
  ProgressData,
  ProgressMessage,
  ResultMessage,
  WireValue,
} from "../protocol.ts";

/** What a call does with its messages; the ones left out are a fault of the worker. */
export interface Handlers {
  onError(error: MarlinError): void;
  onResult?(value: WireValue): void;
  onItem?(value: WireValue): void;
  onPong?(pong: PongMessage): void;
  onProgress?: ((progress: ProgressData) => void) | undefined;
}

interface Entry {
  readonly what: string;
  readonly handlers: Handlers;
  /** Whether somebody waits for a message to this call. */
  isWaiting: boolean;
  /** True once its promise is settled: what still comes is discarded. */
  isAbandoned: boolean;
  /** Sequence number of the next item. */
  nextItem: number;
}

/** The messages that answer a call. */
export type Answer = ResultMessage | ErrorMessage | ItemMessage | ProgressMessage | PongMessage;

/** Calls by id. */
export class PendingCalls {
  readonly #entries = new Map<number, Entry>();
  readonly #discard: (value: WireValue) => void;
  readonly #abandon: (id: number) => void;
  #waiting = 0;

  /** `discard` takes the values that nobody reads; `abandon` is asked to stop a call whose own callback threw. */
  constructor(discard: (value: WireValue) => void, abandon: (id: number) => void) {
    this.#discard = discard;
    this.#abandon = abandon;
  }

  /** All calls, those included that the program gave up and the worker has not ended. */
  get size(): number {
    return this.#entries.size;
  }

  /** Calls that somebody waits for. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Adds a call that somebody waits for; `what` names it in errors. */
  add(id: number, what: string, handlers: Handlers): void {
    this.#entries.set(id, { what, handlers, isWaiting: true, isAbandoned: false, nextItem: 0 });
    this.#waiting++;
  }

  setWaiting(id: number, isWaiting: boolean): void {
    const entry = this.#entries.get(id);
    if (entry === undefined || entry.isWaiting === isWaiting) return;
    entry.isWaiting = isWaiting;
    this.#waiting += isWaiting ? 1 : -1;
  }

  /** Settles a call with `error` at once; its entry stays until the worker ends it. */
  reject(id: number, error: MarlinError): void {
    this.#entries.get(id)?.handlers.onError(error);
  }

  /**
   * Marks a call as given up and returns true, or false if it had ended or was given up before.
   * It counts as waited for until the worker ends it, or `setWaiting` says else: what its last messages hold must be
   * given back.
   */
  giveUp(id: number): boolean {
    const entry = this.#entries.get(id);
    if (entry === undefined || entry.isAbandoned) return false;
    entry.isAbandoned = true;
    this.setWaiting(id, true);
    return true;
  }

  /** Settles all calls at once, each with an error of its own, and forgets them. */
  rejectAll(describe: () => MarlinError): void {
    const entries = [...this.#entries.values()];
    this.#entries.clear();
    this.#waiting = 0;
    for (const { isAbandoned, handlers } of entries) if (!isAbandoned) handlers.onError(describe());
  }

  /** Hands `message` to the call `id`. */
  dispatch(id: number, message: Answer): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) {
      throw new ProtocolError(`The worker sent a \`${message.type}\` for call ${id}, which is not in flight.`);
    }
    if (message.type === "item") this.#deliverItem(entry, message);
    else if (message.type === "progress") this.#deliverProgress(entry, message);
    else this.#finish(entry, id, message);
  }

  #finish(entry: Entry, id: number, message: ResultMessage | ErrorMessage | PongMessage): void {
    if (entry.isAbandoned) {
      if (message.type === "result") this.#discard(message.value);
    } else if (message.type === "error") entry.handlers.onError(errorFromWire(message.error));
    else if (message.type === "pong") expected(entry.handlers.onPong, message)(message);
    else expected(entry.handlers.onResult, message)(message.value);
    this.setWaiting(id, false);
    this.#entries.delete(id);
  }

  #deliverItem(entry: Entry, message: ItemMessage): void {
    if (entry.isAbandoned) {
      this.#discard(message.value);
      return;
    }
    const onItem = expected(entry.handlers.onItem, message);
    if (message.seq !== entry.nextItem) {
      throw new ProtocolError(`The worker sent item ${message.seq} of ${entry.what}, expected item ${entry.nextItem}.`);
    }
    entry.nextItem++;
    onItem(message.value);
  }

  #deliverProgress(entry: Entry, message: ProgressMessage): void {
    if (entry.isAbandoned) return;
    try {
      entry.handlers.onProgress?.(message.data);
    } catch (error) {
      // The callback is the program's: its mistake ends its own call, not the session.
      entry.handlers.onError(new InternalError(`\`onProgress\` of ${entry.what} threw.`, { cause: error }));
      this.#abandon(message.id);
    }
  }
}

function expected<T>(handler: T | undefined, message: Answer): T {
  if (handler !== undefined) return handler;
  throw new ProtocolError(`The worker sent a \`${message.type}\` for call ${message.id}, which does not end that way.`);
}
