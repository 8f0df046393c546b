// The `python.*` methods in terms of places: read, call, iterate, fetch.

import type { TypedArray } from "../dtype.ts";
import { InvalidArgumentError } from "../errors.ts";
import { WireTensor } from "../protocol.ts";
import type { CallOptions } from "../session/deadline.ts";
import type { Connection } from "./connection.ts";
import { declared } from "./declared.ts";
import { describe } from "./options.ts";
import { leaseOf, type Place, placeName } from "./reference.ts";
import { toFloat32 } from "./tensor.ts";
import { type DataOptions, Kwargs, type Reply, type Value } from "./types.ts";

/** Reads the attribute at `place`. */
export function readPlace(connection: Connection, place: Place, options: CallOptions): Promise<unknown> {
  return connection.call("python.get", (encoder) => ({ args: [encoder.encodeRoot(place), place.path] }), options);
}

/** Calls the object at `place`; the last of `args` may be `Kwargs`. */
export function callPlace(
  connection: Connection,
  place: Place,
  args: readonly unknown[],
  options: CallOptions,
): Reply<unknown> {
  const last = args.at(-1);
  const positional = last instanceof Kwargs ? args.slice(0, -1) : args;
  const named = last instanceof Kwargs ? last.values : {};
  const result = connection.call(
    "python.call",
    (encoder) => ({
      args: [
        encoder.encodeRoot(place),
        place.path,
        positional.map((value, i) => encoder.encode(value, `args[${i}]`)),
        encoder.encodeMap(named, "kwargs"),
      ],
    }),
    options,
  );
  return Object.assign(result, {
    [Symbol.asyncIterator]: () => iterateResult(connection, place, result, options),
  });
}

/** Iterates the object at `place`, which must be iterable in Python. */
export function iteratePlace(
  connection: Connection,
  place: Place,
  options: CallOptions,
): AsyncGenerator<Value, undefined, undefined> {
  return connection.stream<Value, undefined>(
    "python.iterate",
    (encoder) => ({ args: [encoder.encodeRoot(place), place.path, null, {}] }),
    options,
    (item) => declared<Value>(connection.decode(item)),
    (result) => {
      connection.session.discard(result); // what a generator returns; `for await` has no place for it
      return undefined;
    },
  );
}

// The result is ours alone: whoever iterates a call never sees the handle in between.
async function* iterateResult(
  connection: Connection,
  place: Place,
  result: Promise<unknown>,
  options: CallOptions,
): AsyncGenerator<Value, void, undefined> {
  const value = await result;
  const lease = leaseOf(value);
  if (lease === undefined) {
    throw new InvalidArgumentError(
      `${placeName(place)} must return an iterable to be iterated, got ${describe(value)}.`,
    );
  }
  try {
    yield* iteratePlace(connection, { worker: connection, root: lease, path: [] }, options);
  } finally {
    lease.dispose();
  }
}

/** The value at `place` itself, as `Handle.data` promises it. */
export async function fetchPlace(connection: Connection, place: Place, options: DataOptions): Promise<unknown> {
  const { as, copy = false, ...rest } = options;
  const wire = await connection.callWire(
    "python.value",
    (encoder) => ({ args: [encoder.encodeRoot(place), place.path] }),
    rest,
  );
  if (!(wire instanceof WireTensor)) {
    if (as === undefined) return connection.decode(wire);
    connection.session.discard(wire);
    throw new InvalidArgumentError(`\`as\` converts tensors only, and ${placeName(place)} is none.`);
  }
  const tensor = connection.receiveTensor(wire);
  if (as === undefined && !copy) return tensor.data; // its memory lives as long as this view
  try {
    const data: TypedArray = tensor.data;
    return as === "float32" ? toFloat32(tensor.dtype, data) : data.slice();
  } finally {
    tensor.dispose();
  }
}
