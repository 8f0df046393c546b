// `Worker`: a long-lived Python process, and everything that starts from it. Puts together what link.ts connects.

import type { ArenaStats } from "../arena/arena.ts";
import type { DType } from "../dtype.ts";
import { InvalidArgumentError } from "../errors.ts";
import type { WireValue } from "../protocol.ts";
import type { CallOptions } from "../session/deadline.ts";
import type { Pong } from "../session/session.ts";
import { byteLength, elementCount } from "../tensor.ts";
import type { Connection } from "./connection.ts";
import { declared } from "./declared.ts";
import { parametersOf } from "./encoder.ts";
import { checkData, fill, naturalDType, type TensorData } from "./fill.ts";
import { showAs } from "./inspect.ts";
import { membersIn } from "./keep.ts";
import {
  type ConnectOptions,
  connectLink,
  type Link,
  type SpawnOptions,
  spawnLink,
  type WorkerEvents,
} from "./link.ts";
import { type LoadOptions, loadModel, type Model } from "./model.ts";
import { fromFields } from "./naming.ts";
import {
  callback,
  callRules,
  checkArgument,
  checkOptions,
  dtype as dtypeRule,
  milliseconds,
  shape as shapeRule,
  text,
} from "./options.ts";
import { createModule } from "./proxy.ts";
import type { Tensor } from "./tensor.ts";
import type { Argument, Handle, ModuleOf, Remote } from "./types.ts";

/** Who answers: the worker process and its libraries. */
export interface WorkerInfo {
  readonly pid: number;
  /** Version of its Python. */
  readonly python: string;
  /** Version of its torch. */
  readonly torch: string;
  /** Version of its `marlin`. */
  readonly marlin: string;
  readonly platform: string;
  /** Random, different for every worker process. */
  readonly incarnation: string;
  /** Bytes of the shared memory; 0 without one. */
  readonly arenaBytes: number;
}

/** What the worker holds for this client, and what of the shared memory is in use. */
export interface WorkerStats {
  readonly handles: number;
  /** Blocks of the worker's partition that are in use. */
  readonly blocks: number;
  readonly queued: number;
  readonly streams: number;
  readonly rssBytes: number;
  /** This side's partition; null without shared memory. */
  readonly arena: ArenaStats | null;
}

/** What the body of `worker.scope` is given. */
export interface ScopeControl {
  /** Keeps the handles, tensors and models in `value` beyond the scope, and returns it. */
  keep<T>(value: T): T;
}

/** The dtype of a tensor made from `Data`. */
export type DTypeOf<Data extends TensorData> = Data extends readonly number[]
  ? "float32"
  : Data extends Float32Array
    ? "float32"
    : Data extends Float64Array
      ? "float64"
      : Data extends Int8Array
        ? "int8"
        : Data extends Uint8Array
          ? "uint8"
          : Data extends Int16Array
            ? "int16"
            : Data extends Int32Array
              ? "int32"
              : Data extends BigInt64Array
                ? "int64"
                : DType;

/** Milliseconds that `close` gives the worker to end by itself. */
const DEFAULT_GRACE = 5000;

/**
 * A Python worker. Spawn one for this machine, or connect to one that is running; end it with `await using` or `close`.
 * A program that has nothing left to do exits, and its worker with it.
 *
 * @example
 * await using worker = await Worker.spawn();
 * const F = worker.module("torch.nn.functional");
 * const y = await F.gelu(worker.tensor(new Float32Array([1, 2, 3])));
 * console.log(await y.data());
 */
export class Worker {
  readonly #link: Link;
  readonly #connection: Connection;

  private constructor(link: Link) {
    this.#link = link;
    this.#connection = link.connection;
  }

  /**
   * Starts a worker process on this machine, which shares memory with this one.
   *
   * @throws WorkerStartError if it does not come up in time; CancelledError.
   */
  static async spawn(options: SpawnOptions = {}): Promise<Worker> {
    return new Worker(await spawnLink(options));
  }

