// Generation as commands need it: the text to the user as it comes, and how fast it came.

import type { Model } from "../client/model.ts";
import type { Context } from "./context.ts";

/** Options of every command that generates. */
export interface GenerateFlags {
  readonly maxNewTokens: number;
  /** 0: always the likeliest token. */
  readonly temperature: number;
  readonly topP: number;
  readonly seed: number;
  readonly stop?: readonly string[];
}

/** What was generated, and how fast. */
export interface Generated {
  readonly text: string;
  readonly promptTokens: number;
  readonly newTokens: number;
  readonly finishReason: string;
  /** Of decoding alone: the prompt's own time is not in it. 0 if nothing was decoded. */
  readonly tokensPerSecond: number;
}

/** Generates; each piece of text goes to `onText` when it is there. */
export async function generate(
  { signal }: Pick<Context, "signal">,
  model: Model,
  prompt: string,
  { maxNewTokens, temperature, topP, seed, stop }: GenerateFlags,
  onText: (text: string) => void = () => {},
): Promise<Generated> {
  const stream = model.generate(prompt, { maxNewTokens, temperature, topP, seed, stop, signal });
  let text = "";
  let finishReason = "";
  for await (const chunk of stream) {
    text += chunk.text;
    finishReason = chunk.finishReason ?? finishReason;
    onText(chunk.text);
  }
  const { promptTokens, newTokens, secondsDecode } = await stream.summary;
  // The first new token comes out of the prompt's pass.
  const decoded = newTokens - 1;
  const tokensPerSecond = decoded > 0 && secondsDecode > 0 ? decoded / secondsDecode : 0;
  return { text, promptTokens, newTokens, finishReason, tokensPerSecond };
}
