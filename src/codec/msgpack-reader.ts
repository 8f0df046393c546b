// Reads one msgpack value under limits: nothing is allocated for a length before the frame is known to be that long
// and the budget to allow it, so a small frame cannot make a large value. Knows extensions only as a code and a payload.

import { ProtocolError } from "../errors.ts";
import type { WireValue } from "../protocol.ts";
import type { Budget } from "./budget.ts";

/**
 * Longest text that V8 copies out of a string; a longer slice would keep the whole frame alive. Cutting short texts out
 * of one string halves the time of a control frame, whose strings are mostly names.
 */
const COPIED_TEXT = 12;
const OWN_PROPERTY = { configurable: true, enumerable: true, writable: true };
const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The value that an extension stands for; throws ProtocolError for an unknown code or a wrong payload. */
export type FromExtension = (code: number, payload: WireValue) => WireValue;

/** Reads the one value of a control frame. */
export class MsgpackReader {
  readonly #bytes: Buffer;
  readonly #budget: Budget;
  readonly #fromExtension: FromExtension;
  #position = 0;
  /** End of what may be read now: of the frame, or of the extension's payload. */
  #end: number;
  #inExtension = false;
  /** The whole frame, one character for a byte; made when the first short text is read. */
  #characters: string | undefined;

  constructor(frame: Uint8Array, budget: Budget, fromExtension: FromExtension) {
    this.#bytes = Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength);
    this.#end = frame.byteLength;
    this.#budget = budget;
    this.#fromExtension = fromExtension;
  }

  /** The value, which must fill the frame. */
  readAll(): WireValue {
    const value = this.#read(0);
    if (this.#position !== this.#end) {
      throw new ProtocolError(
        `The control frame must end with its map, got ${this.#end - this.#position} bytes after it.`,
      );
    }
    return value;
  }

  #read(depth: number): WireValue {
    this.#budget.take(1);
    const at = this.#advance(1);
    const tag = this.#bytes[at] ?? 0;
    if (tag < 0x80) return tag;
    if (tag < 0x90) return this.#map(tag & 0x0f, depth + 1);
    if (tag < 0xa0) return this.#array(tag & 0x0f, depth + 1);
    if (tag < 0xc0) return this.#text(tag & 0x1f);
    if (tag >= 0xe0) return tag - 0x100;
    switch (tag) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#bin(this.#length(tag - 0xc4));
      case 0xc7:
      case 0xc8:
      case 0xc9:
        return this.#extension(this.#length(tag - 0xc7), depth + 1);
      case 0xca:
        return this.#bytes.readFloatBE(this.#advance(4));
      case 0xcb:
        return this.#bytes.readDoubleBE(this.#advance(8));
      case 0xcc:
        return this.#bytes.readUInt8(this.#advance(1));
      case 0xcd:
        return this.#bytes.readUInt16BE(this.#advance(2));
      case 0xce:
        return this.#bytes.readUInt32BE(this.#advance(4));
      case 0xcf:
        return narrow(this.#bytes.readBigUInt64BE(this.#advance(8)));
      case 0xd0:
        return this.#bytes.readInt8(this.#advance(1));
      case 0xd1:
        return this.#bytes.readInt16BE(this.#advance(2));
      case 0xd2:
        return this.#bytes.readInt32BE(this.#advance(4));
      case 0xd3:
        return narrow(this.#bytes.readBigInt64BE(this.#advance(8)));
      case 0xd4:
      case 0xd5:
      case 0xd6:
      case 0xd7:
      case 0xd8:
        return this.#extension(2 ** (tag - 0xd4), depth + 1);
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#text(this.#length(tag - 0xd9));
      case 0xdc:
      case 0xdd:
        return this.#array(this.#length(tag - 0xdb), depth + 1);
      case 0xde:
      case 0xdf:
        return this.#map(this.#length(tag - 0xdd), depth + 1);
      default:
        throw new ProtocolError(`The control frame has the byte 0x${tag.toString(16)}, which msgpack never uses.`);
    }
  }

