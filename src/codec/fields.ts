// Reads typed fields out of a decoded map, with a sentence for each wrong one. Knows no message.

import { ProtocolError } from "../errors.ts";
import { WireHandle, type WireMap, WireTensor, type WireValue } from "../protocol.ts";

/** True for a map, as opposed to an array, a bin, a handle or a tensor. */
export function isMap(value: WireValue | undefined): value is WireMap {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof Uint8Array || value instanceof WireHandle || value instanceof WireTensor)
  );
}

/** True for an array. */
export function isArray(value: WireValue | undefined): value is readonly WireValue[] {
  return Array.isArray(value);
}

/** True for an unsigned integer that JavaScript counts exactly. */
export function isUint(value: WireValue | undefined): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function describe(value: WireValue | undefined): string {
  if (value === undefined) return "nothing";
  if (value === null) return "nil";
  if (isArray(value)) return `an array of ${value.length}`;
  if (value instanceof Uint8Array) return `a bin of ${value.byteLength}`;
  if (value instanceof WireHandle) return "a handle";
  if (value instanceof WireTensor) return "a tensor";
  if (typeof value === "object") return "a map";
  if (typeof value === "string") return "a string";
  return String(value);
}

/** The fields of one map; every getter throws ProtocolError if the field is missing or of another type. */
export class Fields {
  readonly #where: string;
  readonly #map: WireMap;

  /** @param where - What the map is, to begin messages with: "`call`". */
  constructor(where: string, map: WireMap) {
    this.#where = where;
    this.#map = map;
  }

  /** True if the field was sent. */
  has(name: string): boolean {
    return Object.hasOwn(this.#map, name);
  }

  /** The field as it came; undefined if it was left out. */
  get(name: string): WireValue | undefined {
    return this.has(name) ? this.#map[name] : undefined;
  }

  uint(name: string): number {
    const value = this.get(name);
    return isUint(value) ? value : this.#refuse(name, "an unsigned integer below 2^53", value);
  }

  uintOrNull(name: string): number | null {
    return this.has(name) && this.get(name) === null ? null : this.uint(name);
  }

  number(name: string): number {
    const value = this.get(name);
    return typeof value === "number" ? value : this.#refuse(name, "a number", value);
  }

  boolean(name: string): boolean {
    const value = this.get(name);
    return typeof value === "boolean" ? value : this.#refuse(name, "true or false", value);
  }

  text(name: string): string {
    const value = this.get(name);
    return typeof value === "string" ? value : this.#refuse(name, "a string", value);
  }

  array(name: string): readonly WireValue[] {
    const value = this.get(name);
    return isArray(value) ? value : this.#refuse(name, "an array", value);
  }

  uints(name: string): readonly number[] {
    const values = this.array(name);
    return values.every(isUint) ? values : this.#refuse(name, "an array of unsigned integers", values);
  }

  map(name: string): WireMap {
    const value = this.get(name);
    return isMap(value) ? value : this.#refuse(name, "a map", value);
  }

  /** The fields of a map in this map. */
  fields(name: string): Fields {
    return new Fields(`${this.#where} \`${name}\``, this.map(name));
  }

  #refuse(name: string, expected: string, got: WireValue | undefined): never {
    throw new ProtocolError(`${this.#where}: \`${name}\` must be ${expected}, got ${describe(got)}.`);
  }
}

/** Refuses a value that is not a field of a map, in the same words. */
export function refuseValue(where: string, expected: string, got: WireValue | undefined): never {
  throw new ProtocolError(`${where} must be ${expected}, got ${describe(got)}.`);
}
