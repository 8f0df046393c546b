// Generated text as it comes: chunks, then a summary. Knows nothing of how it is generated.

import { CancelledError } from "../errors.ts";
import type { ValueStream } from "./value-stream.ts";

/** Why a text ended: at the model's end token, at one of the `stop` strings, or because there was no room for more. */
export type FinishReason = "eos" | "stop" | "length" | "cancelled";

/** A piece of generated text. */
export interface Chunk {
  /** Which prompt it continues. */
  readonly index: number;
  readonly text: string;
  /** Ids of the tokens that it is made of. */
  readonly tokens: readonly number[];
  /** Set on the last chunk of each prompt. */
  readonly finishReason: FinishReason | null;
}

/** What a generation took. */
export interface GenerationSummary {
  /** Of all prompts together. */
  readonly promptTokens: number;
  /** Of all prompts together. */
  readonly newTokens: number;
  readonly secondsPrefill: number;
  readonly secondsDecode: number;
}

/**
 * A generation under way: iterate it for the chunks as they come, or await `texts()` for all of it. It starts with the
 * first of the two; leaving the iteration early cancels it in the worker.
 *
 * @example
 * const generation = model.generate("def main");
 * for await (const chunk of generation) process.stdout.write(chunk.text);
 * const { newTokens, secondsDecode } = await generation.summary;
 */
export class Generation implements AsyncGenerator<Chunk, GenerationSummary | undefined, undefined> {
  /** Counts and times; resolves when the iteration has reached its end, rejects when it was left or failed before. */
  readonly summary: Promise<GenerationSummary>;
  readonly #stream: ValueStream<Chunk, GenerationSummary>;
  readonly #prompts: number;
  #resolve: (summary: GenerationSummary) => void = () => {};
  #reject: (error: unknown) => void = () => {};

  /** @internal Made by `Model.generate`. */
  constructor(stream: ValueStream<Chunk, GenerationSummary>, prompts: number) {
    this.#stream = stream;
    this.#prompts = prompts;
    this.summary = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever iterates hears of a failure there; the summary may be nobody's concern.
    this.summary.catch(() => {});
  }

  /** The whole text of each prompt's continuation. */
  async texts(): Promise<string[]> {
    const texts = new Array<string>(this.#prompts).fill("");
    for await (const { index, text } of this) texts[index] += text;
    return texts;
  }

  async next(): Promise<IteratorResult<Chunk, GenerationSummary | undefined>> {
    try {
      const result = await this.#stream.next();
      if (result.done === true && result.value !== undefined) this.#resolve(result.value);
      return result;
    } catch (error) {
      this.#reject(error);
      throw error;
    }
  }

  async return(
    value?: GenerationSummary | PromiseLike<GenerationSummary | undefined>,
  ): Promise<IteratorResult<Chunk, GenerationSummary | undefined>> {
    this.#reject(new CancelledError("The generation was left before its end, so it has no `summary`."));
    return this.#stream.return(value);
  }

  async throw(error: unknown): Promise<IteratorResult<Chunk, GenerationSummary | undefined>> {
    this.#reject(error);
    return this.#stream.throw(error);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
