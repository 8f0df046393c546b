// What a proxy stands for. Proxies have no properties of their own to ask, so this is kept beside them.

import type { HandleLease } from "./handle-lease.ts";

/** A place in the worker: a handle, or the name of a module, and the attributes on the way from it. */
export interface Place {
  /** Identity of the worker. */
  readonly worker: object;
  readonly root: HandleLease | string;
  readonly path: readonly string[];
}

const places = new WeakMap<object, Place>();

/** Remembers what `proxy` stands for. */
export function bindPlace(proxy: object, place: Place): void {
  places.set(proxy, place);
}

/** What `value` stands for, or undefined if it is none of ours. Asks nothing of the value itself. */
export function placeOf(value: unknown): Place | undefined {
  return typeof value === "function" || (typeof value === "object" && value !== null) ? places.get(value) : undefined;
}

/** The ownership behind a handle, or undefined for any other value. */
export function leaseOf(value: unknown): HandleLease | undefined {
  const place = placeOf(value);
  return place !== undefined && typeof place.root !== "string" && place.path.length === 0 ? place.root : undefined;
}

/** `torch.nn.functional.gelu`, or `Handle(torch.Tensor float32 [2] #7).shape`. */
export function placeName({ root, path }: Place): string {
  return [String(root), ...path].join(".");
}
