// Proxies for modules, attributes and handles. Reading a property only builds a path; a call, an await, an iteration or
// `data` asks the worker. Only attributes are thenable: an awaited handle stays a handle.

import { InvalidArgumentError } from "../errors.ts";
import type { CallOptions } from "../session/deadline.ts";
import type { Connection } from "./connection.ts";
import type { HandleLease } from "./handle-lease.ts";
import { showAs } from "./inspect.ts";
import { callRules, checkArgument, checkOptions, describe, flag, type Rules, text } from "./options.ts";
import { callPlace, fetchPlace, iteratePlace, readPlace } from "./python.ts";
import { bindPlace, leaseOf, type Place, placeName } from "./reference.ts";
import type { DataOptions, Handle, HandleInfo } from "./types.ts";

const dataRules: Rules = {
  ...callRules,
  as: { expected: '"float32"', accepts: (value) => value === "float32" },
  copy: flag,
};

/** A module by name; nothing is imported before it is used. */
export function createModule(connection: Connection, name: string): object {
  return createProxy({ connection, place: { worker: connection, root: name, path: [] }, options: {} });
}

/** What the program sees of a handle. */
export function createHandle(connection: Connection, lease: HandleLease): object {
  return createProxy({ connection, place: { worker: connection, root: lease, path: [] }, options: {} });
}

/** True if `value` is a handle: a value that stays in the worker. */
export function isHandle(value: unknown): value is Handle {
  return typeof value === "function" && leaseOf(value) !== undefined;
}

/**
 * What the worker said of a handle when it gave it: its Python type, and of a tensor its dtype, shape and device.
 * Asks nothing, and works after the handle's disposal too.
 */
export function handleInfo(handle: Handle): HandleInfo {
  const lease = leaseOf(handle);
  if (lease === undefined) throw new InvalidArgumentError(`\`handle\` must be a handle, got ${describe(handle)}.`);
  const { kind, type, meta } = lease.description;
  const { dtype, shape, device } = meta;
  return {
    kind,
    type,
    ...(typeof dtype === "string" ? { dtype } : {}),
    ...(Array.isArray(shape) ? { shape: shape.map(Number) } : {}),
    ...(typeof device === "string" ? { device } : {}),
  };
}

/** All that one proxy is. */
interface Subject {
  readonly connection: Connection;
  readonly place: Place;
  /** For every call made through it. */
  readonly options: CallOptions;
}

function createProxy(subject: Subject): object {
  const { connection, place, options } = subject;
  // An arrow function can be called, and has no `prototype` that a proxy would have to report.
  const target = (...args: readonly unknown[]) => callPlace(connection, place, args, options);
  showAs(target, () => placeName(place)); // `inspect` looks at the target, past the traps
  const refuse = (): never => {
    throw new InvalidArgumentError(
      `${placeName(place)} cannot be changed from here: use \`setattr\` and \`delattr\` of the module \`builtins\`.`,
    );
  };
  const proxy = new Proxy(target, {
    get: (_, key) => property(subject, key),
    set: refuse,
    deleteProperty: refuse,
    defineProperty: refuse,
  });
  bindPlace(proxy, place);
  return proxy;
}

function property(subject: Subject, key: string | symbol): unknown {
  const { connection, place, options } = subject;
  switch (key) {
    case "attr":
      return (name: string) => attribute(subject, name);
    case "with":
      return (more: CallOptions) => {
        checkOptions(more, callRules, "with");
        return createProxy({ connection, place, options: { ...options, ...more } });
      };
    case "toString":
    case "toJSON": // JSON.stringify would call the attribute of this name
    case Symbol.toPrimitive:
      return () => placeName(place);
    case Symbol.asyncIterator:
      return () => iteratePlace(connection, place, options);
  }
  if (place.path.length === 0) {
    if (key === "then") return undefined; // a module or a handle is resolved: `await` ends here
    const own = typeof place.root === "string" ? undefined : handleMethod(subject, place.root, key);
    if (own !== undefined) return own;
  } else if (key === "then") return thenOf(subject);
  return typeof key === "symbol" ? undefined : attribute(subject, key);
}

/** `then` of an attribute: reads its value. */
function thenOf({ connection, place, options }: Subject): PromiseLike<unknown>["then"] {
  return (onValue, onError) => readPlace(connection, place, options).then(onValue, onError);
}

function attribute({ connection, place, options }: Subject, name: string): object {
  checkArgument(name, text, "name");
  return createProxy({ connection, place: { ...place, path: [...place.path, name] }, options });
}

function handleMethod(subject: Subject, lease: HandleLease, key: string | symbol): unknown {
  switch (key) {
    case "data":
      return guarded("data", (options: DataOptions = {}) => data(subject, options));
    case "dispose":
      return guarded("dispose", () => lease.dispose());
    case Symbol.dispose:
      return () => lease.dispose();
    case Symbol.asyncDispose:
      return async () => lease.dispose();
    default:
      return undefined;
  }
}

async function data({ connection, place, options }: Subject, more: DataOptions): Promise<unknown> {
  checkOptions(more, dataRules, "data");
  return fetchPlace(connection, place, { ...options, ...more });
}

/** A method of ours whose name may hide a Python attribute: using it as that attribute says how to reach it. */
function guarded(name: string, method: (...args: never[]) => unknown): object {
  return new Proxy(method, {
    get(target, key) {
      if (typeof key === "symbol" || key in Function.prototype) return Reflect.get(target, key);
      throw new InvalidArgumentError(
        `\`${name}\` is a method of handles; the Python attribute of that name is \`attr("${name}")\`.`,
      );
    },
  });
}
