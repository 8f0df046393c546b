// A language model in the worker: generate, measure, quantize, save. Option names become the wire's in naming.ts.

import { InvalidArgumentError, ProtocolError } from "../errors.ts";
import { type ProgressData, WireHandle, WireTensor, type WireValue } from "../protocol.ts";
import type { CallOptions } from "../session/deadline.ts";
import type { Connection } from "./connection.ts";
import { declared } from "./declared.ts";
import { type Chunk, Generation, type GenerationSummary } from "./generation.ts";
import type { HandleLease } from "./handle-lease.ts";
import { showAs } from "./inspect.ts";
import { fromFields, toKwargs } from "./naming.ts";
import {
  callback,
  callRules,
  checkArgument,
  checkOptions,
  count,
  describe,
  flag,
  integer,
  text as nonEmptyText,
  nonNegative,
  type Rules,
  texts,
} from "./options.ts";
import { bindPlace } from "./reference.ts";

/** How far a long call has come, in the units of its phase; `total` 0 means unknown. */
export type Progress = ProgressData;

/** What every long call of a model takes. */
export interface LongCallOptions extends CallOptions {
  /** Called with each report of progress. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** A number format that layers multiply their inputs in. */
export type Activation = "auto" | "int16" | "bfloat16" | "int8";

export const ACTIVATIONS: readonly Activation[] = ["auto", "int16", "bfloat16", "int8"];

/** How the weights of Linear layers become codes of 4 or 8 bits. */
export interface QuantizeOptions {
  /** `rtn` rounds to nearest, with a search for the best scale. Default: `rtn`. */
  readonly method?: string | undefined;
  /** Bits of a code: 4, or 8, which are always symmetric. Default: 4. */
  readonly bits?: number | undefined;
  /** Input features that share a scale: 32, 64, 128, or -1 for all of a row. Default: 128. */
  readonly groupSize?: number | undefined;
  /** Codes around a fixed zero point; false gives each group a zero point of its own. Default: true. */
  readonly symmetric?: boolean | undefined;
  /**
   * The number format that layers multiply their inputs in. `auto` keeps their precision, `int16` is off by less than
   * 1e-4, `bfloat16` by about 2e-3 (4 bits only), `int8` by about 1e-2. Not saved with the model. Default: `auto`.
   */
  readonly activation?: Activation | undefined;
  /**
   * Glob patterns of layers to quantize; one matches neighbouring parts of a dotted name: `layers.0`, `*_proj`.
   * Default: every Linear.
   */
  readonly include?: readonly string[] | undefined;
  /** Glob patterns of layers to leave as they are; they win over `include`. Default: `lm_head`. */
  readonly exclude?: readonly string[] | undefined;
}

/** How a model is loaded. */
export interface LoadOptions extends LongCallOptions {
  /** Weights' dtype: `float32`, `float16` or `bfloat16`. Default: that of the checkpoint. */
  readonly dtype?: "float32" | "float16" | "bfloat16" | undefined;
  /** For example `cpu` or `cuda:0`. Default: `cpu`. */
  readonly device?: string | undefined;
  /** Quantize the layers while they are loaded. */
  readonly quantize?: QuantizeOptions | undefined;
  /** Branch, tag or commit of a hub id. */
  readonly revision?: string | undefined;
}

/** How text is generated. */
export interface GenerateOptions extends CallOptions {
  /** Most tokens to add to each prompt. Default: 128. */
  readonly maxNewTokens?: number | undefined;
  /** 0 takes the likeliest token each time; higher is more varied. Default: 0. */
  readonly temperature?: number | undefined;
  /** Sample from the likeliest tokens that together have this probability, in (0, 1]. Default: 1. */
  readonly topP?: number | undefined;
  /** Makes sampling repeatable; from 0 up. Default: drawn by the worker. */
  readonly seed?: number | bigint | undefined;
  /** A text ends before the first of these strings. Default: none. */
  readonly stop?: readonly string[] | undefined;
}

/** How perplexity is measured. */
export interface PerplexityOptions extends LongCallOptions {
  /** Tokens that the model sees at a time. Default: the model's own context length. */
  readonly contextLength?: number | undefined;
  /** Tokens between the starts of two windows. Default: `contextLength`. */
  readonly stride?: number | undefined;
  /** Measure only this many tokens from the start of the text. */
  readonly maxTokens?: number | undefined;
}

/** How a model is saved. */
export interface SaveOptions extends LongCallOptions {
  /** Write into a folder that holds a checkpoint already. Default: false. */
  readonly overwrite?: boolean | undefined;
}

/** The quantized layers of a model. */
export interface QuantizationInfo {
  /** null where layers differ. */
  readonly bits: number | null;
  /** null where layers differ. */
  readonly groupSize: number | null;
  /** null where layers differ. */
  readonly symmetric: boolean | null;
  /** How many there are. */
  readonly layers: number;
}

/** What is known of a model. */
export interface ModelInfo {
  /** Folder or hub id that it was loaded from. */
  readonly path: string;
  /** Class of transformers, for example `LlamaForCausalLM`. */
  readonly architecture: string;
  readonly dtype: string;
  readonly device: string;
  readonly parameters: number;
  /** Bytes of all weights as they are now. */
  readonly weightBytes: number;
  /** Bytes that all weights would take in `dtype`. */
  readonly floatWeightBytes: number;
  /** The format of its quantized layers; null if there are none. */
  readonly quantization: QuantizationInfo | null;
  /** Which kernel runs the quantized layers, and why; null if there are none. */
  readonly kernel: { readonly kernel: string; readonly reason: string } | null;
  /** Most tokens that it can see; null if its configuration does not say. */
  readonly contextLength: number | null;
  readonly vocabSize: number;
}

/** A layer that was quantized. */
export interface QuantizedLayer {
  readonly name: string;
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  /** |W - W'| / |W| in the Frobenius norm. */
  readonly relativeError: number;
}

/** What `quantize` did. */
export interface QuantizeReport {
  readonly method: string;
  readonly bits: number;
  readonly groupSize: number;
  readonly symmetric: boolean;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  /** Weights that are in `bits` now. */
  readonly parameters: number;
  readonly meanRelativeError: number;
  readonly layers: readonly QuantizedLayer[];
  /** Linear layers that were left as they are, and why. */
  readonly skipped: readonly { readonly name: string; readonly reason: string }[];
}

/** How well a model predicts a text. */
export interface PerplexityReport {
  /** exp(nll). */
  readonly perplexity: number;
  /** Mean negative log-likelihood of a token, in nats. */
  readonly nll: number;
  readonly tokens: number;
  readonly seconds: number;
}

const longCallRules: Rules = { ...callRules, onProgress: callback };

const quantizeRules: Rules = {
  method: nonEmptyText,
  bits: count,
  groupSize: integer,
  symmetric: flag,
  activation: {
    expected: `one of ${ACTIVATIONS.join(", ")}`,
    accepts: (value) => ACTIVATIONS.some((name) => name === value),
  },
  include: texts,
  exclude: texts,
};

const loadRules: Rules = {
  ...longCallRules,
  dtype: {
    expected: "float32, float16 or bfloat16",
    accepts: (value) => ["float32", "float16", "bfloat16"].some((name) => name === value),
  },
  device: nonEmptyText,
  quantize: {
    expected: "an object of quantization options",
    accepts: (value) => typeof value === "object" && value !== null,
  },
  revision: nonEmptyText,
};

const generateRules: Rules = {
  ...callRules,
  maxNewTokens: count,
  temperature: nonNegative,
  topP: nonNegative,
  seed: integer,
  stop: texts,
};

const perplexityRules: Rules = { ...longCallRules, contextLength: count, stride: count, maxTokens: count };

const saveRules: Rules = { ...longCallRules, overwrite: flag };

/** Longer texts travel as a tensor of their UTF-8 bytes: the control frame is for short values. */
const MAX_INLINE_TEXT = 64 * 1024;

/**
 * A language model that lives in the worker. Free it with `dispose` or `await using`; a scope and, in the end, garbage
 * collection do so too.
 *
 * @example
 * await using model = await worker.load("path/or/hub-id", { quantize: { groupSize: 128 } });
 * for await (const chunk of model.generate("def main", { maxNewTokens: 64 })) process.stdout.write(chunk.text);
 */
export class Model {
  readonly #connection: Connection;
  readonly #lease: HandleLease;
  #info: ModelInfo;

