// A streaming call as an async generator: buffers items within the credit it grants, and hands them out one by one.
// Knows no messages: what starts, feeds and cancels the call is behind `StreamCall`.

import { type MarlinError, ProtocolError } from "../errors.ts";
import type { WireValue } from "../protocol.ts";

/** Items that may lie unread at the client. Enough to hide a round trip, small enough that a slow reader stops the worker. */
export const STREAM_WINDOW = 16;
/** Consumed items after which their credit is given again: half, so that the worker never runs dry in between. */
const REPLENISH = STREAM_WINDOW / 2;

/** The call under a stream. */
export interface StreamCall {
  /** Grants that many more items. */
  grant(items: number): void;
  /** Says whether somebody waits for the next item; if nobody does, the event loop is not kept alive. */
  wait(isWaiting: boolean): void;
  /** Tells the worker to stop; the sink hears nothing more. */
  cancel(): void;
  /** Gives back what an unread value holds. */
  discard(value: WireValue): void;
}

/** What the call tells the stream. */
export interface StreamSink {
  item(value: WireValue): void;
  end(value: WireValue): void;
  fail(error: MarlinError): void;
}

interface Waiter {
  resolve(result: IteratorResult<WireValue, WireValue | undefined>): void;
  reject(error: unknown): void;
}

/** The values of a stream; the call starts at the first `next()`, and `return()` cancels it at once. */
export class CallStream implements AsyncGenerator<WireValue, WireValue | undefined, undefined> {
  readonly #start: (sink: StreamSink) => StreamCall;
  readonly #unread: WireValue[] = [];
  readonly #waiters: Waiter[] = [];
  #state: "new" | "open" | "ended" = "new";
  #call: StreamCall | undefined;
  #outcome: { readonly value: WireValue } | { readonly error: MarlinError } | undefined;
  #consumed = 0;

  /** `start` sends the call with a credit of `STREAM_WINDOW`; what it throws rejects the first `next()`. */
  constructor(start: (sink: StreamSink) => StreamCall) {
    this.#start = start;
  }

  async next(): Promise<IteratorResult<WireValue, WireValue | undefined>> {
    if (this.#state === "new") this.#open();
    const value = this.#unread.shift();
    if (value !== undefined) {
      this.#consume();
      return { done: false, value };
    }
    if (this.#outcome !== undefined) return this.#takeOutcome(this.#outcome);
    if (this.#state === "ended") return { done: true, value: undefined };
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#call?.wait(true);
    });
  }

  async return(
    value?: WireValue | PromiseLike<WireValue | undefined>,
  ): Promise<IteratorResult<WireValue, WireValue | undefined>> {
    this.#leave();
    return { done: true, value: await value };
  }

  async throw(error: unknown): Promise<IteratorResult<WireValue, WireValue | undefined>> {
    this.#leave();
    throw error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#leave();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #open(): void {
    this.#state = "ended"; // stays so if `start` throws
    this.#call = this.#start({
      item: (value) => this.#receive(value),
      end: (value) => this.#end({ value }),
      fail: (error) => this.#fail(error),
    });
    this.#state = "open";
  }

  #receive(value: WireValue): void {
    if (this.#unread.length >= STREAM_WINDOW)
      throw new ProtocolError("The worker sent more items than it had credit for.");
    const waiter = this.#waiters.shift();
    if (waiter === undefined) {
      this.#unread.push(value);
      return;
    }
    this.#consume();
    if (this.#waiters.length === 0) this.#call?.wait(false);
    waiter.resolve({ done: false, value });
  }

  #end(outcome: { readonly value: WireValue } | { readonly error: MarlinError }): void {
    this.#state = "ended";
    this.#outcome = outcome;
    const first = this.#waiters.shift();
    if (first !== undefined) this.#takeOutcome(outcome).then(first.resolve, first.reject);
    this.#dismissWaiters();
  }

  // An error ends the stream at its place: items that came before it are still handed out. Items that are unread when
  // the program itself cancels have lost their reader, and it wants to hear of the end at once.
  #fail(error: MarlinError): void {
    if (error.code === "cancelled" || error.code === "timeout") this.#discardUnread();
    this.#end({ error });
  }

  async #takeOutcome(
    outcome: { readonly value: WireValue } | { readonly error: MarlinError },
  ): Promise<IteratorResult<WireValue, WireValue | undefined>> {
    this.#outcome = undefined;
    if ("error" in outcome) throw outcome.error;
    return { done: true, value: outcome.value };
  }

  #consume(): void {
    this.#consumed++;
    if (this.#consumed < REPLENISH || this.#state !== "open") return;
    this.#call?.grant(this.#consumed);
    this.#consumed = 0;
  }

  #leave(): void {
    if (this.#state === "open") this.#call?.cancel();
    this.#state = "ended";
    if (this.#outcome !== undefined && "value" in this.#outcome) this.#call?.discard(this.#outcome.value);
    this.#outcome = undefined;
    this.#discardUnread();
    this.#dismissWaiters();
  }

  #discardUnread(): void {
    for (const value of this.#unread.splice(0)) this.#call?.discard(value);
  }

  #dismissWaiters(): void {
    for (const waiter of this.#waiters.splice(0)) waiter.resolve({ done: true, value: undefined });
  }
}
