// The dtype table: names as on the wire, item sizes, typed arrays; and float32 <-> 16-bit float conversions.
// Knows no shapes and no memory. JavaScript has no bfloat16, and Node 20 and 22 have no Float16Array,
// so both 16-bit floats are raw bits in a Uint16Array, and the conversions here give them a meaning.

import { InvalidArgumentError } from "./errors.ts";

interface TypedArrays {
  float32: Float32Array;
  float64: Float64Array;
  float16: Uint16Array;
  bfloat16: Uint16Array;
  int8: Int8Array;
  uint8: Uint8Array;
  int16: Int16Array;
  int32: Int32Array;
  int64: BigInt64Array;
  bool: Uint8Array;
}

/** Element type of a tensor, named as in PyTorch. */
export type DType = keyof TypedArrays;

/** The typed array that views a tensor of dtype `D`; 16-bit floats are raw bits, bool is one byte of 0 or 1. */
export type TypedArrayOf<D extends DType> = TypedArrays[D];

/** Any typed array that can view a tensor. */
export type TypedArray = TypedArrays[DType];

interface TypedArrayConstructor<T> {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBufferLike, byteOffset?: number, length?: number): T;
}

const CONSTRUCTORS: { readonly [D in DType]: TypedArrayConstructor<TypedArrays[D]> } = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  bool: Uint8Array,
};

/** All dtypes that travel. */
export const DTYPES: readonly DType[] = [
  "float32",
  "float64",
  "float16",
  "bfloat16",
  "int8",
  "uint8",
  "int16",
  "int32",
  "int64",
  "bool",
];

/** True if `value` names a dtype. */
export function isDType(value: unknown): value is DType {
  return typeof value === "string" && Object.hasOwn(CONSTRUCTORS, value);
}

/** Bytes of one element. */
export function itemSize(dtype: DType): number {
  return CONSTRUCTORS[dtype].BYTES_PER_ELEMENT;
}

/** A typed array of `length` elements over `buffer`; `byteOffset` must be a multiple of the item size. */
export function viewAs<D extends DType>(
  dtype: D,
  buffer: ArrayBufferLike,
  byteOffset?: number,
  length?: number,
): TypedArrayOf<D> {
  return new CONSTRUCTORS[dtype](buffer, byteOffset, length);
}

/**
 * The dtype whose tensor `array` holds. A Uint8Array is `uint8`; a Uint16Array is refused, since it could be either
 * 16-bit float.
 *
 * @throws InvalidArgumentError for arrays that name no dtype.
 */
export function dtypeOf(array: ArrayBufferView): DType {
  if (array instanceof Float32Array) return "float32";
  if (array instanceof Float64Array) return "float64";
  if (array instanceof Int8Array) return "int8";
  if (array instanceof Uint8Array) return "uint8";
  if (array instanceof Int16Array) return "int16";
  if (array instanceof Int32Array) return "int32";
  if (array instanceof BigInt64Array) return "int64";
  if (array instanceof Uint16Array) {
    throw new InvalidArgumentError(
      "`data` is a Uint16Array, which may hold float16 or bfloat16: pass `dtype` to say which.",
    );
  }
  throw new InvalidArgumentError(
    `\`data\` must be a Float32Array, Float64Array, Int8Array, Uint8Array, Int16Array, Int32Array or BigInt64Array, ` +
      `got ${array.constructor.name}.`,
  );
}

function bitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

function checkedTarget<T extends { readonly length: number }>(out: T, length: number): T {
  if (out.length !== length) {
    throw new InvalidArgumentError(`\`out\` must have ${length} elements, as the source has, got ${out.length}.`);
  }
  return out;
}

