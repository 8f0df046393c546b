// A stream of the session with its wire values turned into the program's. Knows nothing of what they mean.

import type { WireValue } from "../protocol.ts";
import type { CallStream } from "../session/stream.ts";

/** Items `T`, then a result `R`; `return()` ends the stream below at once. */
export class ValueStream<T, R> implements AsyncGenerator<T, R | undefined, undefined> {
  readonly #source: CallStream;
  readonly #toItem: (value: WireValue) => T;
  readonly #toResult: (value: WireValue) => R;

  constructor(source: CallStream, toItem: (value: WireValue) => T, toResult: (value: WireValue) => R) {
    this.#source = source;
    this.#toItem = toItem;
    this.#toResult = toResult;
  }

  async next(): Promise<IteratorResult<T, R | undefined>> {
    const { done, value } = await this.#source.next();
    if (value === undefined) return { done: true, value: undefined };
    try {
      return done === true ? { done, value: this.#toResult(value) } : { done: false, value: this.#toItem(value) };
    } catch (error) {
      await this.#source.return(); // `for await` does not end what has thrown
      throw error;
    }
  }

  async return(value?: R | PromiseLike<R | undefined>): Promise<IteratorResult<T, R | undefined>> {
    await this.#source.return();
    return { done: true, value: await value };
  }

  async throw(error: unknown): Promise<IteratorResult<T, R | undefined>> {
    await this.#source.return();
    throw error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#source.return();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
