// Which members of a scope a value of the program holds.

import { Model } from "./model.ts";
import { leaseOf } from "./reference.ts";
import type { Member } from "./scope.ts";
import { Tensor } from "./tensor.ts";

/** The handles, tensors and models in `value`: itself, or inside of arrays and plain objects. */
export function membersIn(value: unknown, seen: Set<unknown> = new Set()): Member[] {
  if (value instanceof Model || value instanceof Tensor) return [value];
  const lease = leaseOf(value);
  if (lease !== undefined) return [lease];
  if (typeof value !== "object" || value === null || seen.has(value)) return [];
  seen.add(value);
  if (Array.isArray(value)) return value.flatMap((inner) => membersIn(inner, seen));
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return [];
  return Object.values(value).flatMap((inner) => membersIn(inner, seen));
}
