// Writes one value as msgpack, in the one form that docs/protocol.md asks for: smallest headers, smallest integers.
// Knows extensions only as "a code and a payload"; what they mean is the codec's matter.

import { NotSerializableError } from "../errors.ts";
import type { Budget } from "./budget.ts";

/** Holds most control frames, and is small enough for Buffer's pool. */
const INITIAL_BYTES = 512;
/** The longest header of a scalar, and of an array, map, string or bin. */
const HEADER_BYTES = 9;
/** Longest text written character by character; beyond it the native copy is faster. */
const SHORT_TEXT = 32;
const UINT32_RANGE = 2 ** 32;
const LONE_SURROGATE = /\p{Surrogate}/u;

/** An extension of the protocol, ready to be written. */
export interface Extension {
  readonly code: number;
  readonly payload: readonly unknown[];
}

/** The extension that stands for a class of the protocol; undefined for every other object. */
export type ToExtension = (value: object) => Extension | undefined;

/** A writer for one value; `finish` gives the bytes. */
export class MsgpackWriter {
  #buffer: Buffer = Buffer.allocUnsafe(INITIAL_BYTES);
  #position = 0;
  readonly #budget: Budget;
  readonly #toExtension: ToExtension;
  /** The arrays and maps around the value that is being written, and the keys that lead to it. */
  readonly #ancestors: object[] = [];
  readonly #path: (string | number)[] = [];

  constructor(budget: Budget, toExtension: ToExtension) {
    this.#budget = budget;
    this.#toExtension = toExtension;
  }

  /** The bytes written so far; the writer must not be used after it. */
  finish(): Uint8Array {
    return this.#buffer.subarray(0, this.#position);
  }

  /**
   * Writes `value`.
   *
   * @throws NotSerializableError that names the place of what cannot travel, MessageTooLargeError past the budget.
   */
  write(value: unknown): void {
    this.#value(value, 0);
  }