  /**
   * Connects to a worker that is running. There is no shared memory: tensors travel as bytes, everything else is the same.
   *
   * @throws ConnectError if nobody answers in time; InvalidArgumentError for an impossible endpoint;
   *   VersionMismatchError; CancelledError.
   */
  static async connect(endpoint: string, options: ConnectOptions = {}): Promise<Worker> {
    return new Worker(await connectLink(endpoint, options));
  }

  /** What the worker said of itself when it was ready. */
  get info(): WorkerInfo {
    const { worker, incarnation, arena } = this.#connection.session.welcome;
    const { pid, python, torch, marlin, platform } = worker;
    return { pid, python, torch, marlin, platform, incarnation, arenaBytes: arena?.bytes ?? 0 };
  }

  /**
   * A Python module by its dotted name. Nothing is asked of the worker before the module is used; a module that does not
   * exist rejects then, with ModuleNotFoundError.
   *
   * @example
   * const math = worker.module("math");
   * await math.sqrt<number>(2);
   * const mine = worker.module<{ tokens(text: string): number }>("my.module"); // typed
   */
  module<Name extends string>(name: Name): ModuleOf<Name>;
  module<M extends object>(name: string): Remote<M>;
  module(name: string): unknown {
    checkArgument(name, text, "name");
    return declared(createModule(this.#connection, name));
  }

  /**
   * A tensor with a copy of `data`, in memory that the worker shares. Float values convert to `dtype` float16 and bfloat16,
   * rounded to nearest even.
   *
   * @param shape - Default: one dimension.
   * @throws ArenaFullError if the shared memory has no room. Memory that the worker gives back arrives with its next
   *   answer: after an `await worker.ping()` there may be room again.
   *
   * @example
   * const x = worker.tensor(new Float32Array(16 * 4096), [16, 4096], { dtype: "bfloat16" });
   */
  tensor<D extends DType>(
    data: TensorData,
    shape: readonly number[] | undefined,
    options: { readonly dtype: D },
  ): Tensor<D>;
  tensor<Data extends TensorData>(
    data: Data,
    shape?: readonly number[],
    options?: { readonly dtype?: undefined },
  ): Tensor<DTypeOf<Data>>;
  tensor(
    data: TensorData,
    shape?: readonly number[],
    options: { readonly dtype?: DType | undefined } = {},
  ): Tensor<never> {
    checkData(data);
    if (shape !== undefined) checkArgument(shape, shapeRule, "shape");
    checkOptions(options, { dtype: dtypeRule }, "worker.tensor");
    const dtype = options.dtype ?? naturalDType(data);
    const sizes = shape ?? [data.length];
    const expected = elementCount(sizes);
    if (data.length !== expected) {
      throw new InvalidArgumentError(
        `\`data\` must have ${expected} elements for \`shape\` [${sizes.join(", ")}], got ${data.length}.`,
      );
    }
    const tensor = this.#connection.newTensor(dtype, sizes);
    try {
      fill(dtype, tensor.data, data);
    } catch (error) {
      tensor.dispose();
      throw error;
    }
    return declared(tensor);
  }

  /**
   * An uninitialised tensor in the worker's own memory, for Python to write into; `data()` of the handle is a view of it.
   *
   * @throws ArenaFullError if the worker's partition has no room.
   */
  async empty(dtype: DType, shape: readonly number[], options: CallOptions = {}): Promise<Handle> {
    checkArgument(dtype, dtypeRule, "dtype");
    checkArgument(shape, shapeRule, "shape");
    checkOptions(options, callRules, "worker.empty");
    byteLength(dtype, shape);
    return declared<Handle>(await this.#connection.call("tensor.empty", () => ({ args: [dtype, shape] }), options));
  }

  /**
   * Loads a language model of transformers from a folder or hub id; safetensors only.
   *
   * @throws CheckpointNotFoundError, CheckpointInvalidError, CheckpointUnsafeError, UnsupportedError.
   */
  load(path: string, options: LoadOptions = {}): Promise<Model> {
    return loadModel(this.#connection, path, options);
  }

  /** Calls a method of the worker by its name in docs/protocol.md; for what has no method of its own here. */
  async call<T = unknown>(
    method: string,
    args: readonly Argument[] = [],
    kwargs: Readonly<Record<string, Argument | undefined>> = {},
    options: CallOptions = {},
  ): Promise<T> {
    checkArgument(method, text, "method");
    checkOptions(options, callRules, "worker.call");
    return declared<T>(await this.#connection.call(method, parametersOf(args, kwargs), options));
  }

  /** Calls a streaming method of the worker by its name in docs/protocol.md. */
  stream<T = unknown, R = unknown>(
    method: string,
    args: readonly Argument[] = [],
    kwargs: Readonly<Record<string, Argument | undefined>> = {},
    options: CallOptions = {},
  ): AsyncGenerator<T, R | undefined, undefined> {
    checkArgument(method, text, "method");
    checkOptions(options, callRules, "worker.stream");
    const decode = (value: WireValue): unknown => this.#connection.decode(value);
    return this.#connection.stream<T, R>(
      method,
      parametersOf(args, kwargs),
      options,
      (item) => declared<T>(decode(item)),
      (result) => declared<R>(decode(result)),
    );
  }

  /**
   * Runs `body`; the handles, tensors and models made in it are freed when it ends, except those in what it returns and
   * those it keeps. Arrays from `data()` stay valid. Scopes nest, and do not mix with what runs beside them.
   *
   * @example
   * const mean = await worker.scope(async () => {
   *   const y = await F.gelu(x);
   *   return await (await y.mean()).item<number>();
   * });
   */
  async scope<T>(body: (scope: ScopeControl) => Promise<T>): Promise<T> {
    checkArgument(body, callback, "body");
    return this.#connection.runScope(async (scope) => {
      const keep = <V>(value: V): V => {
        for (const member of membersIn(value)) scope.keep(member);
        return value;
      };
      return keep(await body({ keep }));
    });
  }

  /** Asks whether the worker is there, and busy; it answers also while Python computes. */
  async ping(options: CallOptions = {}): Promise<Pong> {
    checkOptions(options, callRules, "worker.ping");
    return this.#connection.session.ping(options);
  }

  /** What the worker holds for this client. */
  async stats(options: CallOptions = {}): Promise<WorkerStats> {
    checkOptions(options, callRules, "worker.stats");
    const stats = await this.#connection.callWire("worker.stats", () => ({ args: [] }), options);
    const arena = this.#connection.arena?.stats() ?? null;
    return { ...declared<Omit<WorkerStats, "arena">>(fromFields(stats)), arena };
  }

  /**
   * Listens to an event of the worker process; returns what takes the listener away. A worker that was connected to has
   * no events.
   *
   * @example
   * worker.on("log", ({ stream, text }) => console.error(`[${stream}] ${text}`));
   */
  on<Name extends keyof WorkerEvents>(event: Name, listener: (event: WorkerEvents[Name]) => void): () => void {
    checkArgument(
      event,
      { expected: '"log" or "exit"', accepts: (name) => name === "log" || name === "exit" },
      "event",
    );
    checkArgument(listener, callback, "listener");
    return this.#link.on(event, listener);
  }

  /**
   * Ends the connection, and a spawned worker with it: what is in flight rejects with ConnectionClosedError. The worker has
   * `grace` milliseconds to end by itself, then it is killed. May be called again.
   */
  async close(options: { readonly grace?: number | undefined } = {}): Promise<void> {
    checkOptions(options, { grace: milliseconds }, "worker.close");
    await this.#link.close(options.grace ?? DEFAULT_GRACE);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  toString(): string {
    const { pid, torch } = this.info;
    return `Worker(pid ${pid}, torch ${torch}${this.#connection.session.isEnded ? ", closed" : ""})`;
  }
}

showAs(Worker.prototype, Worker.prototype.toString);
