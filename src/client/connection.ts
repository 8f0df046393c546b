// What proxies, tensors and models of one worker share: calls in terms of the program's values, the arena, and scopes.
// Knows no process and no socket.

import { AsyncLocalStorage } from "node:async_hooks";
import type { Arena } from "../arena/arena.ts";
import type { DType } from "../dtype.ts";
import { ProtocolError } from "../errors.ts";
import { WireHandle, type WireMap, WireTensor, type WireValue } from "../protocol.ts";
import type { CallOptions } from "../session/deadline.ts";
import type { MethodOptions, Session, StreamArguments } from "../session/session.ts";
import { byteLength, typedView } from "../tensor.ts";
import { Encoder } from "./encoder.ts";
import { HandleLease } from "./handle-lease.ts";
import { type Member, Scope } from "./scope.ts";
import { Tensor } from "./tensor.ts";
import { ValueStream } from "./value-stream.ts";

/** Arguments of a method of the worker. */
export interface Parameters {
  readonly args: readonly WireValue[];
  readonly kwargs?: WireMap;
}

/** Builds the arguments with an encoder; called again once the names among them are resolved. */
export type Build = (encoder: Encoder) => Parameters;

/** Calls of one worker in terms of the program's values. */
export class Connection {
  readonly session: Session;
  /** The arena shared with the worker; without one, tensors travel as frames. */
  readonly arena: Arena | undefined;
  readonly #toHandle: (connection: Connection, lease: HandleLease) => object;
  readonly #scopes = new AsyncLocalStorage<Scope>();

  /** `toHandle` makes what the program sees of a handle. */
  constructor(
    session: Session,
    arena: Arena | undefined,
    toHandle: (connection: Connection, lease: HandleLease) => object,
  ) {
    this.session = session;
    this.arena = arena;
    this.#toHandle = toHandle;
  }

  /** Calls a method and resolves with its result as a value of the program. */
  async call(method: string, build: Build, options: MethodOptions = {}): Promise<unknown> {
    return this.decode(await this.callWire(method, build, options));
  }

  /** Calls a method and resolves with its result as it came; handles and blocks in it belong to the caller. */
  async callWire(method: string, build: Build, options: MethodOptions = {}): Promise<WireValue> {
    const encoder = this.#encoder();
    const parameters = build(encoder);
    if (encoder.unresolved.size === 0) return this.#send(method, parameters, encoder, options);
    const resolved = await this.#resolve(encoder, options);
    try {
      const second = this.#encoder(resolved);
      return await this.#send(method, build(second), second, options);
    } finally {
      for (const value of resolved.values()) this.session.discard(value);
    }
  }

  /**
   * Calls a streaming method, at the first `next()`. Handles and tensors in an item belong to the program.
   * A module or attribute that was not awaited is refused as an argument: a stream has no round trip to resolve it in.
   */
  stream<T, R>(
    method: string,
    build: Build,
    options: CallOptions,
    toItem: (value: WireValue) => T,
    toResult: (value: WireValue) => R,
  ): ValueStream<T, R> {
    const describe = (): StreamArguments => {
      const encoder = this.#encoder();
      const { args, kwargs = {} } = build(encoder);
      encoder.refuseUnresolved();
      return { args, kwargs, onSend: () => addReferences(encoder) };
    };
    return new ValueStream(this.session.stream(method, describe, options), toItem, toResult);
  }

