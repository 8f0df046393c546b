// The program's values as wire values. Tensors go by reference, handles by their id; attributes and modules, which are
// only names here, are collected for the caller to resolve, who then encodes again.

import type { Block } from "../arena/block.ts";
import { Budget } from "../codec/budget.ts";
import { InvalidArgumentError, MessageTooLargeError, NotSerializableError } from "../errors.ts";
import type { Limits, WireMap, WireValue } from "../protocol.ts";
import { describe } from "./options.ts";
import { type Place, placeName, placeOf } from "./reference.ts";
import { Tensor, toWireTensor } from "./tensor.ts";
import { Kwargs } from "./types.ts";

/** Encodes the values of one message. */
export class Encoder {
  /** Our blocks that the message mentions, once for each mention. */
  readonly blocks: Block[] = [];
  /** Proxies that are names only, and were not resolved. */
  readonly unresolved: Map<unknown, Place> = new Map();
  readonly #worker: object;
  readonly #maxDepth: number;
  /** Values that share parts can be far larger than the memory they take: counted while they are unfolded. */
  readonly #budget: Budget;
  readonly #resolved: ReadonlyMap<unknown, WireValue>;

  /** `worker` is the identity of the worker; `resolved` has the values of the names that an earlier pass collected. */
  constructor(worker: object, limits: Limits, resolved: ReadonlyMap<unknown, WireValue> = new Map()) {
    this.#worker = worker;
    this.#maxDepth = limits.max_depth;
    this.#budget = new Budget(limits);
    this.#resolved = resolved;
  }

  /** `value` as it travels; `where` names it in errors. */
  encode(value: unknown, where: string, depth = 0): WireValue {
    this.#budget.take(1);
    switch (typeof value) {
      case "string":
      case "number":
      case "boolean":
      case "bigint":
        return value;
      case "object":
      case "function":
        return value === null ? null : this.#encodeObject(value, where, depth);
      default:
        throw new NotSerializableError(`\`${where}\` cannot be sent to Python: it is ${describe(value)}.`);
    }
  }

  /** The place of a proxy as `target` of the `python.*` methods. */
  encodeRoot({ root, worker }: Place): WireValue {
    if (typeof root === "string") return root;
    if (worker !== this.#worker) throw new InvalidArgumentError(`${root} belongs to another worker.`);
    return root.use();
  }

  /** Throws `InvalidArgumentError` if there are names to resolve. */
  refuseUnresolved(): void {
    for (const place of this.unresolved.values()) {
      throw new InvalidArgumentError(`${placeName(place)} is a name whose value was not read yet; await it first.`);
    }
  }

  #encodeObject(value: object, where: string, depth: number): WireValue {
    const place = placeOf(value);
    if (place !== undefined) return this.#encodePlace(value, place);
    if (value instanceof Tensor) return this.#encodeTensor(value);
    if (value instanceof Uint8Array) return value;
    if (depth > this.#maxDepth) {
      throw new MessageTooLargeError(
        `\`${where}\` nests deeper than the ${this.#maxDepth} levels that the worker accepts.`,
      );
    }
    if (Array.isArray(value)) return value.map((item, i) => this.encode(item, `${where}[${i}]`, depth + 1));
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype === Object.prototype || prototype === null) return this.encodeMap(value, where, depth);
    throw new NotSerializableError(`\`${where}\` cannot be sent to Python: it is ${describe(value)}${hintFor(value)}.`);
  }

  /** A plain object as a map; undefined values are left out. */
  encodeMap(value: object, where: string, depth = 0): WireMap {
    const entries = Object.entries(value)
      .filter(([, inner]) => inner !== undefined)
      .map(([key, inner]): [string, WireValue] => [key, this.encode(inner, `${where}.${key}`, depth + 1)]);
    return Object.fromEntries(entries);
  }

  #encodePlace(proxy: object, place: Place): WireValue {
    if (typeof place.root !== "string" && place.path.length === 0) return this.encodeRoot(place);
    const resolved = this.#resolved.get(proxy);
    if (resolved !== undefined) return resolved;
    if (place.worker !== this.#worker) throw new InvalidArgumentError(`${placeName(place)} belongs to another worker.`);
    this.unresolved.set(proxy, place);
    return null;
  }

  #encodeTensor(tensor: Tensor): WireValue {
    const { wire, block } = toWireTensor(tensor, this.#worker);
    if (block !== undefined) this.blocks.push(block);
    return wire;
  }
}

function hintFor(value: object): string {
  if (ArrayBuffer.isView(value)) return "; make a tensor of it with `worker.tensor`";
  if (value instanceof Kwargs) return "; `kwargs` must be the last argument";
  return "";
}

/** Encodes the arguments of a method as they are. */
export function parametersOf(
  args: readonly unknown[],
  kwargs: Readonly<Record<string, unknown>>,
): (encoder: Encoder) => { readonly args: readonly WireValue[]; readonly kwargs: WireMap } {
  return (encoder) => ({
    args: args.map((value, i) => encoder.encode(value, `args[${i}]`)),
    kwargs: encoder.encodeMap(kwargs, "kwargs"),
  });
}