  /** @internal Made by `Worker.load`. */
  constructor(connection: Connection, handle: WireHandle) {
    this.#connection = connection;
    this.#lease = connection.lease(handle);
    this.#info = declared<ModelInfo>(fromFields(handle.meta));
    bindPlace(this, { worker: connection, root: this.#lease, path: [] });
  }

  /** What is known of the model, as of its loading or its last `quantize`. */
  get info(): ModelInfo {
    return this.#info;
  }

  /**
   * Continues one prompt or several. Nothing runs before the first chunk is asked for.
   *
   * @throws InvalidArgumentError at once for options of the wrong type; at the first chunk, for what the worker refuses.
   */
  generate(prompts: string | readonly string[], options: GenerateOptions = {}): Generation {
    checkOptions(options, generateRules, "model.generate");
    const all = typeof prompts === "string" ? [prompts] : prompts;
    if (!texts.accepts(all)) {
      throw new InvalidArgumentError(`\`prompts\` must be a string or an array of strings, got ${describe(prompts)}.`);
    }
    const { signal, timeout, ...rest } = options;
    const kwargs = toKwargs(rest);
    const stream = this.#connection.stream<Chunk, GenerationSummary>(
      "model.generate",
      () => ({ args: [this.#lease.use(), all], kwargs }),
      { signal, timeout },
      (item) => declared<Chunk>(fromFields(item)),
      (result) => declared<GenerationSummary>(fromFields(result)),
    );
    return new Generation(stream, all.length);
  }

  /** Measures how well the model predicts `text`. */
  async perplexity(text: string, options: PerplexityOptions = {}): Promise<PerplexityReport> {
    checkArgument(text, { expected: "a string", accepts: (value) => typeof value === "string" }, "text");
    checkOptions(options, perplexityRules, "model.perplexity");
    return declared<PerplexityReport>(await this.#call("model.perplexity", [toWireText(text)], options));
  }

  /** Puts the Linear layers in 4 or 8 bits, in place; the float weights are freed layer by layer. */
  async quantize(options: QuantizeOptions & LongCallOptions = {}): Promise<QuantizeReport> {
    checkOptions(options, { ...longCallRules, ...quantizeRules }, "model.quantize");
    const report = declared<QuantizeReport>(await this.#call("model.quantize", [], options));
    this.#info = declared<ModelInfo>(await this.#call("model.info", [], {}));
    return report;
  }

  /** Writes the model as safetensors; a quantized model loads again without its float weights. */
  async save(path: string, options: SaveOptions = {}): Promise<{ readonly path: string; readonly bytes: number }> {
    checkArgument(path, nonEmptyText, "path");
    checkOptions(options, saveRules, "model.save");
    return declared<{ path: string; bytes: number }>(await this.#call("model.save", [path], options));
  }

  /** Frees the model in the worker at its next turn, whatever handles exist on its parts. May be called again. */
  async dispose(options: CallOptions = {}): Promise<void> {
    checkOptions(options, callRules, "model.dispose");
    if (this.#lease.isDisposed) return;
    const { session } = this.#connection;
    const freed = session.call("model.dispose", [this.#lease.use()], {}, options);
    this.#lease.dispose(); // the worker resolves a handle when the call arrives, which is before this
    await freed.catch((error: unknown) => {
      if (!session.isEnded) throw error; // else the model ended with its worker
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  toString(): string {
    return `Model(${this.#info.architecture} ${this.#info.path}${this.#lease.isDisposed ? ", disposed" : ""})`;
  }

  async #call(method: string, args: readonly WireValue[], options: LongCallOptions): Promise<unknown> {
    const { signal, timeout, onProgress, ...rest } = options;
    const build = () => ({ args: [this.#lease.use(), ...args], kwargs: toKwargs(rest) });
    return fromFields(await this.#connection.callWire(method, build, { signal, timeout, onProgress }));
  }
}

showAs(Model.prototype, Model.prototype.toString);

/** Loads a model from a folder or hub id; see `Worker.load`. */
export async function loadModel(connection: Connection, path: string, options: LoadOptions = {}): Promise<Model> {
  checkArgument(path, nonEmptyText, "path");
  checkOptions(options, loadRules, "worker.load");
  const { signal, timeout, onProgress, dtype, device, revision, quantize } = options;
  if (quantize !== undefined) checkOptions(quantize, quantizeRules, "worker.load quantize");
  const how = quantize === undefined ? undefined : toKwargs({ ...quantize });
  const kwargs = toKwargs({ dtype, device, revision, quantize: how });
  const build = () => ({ args: [path], kwargs });
  const handle = await connection.callWire("model.load", build, { signal, timeout, onProgress });
  if (!(handle instanceof WireHandle)) throw new ProtocolError("`model.load` must result in a handle.");
  return connection.own(new Model(connection, handle));
}

function toWireText(text: string): WireValue {
  if (text.length <= MAX_INLINE_TEXT) return text;
  const bytes = new TextEncoder().encode(text);
  return new WireTensor("uint8", [bytes.length], { kind: "frame", bytes });
}
