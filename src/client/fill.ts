// Copies values of the program into the memory of a tensor, converting where nothing is lost that was not asked for.

import { type DType, dtypeOf, float32ToBfloat16, float32ToFloat16, type TypedArray } from "../dtype.ts";
import { InvalidArgumentError } from "../errors.ts";
import { describe } from "./options.ts";

/** Values of a new tensor: a typed array, or numbers. */
export type TensorData = TypedArray | readonly number[];

/** Throws `InvalidArgumentError` unless `data` is an array of some kind; what is in it, `fill` checks. */
export function checkData(data: TensorData): void {
  if (!Array.isArray(data) && !(ArrayBuffer.isView(data) && "length" in data)) {
    throw new InvalidArgumentError(`\`data\` must be a typed array or an array of numbers, got ${describe(data)}.`);
  }
}

/** The dtype of a tensor made from `data` when none is asked for: that of the array; float32 for plain numbers. */
export function naturalDType(data: TensorData): DType {
  return isNumbers(data) ? "float32" : dtypeOf(data);
}

/**
 * Writes `data` to `out`, the elements of a tensor of `dtype`. Floating point values convert to any float dtype, rounded
 * to nearest even; plain numbers to any dtype that holds them exactly, or to a float; everything else must match.
 */
export function fill(dtype: DType, out: TypedArray, data: TensorData): void {
  if (isNumbers(data)) fillNumbers(dtype, out, data);
  else if (out instanceof Uint16Array) fillHalf(dtype, out, data);
  else if (dtype === "bool") fillBool(out, data);
  else if (isFloat(out) && isFloat(data)) out.set(data);
  else if (out instanceof BigInt64Array && data instanceof BigInt64Array) out.set(data);
  else if (isSmallInteger(out) && isSmallInteger(data) && out.constructor === data.constructor) out.set(data);
  else throw mismatch(dtype, data);
}

function fillHalf(dtype: DType, out: Uint16Array, data: TypedArray): void {
  if (data instanceof Uint16Array) {
    out.set(data);
    return;
  }
  if (!isFloat(data)) throw mismatch(dtype, data);
  const values = data instanceof Float32Array ? data : Float32Array.from(data);
  if (dtype === "float16") float32ToFloat16(values, out);
  else float32ToBfloat16(values, out);
}

function fillBool(out: TypedArray, data: TypedArray): void {
  if (!(data instanceof Uint8Array) || !(out instanceof Uint8Array)) throw mismatch("bool", data);
  const at = data.findIndex((value) => value > 1);
  if (at >= 0) throw new InvalidArgumentError(`\`data[${at}]\` must be 0 or 1 for a bool tensor, got ${data[at]}.`);
  out.set(data);
}

function fillNumbers(dtype: DType, out: TypedArray, data: readonly number[]): void {
  if (out instanceof Uint16Array) fillHalf(dtype, out, Float32Array.from(data));
  else if (isFloat(out)) out.set(data);
  else for (const [i, value] of data.entries()) storeInteger(dtype, out, i, value);
}

function storeInteger(
  dtype: DType,
  out: Exclude<TypedArray, Float32Array | Float64Array>,
  i: number,
  value: number,
): void {
  const isExact = dtype === "bool" ? value === 0 || value === 1 : Number.isSafeInteger(value);
  if (out instanceof BigInt64Array) out[i] = isExact ? BigInt(value) : 0n;
  else out[i] = value;
  // The array wraps what it cannot hold; reading it back tells.
  if (!isExact || Number(out[i]) !== value) {
    throw new InvalidArgumentError(`\`data[${i}]\` must be a value that ${dtype} holds exactly, got ${value}.`);
  }
}

function isNumbers(data: TensorData): data is readonly number[] {
  if (!Array.isArray(data)) return false;
  const at = data.findIndex((value) => typeof value !== "number");
  if (at >= 0) throw new InvalidArgumentError(`\`data[${at}]\` must be a number, got ${describe(data[at])}.`);
  return true;
}

function isFloat(array: ArrayBufferView): array is Float32Array | Float64Array {
  return array instanceof Float32Array || array instanceof Float64Array;
}

function isSmallInteger(array: TypedArray): array is Int8Array | Uint8Array | Int16Array | Int32Array {
  return (
    array instanceof Int8Array ||
    array instanceof Uint8Array ||
    array instanceof Int16Array ||
    array instanceof Int32Array
  );
}

function mismatch(dtype: DType, data: TypedArray): InvalidArgumentError {
  return new InvalidArgumentError(`\`data\` is a ${data.constructor.name}, which does not convert to ${dtype}.`);
}