  /** A length of 1, 2 or 4 bytes for a width of 0, 1 or 2. */
  #length(width: number): number {
    if (width === 0) return this.#bytes.readUInt8(this.#advance(1));
    if (width === 1) return this.#bytes.readUInt16BE(this.#advance(2));
    return this.#bytes.readUInt32BE(this.#advance(4));
  }

  /** Moves past `bytes` bytes and gives where they began. */
  #advance(bytes: number): number {
    const start = this.#position;
    if (bytes > this.#end - start) {
      throw new ProtocolError(`The control frame ends inside a value: ${bytes} bytes at ${start} of ${this.#end}.`);
    }
    this.#position = start + bytes;
    return start;
  }

  /** Refuses a count of values that the rest of the frame cannot hold, at one byte each. */
  #expect(values: number): void {
    if (values > this.#end - this.#position) {
      throw new ProtocolError(`The control frame ends inside a value: ${values} values in ${this.#end} bytes.`);
    }
  }

  #array(length: number, depth: number): WireValue[] {
    this.#budget.enter(depth);
    this.#expect(length);
    const values: WireValue[] = [];
    for (let i = 0; i < length; i++) values.push(this.#read(depth));
    return values;
  }

  #map(length: number, depth: number): { [key: string]: WireValue } {
    this.#budget.enter(depth);
    this.#expect(2 * length);
    const map: { [key: string]: WireValue } = {};
    for (let i = 0; i < length; i++) {
      this.#budget.take(1);
      const key = this.#key();
      const value = this.#read(depth);
      // As in JSON.parse: a key like any other. Assigned to, it would set the map's prototype.
      if (key === "__proto__") Object.defineProperty(map, key, { value, ...OWN_PROPERTY });
      else map[key] = value;
    }
    return map;
  }

  #key(): string {
    const tag = this.#bytes[this.#advance(1)] ?? 0;
    if (tag >= 0xa0 && tag < 0xc0) return this.#text(tag & 0x1f);
    if (tag >= 0xd9 && tag <= 0xdb) return this.#text(this.#length(tag - 0xd9));
    throw new ProtocolError(`A map key must be a string, got msgpack byte 0x${tag.toString(16)}.`);
  }

  #text(length: number): string {
    const start = this.#advance(length);
    const end = start + length;
    let i = start;
    while (i < end && (this.#bytes[i] ?? 0) < 0x80) i++;
    if (i === end) {
      if (length > COPIED_TEXT) return this.#bytes.toString("latin1", start, end);
      this.#characters ??= this.#bytes.toString("latin1");
      return this.#characters.slice(start, end);
    }
    try {
      return UTF8.decode(this.#bytes.subarray(start, end));
    } catch (cause) {
      throw new ProtocolError(`The string at byte ${start} of the control frame must be UTF-8.`, { cause });
    }
  }

  /** A copy: a view would keep the whole message, and for ZeroMQ its foreign memory, alive. */
  #bin(length: number): Uint8Array {
    const start = this.#advance(length);
    return new Uint8Array(this.#bytes.subarray(start, start + length));
  }

  #extension(length: number, depth: number): WireValue {
    const code = this.#bytes.readInt8(this.#advance(1));
    if (this.#inExtension) throw new ProtocolError(`The extension ${code} stands inside an extension.`);
    const frameEnd = this.#end;
    this.#advance(length);
    this.#end = this.#position;
    this.#position -= length;
    this.#inExtension = true;
    const payload = this.#read(depth);
    if (this.#position !== this.#end) {
      throw new ProtocolError(`The extension ${code} must hold one value, got bytes after it.`);
    }
    this.#inExtension = false;
    this.#end = frameEnd;
    return this.#fromExtension(code, payload);
  }
}

function narrow(value: bigint): number | bigint {
  return value <= MAX_SAFE && value >= -MAX_SAFE ? Number(value) : value;
}
