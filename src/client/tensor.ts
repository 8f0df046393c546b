// A tensor whose bytes this program can read and write in place. Its memory is one of: a block of our partition of the
// arena, a block of the worker's, or plain memory (remote workers). Knows no messages beyond the storage of a tensor.

import type { Block } from "../arena/block.ts";
import { bfloat16ToFloat32, type DType, float16ToFloat32, itemSize, type TypedArrayOf, viewAs } from "../dtype.ts";
import { HandleDisposedError, UnsupportedError } from "../errors.ts";
import { type BlockStorage, WireTensor } from "../protocol.ts";
import { elementCount, type TensorMeta } from "../tensor.ts";
import { showAs } from "./inspect.ts";

/**
 * Where the bytes of a tensor are, and how their end is told. `release` must not refer to `bytes`: it is kept by the
 * registry that waits for them to be collected.
 */
export type Memory =
  | { readonly kind: "plain"; readonly bytes: Uint8Array }
  /** A block of our partition; `worker` stands for the worker that maps the same arena. */
  | {
      readonly kind: "client";
      readonly bytes: Uint8Array;
      readonly block: Block;
      readonly worker: object;
      readonly release: () => void;
    }
  /** A block of the worker's partition, of which we hold one reference. */
  | {
      readonly kind: "worker";
      readonly bytes: Uint8Array;
      readonly storage: BlockStorage;
      readonly worker: object;
      readonly release: () => void;
    };

// Watches ArrayBuffers, not tensors: a typed array taken from `data` keeps its memory alive without its tensor.
const collected = new FinalizationRegistry<() => void>((free) => free());

let storageOf: (tensor: Tensor, worker: object) => { readonly wire: WireTensor; readonly block?: Block };

/**
 * A dense tensor in memory that this program can address; on a local worker that memory is shared, and Python sees it
 * without a copy. Made by `worker.tensor`, and by methods that return several arrays at once.
 *
 * @example
 * const x = worker.tensor(new Float32Array(16 * 4096), [16, 4096]);
 * x.data[0] = 1; // seen by Python
 */
export class Tensor<D extends DType = DType> implements TensorMeta {
  readonly dtype: D;
  /** Sizes of the dimensions; `[]` is a scalar. */
  readonly shape: readonly number[];
  readonly #memory: Memory;
  #data: TypedArrayOf<D> | undefined;

  static {
    storageOf = (tensor, worker) => tensor.#store(worker);
  }

  /** @internal Tensors are made by `Worker.tensor` and by results. */
  constructor(dtype: D, shape: readonly number[], memory: Memory) {
    this.dtype = dtype;
    this.shape = Object.freeze([...shape]);
    this.#memory = memory;
    const { bytes } = memory;
    this.#data = viewAs(dtype, bytes.buffer, bytes.byteOffset, bytes.byteLength / itemSize(dtype));
    if (memory.kind !== "plain") collected.register(bytes.buffer, memory.release, bytes.buffer);
  }

  /**
   * The elements, row-major, as a view of the memory itself; float16 and bfloat16 are raw bits in a Uint16Array.
   * The memory lives as long as the view, unless `dispose` is called: then the view must not be used any more.
   *
   * @throws HandleDisposedError after `dispose`.
   */
  get data(): TypedArrayOf<D> {
    if (this.#data === undefined) throw new HandleDisposedError(`${this} was disposed and can no longer be used.`);
    return this.#data;
  }

  /** Number of elements. */
  get length(): number {
    return elementCount(this.shape);
  }

  get byteLength(): number {
    return this.length * itemSize(this.dtype);
  }

  get isDisposed(): boolean {
    return this.#data === undefined;
  }

  /**
   * The elements as a new Float32Array; exact for float32, float16 and bfloat16.
   *
   * @throws UnsupportedError for other dtypes, which float32 would round.
   */
  float32(): Float32Array {
    return toFloat32(this.dtype, this.data);
  }

  /** Frees the memory here at once; the worker keeps it for as long as Python uses it. May be called again. */
  dispose(): void {
    if (this.#data === undefined) return;
    this.#data = undefined;
    if (this.#memory.kind === "plain") return;
    collected.unregister(this.#memory.bytes.buffer);
    this.#memory.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  toString(): string {
    return `Tensor(${this.dtype} [${this.shape.join(", ")}]${this.isDisposed ? ", disposed" : ""})`;
  }

  #store(worker: object): { readonly wire: WireTensor; readonly block?: Block } {
    const { dtype, shape } = this;
    const memory = this.#memory;
    const { buffer, byteOffset, byteLength } = this.data;
    if (memory.kind === "client" && memory.worker === worker) {
      const { id, generation, offset } = memory.block;
      const storage = { kind: "block", owner: "client", block: id, generation, offset, bytes: byteLength } as const;
      return { wire: new WireTensor(dtype, shape, storage), block: memory.block };
    }
    if (memory.kind === "worker" && memory.worker === worker) {
      return { wire: new WireTensor(dtype, shape, memory.storage) };
    }
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    // The socket reads a frame some time later: memory of an arena may be freed and used again by then.
    const frame = memory.kind === "plain" ? bytes : bytes.slice();
    return { wire: new WireTensor(dtype, shape, { kind: "frame", bytes: frame }) };
  }
}

showAs(Tensor.prototype, Tensor.prototype.toString);

/**
 * The tensor as it is written to `worker`: by reference if its memory is shared with that worker, else as bytes.
 * A `block` of ours is mentioned, and gets a foreign reference once the message is sent.
 */
export function toWireTensor(tensor: Tensor, worker: object): { readonly wire: WireTensor; readonly block?: Block } {
  return storageOf(tensor, worker);
}

/** `data` of `dtype` as float32 values, in new memory. */
export function toFloat32(dtype: DType, data: ArrayBufferView): Float32Array {
  if (dtype === "float16" && data instanceof Uint16Array) return float16ToFloat32(data);
  if (dtype === "bfloat16" && data instanceof Uint16Array) return bfloat16ToFloat32(data);
  if (data instanceof Float32Array) return data.slice();
  throw new UnsupportedError(`Only float32, float16 and bfloat16 convert to float32 exactly, got ${dtype}.`);
}
