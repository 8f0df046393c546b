// Shapes and sizes of dense row-major tensors. Knows no memory: what holds the bytes is the codec's and arena's matter.

import { type DType, itemSize, type TypedArrayOf, viewAs } from "./dtype.ts";
import { InvalidArgumentError } from "./errors.ts";

/** What describes a tensor beside its bytes. */
export interface TensorMeta {
  readonly dtype: DType;
  /** Sizes of the dimensions, at most 8; `[]` is a scalar. */
  readonly shape: readonly number[];
}

/** Most dimensions that travel (docs/protocol.md). */
export const MAX_RANK = 8;

/**
 * Number of elements of a tensor of this shape.
 *
 * @throws InvalidArgumentError if a size is not a non-negative integer, or the product passes 2^53 - 1.
 */
export function elementCount(shape: readonly number[]): number {
  if (shape.length > MAX_RANK) {
    throw new InvalidArgumentError(`\`shape\` must have at most ${MAX_RANK} dimensions, got ${shape.length}.`);
  }
  let count = 1;
  for (const [i, size] of shape.entries()) {
    if (!Number.isSafeInteger(size) || size < 0) {
      throw new InvalidArgumentError(`\`shape[${i}]\` must be a non-negative integer, got ${String(size)}.`);
    }
    count *= size;
  }
  // A product of doubles that passes 2^53 never comes back below it, except to an exact zero, which is the right answer.
  if (!Number.isSafeInteger(count)) {
    throw new InvalidArgumentError(`\`shape\` [${shape.join(", ")}] has more than 2^53 - 1 elements.`);
  }
  return count;
}

/**
 * Bytes of a tensor of this dtype and shape.
 *
 * @throws InvalidArgumentError as `elementCount`, or if the bytes pass 2^53 - 1.
 */
export function byteLength(dtype: DType, shape: readonly number[]): number {
  const bytes = elementCount(shape) * itemSize(dtype);
  if (!Number.isSafeInteger(bytes)) {
    throw new InvalidArgumentError(
      `A ${dtype} tensor of \`shape\` [${shape.join(", ")}] has more than 2^53 - 1 bytes.`,
    );
  }
  return bytes;
}

/**
 * A typed array over `bytes`, without a copy if their offset suits the dtype's alignment, else over a copy.
 * `bytes.byteLength` must be a multiple of the item size.
 */
export function typedView<D extends DType>(dtype: D, bytes: Uint8Array): TypedArrayOf<D> {
  const size = itemSize(dtype);
  if (bytes.byteLength % size !== 0) {
    throw new InvalidArgumentError(
      `\`bytes\` must hold a whole number of ${dtype} elements of ${size} bytes, got ${bytes.byteLength} bytes.`,
    );
  }
  const aligned = bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes);
  return viewAs(dtype, aligned.buffer, aligned.byteOffset, bytes.byteLength / size);
}