  /** A wire value as a value of the program; what it holds joins the scope of the caller. */
  decode(value: WireValue): unknown {
    if (value instanceof WireHandle) return this.#toHandle(this, this.own(this.lease(value)));
    if (value instanceof WireTensor) return this.own(this.receiveTensor(value));
    if (Array.isArray(value)) return value.map((item) => this.decode(item));
    if (value instanceof Uint8Array || typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, this.decode(inner)]));
  }

  /** Ownership of a handle that came from the worker. Outside of any scope. */
  lease(handle: WireHandle): HandleLease {
    const { session } = this;
    return new HandleLease(handle, (id) => session.releaseHandle(id));
  }

  /** A tensor over the memory that the worker named, without a copy. Outside of any scope. */
  receiveTensor({ dtype, shape, storage }: WireTensor): Tensor {
    if (storage.kind === "frame") {
      const view = typedView(dtype, storage.bytes);
      const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
      return new Tensor(dtype, shape, { kind: "plain", bytes });
    }
    const { arena, session } = this;
    if (arena === undefined) throw new ProtocolError("The worker sent a tensor in shared memory, but there is none.");
    const { block: id, generation, offset, bytes: size } = storage;
    if (storage.owner === "client") {
      const block = arena.lookup(id, generation);
      if (size > block.bytes) throw new ProtocolError(`The worker named ${size} bytes of a block of ${block.bytes}.`);
      const bytes = new Uint8Array(arena.view(block.offset, block.bytes), 0, size);
      return new Tensor(dtype, shape, { kind: "client", bytes, block, worker: this, release: block.hold() });
    }
    arena.checkWorkerRange(offset, size);
    const bytes = new Uint8Array(arena.view(offset, size));
    const release = (): void => session.releaseBlock(id, generation);
    return new Tensor(dtype, shape, { kind: "worker", bytes, storage, worker: this, release });
  }

  /** A tensor in new memory with undefined contents: shared with the worker if there is an arena. Throws ArenaFullError. */
  newTensor<D extends DType>(dtype: D, shape: readonly number[]): Tensor<D> {
    const size = byteLength(dtype, shape);
    if (this.arena === undefined || size === 0) {
      return this.own(new Tensor(dtype, shape, { kind: "plain", bytes: new Uint8Array(size) }));
    }
    const block = this.arena.allocate(size);
    const bytes = new Uint8Array(this.arena.view(block.offset, size));
    return this.own(
      new Tensor(dtype, shape, { kind: "client", bytes, block, worker: this, release: () => block.drop() }),
    );
  }

  /** Adds `member` to the scope of the caller, if there is one, and returns it. */
  own<T extends Member>(member: T): T {
    this.#scopes.getStore()?.add(member);
    return member;
  }

  /** Runs `body` in a scope of its own, which is disposed when `body` ends, well or badly. */
  async runScope<T>(body: (scope: Scope) => Promise<T>): Promise<T> {
    const scope = new Scope(this.#scopes.getStore());
    try {
      return await this.#scopes.run(scope, body, scope);
    } finally {
      await scope.dispose();
    }
  }

  #encoder(resolved?: ReadonlyMap<unknown, WireValue>): Encoder {
    return new Encoder(this, this.session.welcome.limits, resolved);
  }

  #send(method: string, parameters: Parameters, encoder: Encoder, options: MethodOptions): Promise<WireValue> {
    const { args, kwargs = {} } = parameters;
    return this.session.call(method, args, kwargs, { ...options, onSend: () => addReferences(encoder) });
  }

  /** Asks the worker for the values of the names among the arguments, all at the same time. */
  async #resolve(encoder: Encoder, { signal, timeout }: MethodOptions): Promise<Map<unknown, WireValue>> {
    const names = [...encoder.unresolved];
    const gets = names.map(([, place]) =>
      this.session.call("python.get", [encoder.encodeRoot(place), place.path], {}, { signal, timeout }),
    );
    const resolved = new Map<unknown, WireValue>();
    const outcomes = await Promise.allSettled(gets);
    for (const [i, outcome] of outcomes.entries()) {
      if (outcome.status === "fulfilled") resolved.set(names[i]?.[0], outcome.value);
    }
    const failure = outcomes.find((outcome) => outcome.status === "rejected");
    if (failure === undefined) return resolved;
    for (const value of resolved.values()) this.session.discard(value);
    throw failure.reason;
  }
}

function addReferences(encoder: Encoder): void {
  for (const block of encoder.blocks) block.addForeignReference();
}
