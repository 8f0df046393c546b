// The one place where camelCase option names become the wire's snake_case, and back.

import type { WireMap, WireValue } from "../protocol.ts";
import { WireHandle, WireTensor } from "../protocol.ts";

/** `maxNewTokens` to `max_new_tokens`. */
export function toSnakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** `max_new_tokens` to `maxNewTokens`. */
export function toCamelCase(name: string): string {
  return name.replace(/(?<=[a-z0-9])_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

/** Option values as keyword arguments; undefined ones are left out. */
export function toKwargs(options: Readonly<Record<string, WireValue | undefined>>): WireMap {
  const kwargs: Record<string, WireValue> = {};
  for (const [name, value] of Object.entries(options)) {
    if (value !== undefined) kwargs[toSnakeCase(name)] = value;
  }
  return kwargs;
}

/**
 * A result of the worker with its field names in camelCase, in nested maps and arrays too. Keys that are data, not
 * field names (a dotted module name, a path), have no camelCase and stay.
 */
export function fromFields(value: WireValue): unknown {
  if (Array.isArray(value)) return value.map(fromFields);
  if (!isPlainMap(value)) return value;
  const entries = Object.entries(value).map(([key, inner]) => [
    isField(key) ? toCamelCase(key) : key,
    fromFields(inner),
  ]);
  return Object.fromEntries(entries);
}

function isPlainMap(value: WireValue): value is WireMap {
  return (
    typeof value === "object" &&
    value !== null &&
    !(value instanceof Uint8Array || value instanceof WireHandle || value instanceof WireTensor)
  );
}

function isField(key: string): boolean {
  return /^[a-z][a-z0-9_]*$/.test(key);
}