  #value(value: unknown, depth: number): void {
    this.#budget.take(1);
    if (value === null) this.#byte(0xc0);
    else if (typeof value === "string") this.#text(value);
    else if (typeof value === "number") this.#number(value);
    else if (typeof value === "boolean") this.#byte(value ? 0xc3 : 0xc2);
    else if (typeof value === "bigint") this.#bigint(value);
    else if (value instanceof Uint8Array) this.#bin(value);
    else if (typeof value === "object") this.#object(value, depth);
    else this.#refuse(value === undefined ? "it is undefined; use null" : `it is a ${typeof value}`);
  }

  #object(value: object, depth: number): void {
    if (this.#ancestors.includes(value)) this.#refuse("it contains itself");
    this.#ancestors.push(value);
    const extension = this.#toExtension(value);
    if (extension !== undefined) this.#extension(extension, depth + 1);
    else if (Array.isArray(value)) this.#array(value, depth + 1);
    else this.#map(value, depth + 1);
    this.#ancestors.pop();
  }

  #array(values: readonly unknown[], depth: number): void {
    this.#budget.enter(depth);
    this.#header(values.length, 0x90, 0x10, 0, 0xdc, 0xdd);
    // An index loop, since forEach and entries() treat holes apart: a hole is undefined and is refused as that.
    for (let i = 0; i < values.length; i++) {
      this.#path.push(i);
      this.#value(values[i], depth);
      this.#path.pop();
    }
  }

  #map(value: object, depth: number): void {
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype !== Object.prototype && prototype !== null) {
      const name = value.constructor?.name;
      this.#refuse(`it is an instance of \`${name || "an unnamed class"}\`, not a plain object`);
    }
    this.#budget.enter(depth);
    // As in JSON, a property that is undefined is absent: so optional options can be passed through.
    const keys = Object.keys(value);
    const items: unknown[] = Object.values(value);
    let count = keys.length;
    for (const item of items) if (item === undefined) count--;
    this.#header(count, 0x80, 0x10, 0, 0xde, 0xdf);
    this.#budget.take(count);
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] ?? "";
      if (items[i] === undefined) continue;
      this.#path.push(key);
      this.#text(key);
      this.#value(items[i], depth);
      this.#path.pop();
    }
  }

  #extension(extension: Extension, depth: number): void {
    const start = this.#position;
    const ext8Header = 3;
    this.#reserve(ext8Header);
    this.#position += ext8Header;
    this.#value(extension.payload, depth);
    const length = this.#position - start - ext8Header;
    const header = extensionHeader(length, extension.code);
    this.#reserve(header.length);
    this.#buffer.copyWithin(start + header.length, start + ext8Header, this.#position);
    this.#buffer.set(header, start);
    this.#position = start + header.length + length;
  }

  #text(text: string): void {
    if (text.length <= SHORT_TEXT && this.#ascii(text)) return;
    if (LONE_SURROGATE.test(text)) this.#refuse("it is a string with a lone surrogate, which UTF-8 cannot hold");
    const length = Buffer.byteLength(text);
    this.#header(length, 0xa0, 0x20, 0xd9, 0xda, 0xdb);
    this.#reserve(length);
    this.#position += this.#buffer.write(text, this.#position);
  }

  /** Writes a short ASCII text and says true, or writes nothing. */
  #ascii(text: string): boolean {
    this.#reserve(HEADER_BYTES + text.length);
    const headerBytes = text.length < 0x20 ? 1 : 2;
    const buffer = this.#buffer;
    let position = this.#position + headerBytes;
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i);
      if (unit >= 0x80) return false;
      buffer[position++] = unit;
    }
    this.#header(text.length, 0xa0, 0x20, 0xd9, 0xda, 0xdb);
    this.#position = position;
    return true;
  }

  #bin(bytes: Uint8Array): void {
    this.#header(bytes.byteLength, 0, 0, 0xc4, 0xc5, 0xc6);
    this.#reserve(bytes.byteLength);
    this.#buffer.set(bytes, this.#position);
    this.#position += bytes.byteLength;
  }

  #number(value: number): void {
    // Zero times minus one is an integer to JavaScript; as an integer it would lose its sign.
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      this.#reserve(HEADER_BYTES);
      this.#buffer[this.#position] = 0xcb;
      this.#position = this.#buffer.writeDoubleBE(value, this.#position + 1);
    } else if (value >= 0) this.#unsigned(value);
    else this.#negative(value);
  }

  #unsigned(value: number): void {
    this.#reserve(HEADER_BYTES);
    const buffer = this.#buffer;
    const at = this.#position;
    if (value < 0x80) {
      buffer[at] = value;
      this.#position = at + 1;
    } else if (value < 0x100) {
      buffer[at] = 0xcc;
      this.#position = buffer.writeUInt8(value, at + 1);
    } else if (value < 0x10000) {
      buffer[at] = 0xcd;
      this.#position = buffer.writeUInt16BE(value, at + 1);
    } else if (value < UINT32_RANGE) {
      buffer[at] = 0xce;
      this.#position = buffer.writeUInt32BE(value, at + 1);
    } else {
      buffer[at] = 0xcf;
      buffer.writeUInt32BE(Math.floor(value / UINT32_RANGE), at + 1);
      this.#position = buffer.writeUInt32BE(value % UINT32_RANGE, at + 5);
    }
  }

  #negative(value: number): void {
    this.#reserve(HEADER_BYTES);
    const buffer = this.#buffer;
    const at = this.#position;
    if (value >= -0x20) {
      buffer[at] = 0x100 + value;
      this.#position = at + 1;
    } else if (value >= -0x80) {
      buffer[at] = 0xd0;
      this.#position = buffer.writeInt8(value, at + 1);
    } else if (value >= -0x8000) {
      buffer[at] = 0xd1;
      this.#position = buffer.writeInt16BE(value, at + 1);
    } else if (value >= -UINT32_RANGE / 2) {
      buffer[at] = 0xd2;
      this.#position = buffer.writeInt32BE(value, at + 1);
    } else {
      buffer[at] = 0xd3;
      this.#position = buffer.writeBigInt64BE(BigInt(value), at + 1);
    }
  }

  #bigint(value: bigint): void {
    if (value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER)) {
      const small = Number(value);
      if (small >= 0) this.#unsigned(small);
      else this.#negative(small);
      return;
    }
    if (BigInt.asUintN(64, value) !== value && BigInt.asIntN(64, value) !== value) {
      this.#refuse(`it is the integer ${value}, which is outside of int64 and uint64`);
    }
    this.#reserve(HEADER_BYTES);
    this.#buffer[this.#position] = value >= 0n ? 0xcf : 0xd3;
    this.#position = this.#buffer.writeBigUInt64BE(BigInt.asUintN(64, value), this.#position + 1);
  }

  #byte(byte: number): void {
    this.#reserve(1);
    this.#buffer[this.#position++] = byte;
  }

  /** The smallest header for a length; `short` and `code8` are 0 where msgpack has no such form. */
  #header(length: number, fix: number, short: number, code8: number, code16: number, code32: number): void {
    this.#reserve(HEADER_BYTES);
    const buffer = this.#buffer;
    const at = this.#position;
    if (length < short) {
      buffer[at] = fix | length;
      this.#position = at + 1;
    } else if (length < 0x100 && code8 !== 0) {
      buffer[at] = code8;
      this.#position = buffer.writeUInt8(length, at + 1);
    } else if (length < 0x10000) {
      buffer[at] = code16;
      this.#position = buffer.writeUInt16BE(length, at + 1);
    } else {
      buffer[at] = code32;
      this.#position = buffer.writeUInt32BE(length, at + 1);
    }
  }

  #refuse(what: string): never {
    const place = this.#path.reduce<string>(
      (parent, key) => (typeof key === "number" ? `${parent}[${key}]` : parent === "" ? key : `${parent}.${key}`),
      "",
    );
    throw new NotSerializableError(`\`${place}\` cannot travel: ${what}.`, { details: { place } });
  }

  #reserve(bytes: number): void {
    const needed = this.#position + bytes;
    if (needed <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2));
    this.#buffer.copy(larger, 0, 0, this.#position);
    this.#buffer = larger;
  }
}

/** Header of an extension: the fixext forms for 1, 2, 4, 8 and 16 bytes, else the smallest of the others. */
function extensionHeader(length: number, code: number): Uint8Array {
  const exponent = Math.log2(length);
  if (Number.isInteger(exponent) && length <= 16) return Uint8Array.of(0xd4 + exponent, code);
  if (length < 0x100) return Uint8Array.of(0xc7, length, code);
  if (length < 0x10000) return Uint8Array.of(0xc8, length >> 8, length & 0xff, code);
  const header = Buffer.allocUnsafe(6);
  header[0] = 0xc9;
  header.writeUInt32BE(length, 1);
  header[5] = code;
  return header;
}