// float16: 1 sign, 5 exponent (bias 15), 10 fraction bits. float32: 1, 8 (bias 127), 23.
const F32_SIGN_TO_16 = 16;
const F32_INFINITY = 0x7f800000;
const F16_INFINITY = 0x7c00;
const F16_QUIET_NAN = 0x7e00;
const F16_REBIAS = (127 - 15) << 23;
/** 65520: halfway between the largest float16 (65504) and what would be the next; it rounds to infinity. */
const F16_OVERFLOW = 0x477ff000;
/** 2^-14, the smallest normal float16. */
const F16_SMALLEST_NORMAL = 0x38800000;
/** 2^-25, half of the smallest subnormal float16: it and all below round to zero. */
const F16_UNDERFLOW = 0x33000000;

function float16FromBits(bits: number): number {
  const sign = (bits >>> F32_SIGN_TO_16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > F32_INFINITY) return sign | F16_QUIET_NAN | ((magnitude >>> 13) & 0x1ff);
  if (magnitude >= F16_OVERFLOW) return sign | F16_INFINITY;
  if (magnitude >= F16_SMALLEST_NORMAL) {
    const rebiased = magnitude - F16_REBIAS;
    return sign | ((rebiased + 0xfff + ((rebiased >>> 13) & 1)) >>> 13);
  }
  if (magnitude <= F16_UNDERFLOW) return sign;
  // Subnormal: the value is fraction * 2^(exponent - 150), in units of 2^-24 that is fraction >> (126 - exponent).
  const shift = 126 - (magnitude >>> 23);
  const fraction = (magnitude & 0x7fffff) | 0x800000;
  const half = fraction >>> shift;
  const rest = fraction & ((1 << shift) - 1);
  const midpoint = 1 << (shift - 1);
  return sign | (half + (rest > midpoint || (rest === midpoint && (half & 1) === 1) ? 1 : 0));
}

/** float32 to float16 bits, rounded to nearest, ties to even; overflow is infinity, NaN stays NaN. */
export function float32ToFloat16(values: Float32Array, out: Uint16Array = new Uint16Array(values.length)): Uint16Array {
  const bits = bitsOf(values);
  const target = checkedTarget(out, values.length);
  for (let i = 0; i < bits.length; i++) target[i] = float16FromBits(bits[i] ?? 0);
  return target;
}

/** float16 bits to float32, exact. */
export function float16ToFloat32(bits: Uint16Array, out: Float32Array = new Float32Array(bits.length)): Float32Array {
  const target = checkedTarget(out, bits.length);
  const targetBits = bitsOf(target);
  for (let i = 0; i < bits.length; i++) {
    const half = bits[i] ?? 0;
    const sign = (half & 0x8000) << F32_SIGN_TO_16;
    const magnitude = half & 0x7fff;
    if (magnitude >= F16_INFINITY) targetBits[i] = sign | F32_INFINITY | ((magnitude & 0x3ff) << 13);
    else if (magnitude >= 0x400) targetBits[i] = sign | ((magnitude << 13) + F16_REBIAS);
    else target[i] = (sign === 0 ? 1 : -1) * magnitude * 2 ** -24;
  }
  return target;
}

/** float32 to bfloat16 bits, rounded to nearest, ties to even; overflow is infinity, NaN stays NaN. */
export function float32ToBfloat16(
  values: Float32Array,
  out: Uint16Array = new Uint16Array(values.length),
): Uint16Array {
  const bits = bitsOf(values);
  const target = checkedTarget(out, values.length);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i] ?? 0;
    const isNan = (word & 0x7fffffff) > F32_INFINITY;
    // A NaN whose payload sits in the lower half alone would turn into infinity: the quiet bit keeps it a NaN.
    target[i] = isNan ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return target;
}

/** bfloat16 bits to float32, exact: a bfloat16 is the upper half of a float32. */
export function bfloat16ToFloat32(bits: Uint16Array, out: Float32Array = new Float32Array(bits.length)): Float32Array {
  const target = checkedTarget(out, bits.length);
  const targetBits = bitsOf(target);
  for (let i = 0; i < bits.length; i++) targetBits[i] = (bits[i] ?? 0) << 16;
  return target;
}
