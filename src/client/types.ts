// The types of what stands for Python in a program: modules, attributes, handles. No values but the `kwargs` marker.

import type { DType, TypedArray } from "../dtype.ts";
import type { CallOptions } from "../session/deadline.ts";
import type { Tensor } from "./tensor.ts";

/** Values that travel by value, in both directions. Integers beyond 2^53 are bigint. */
export type Scalar = null | boolean | number | bigint | string | Uint8Array;

/** What a Python call or attribute gives when no type says more: a scalar by value, everything else as a handle. */
export type Value = Scalar | Handle;

/**
 * What a Python call takes. A safe integer arrives as an int (`builtins.float` makes a float of it), every other number,
 * minus zero too, as a float; beyond 2^53 a bigint is exact, up to 64 bits. A plain object arrives as a dict, a tensor and a handle as the thing itself. Attributes and modules (`torch.float16`) are read in the
 * worker first, at the cost of one round trip for all of them: meanwhile, calls made later may overtake this one.
 */
export type Argument =
  | Scalar
  | Tensor
  | Reference
  | Kwargs
  | readonly Argument[]
  | { readonly [key: string]: Argument | undefined };

/** The keyword arguments of a Python call; made by `kwargs`. */
export class Kwargs {
  readonly values: Readonly<Record<string, Argument | undefined>>;

  constructor(values: Readonly<Record<string, Argument | undefined>>) {
    this.values = values;
  }
}

/**
 * Marks the keyword arguments of a Python call; they come last. Undefined values are left out.
 *
 * @example
 * await F.gelu(x, kwargs({ approximate: "tanh" }));
 */
export function kwargs(values: Readonly<Record<string, Argument | undefined>>): Kwargs {
  return new Kwargs(values);
}

/** What modules, attributes and handles have in common. */
export interface Reference {
  /** The attribute of this name, also where the name is one of our own methods (`attr("data")`). */
  attr<T = Value>(name: string): Attribute<T>;
  /**
   * The same thing, with a signal or timeout for every call made through it. (`with` is a word that no Python attribute
   * can have as its name.)
   */
  with(options: CallOptions): this;
  /** What this stands for, without asking the worker. */
  toString(): string;
}

/** A call under way: a promise of its result; iterating it iterates the result and disposes it at the end. */
export type Reply<T> = Promise<T> & AsyncIterable<Value>;

/**
 * A Python callable. Without further types a result is taken for a handle; say what else it is where you know.
 *
 * @example
 * const y = await F.gelu(x);
 * const root = await math.sqrt<number>(2);
 */
export type Callable = <T = Handle>(...args: readonly Argument[]) => Reply<T>;

/**
 * A Python attribute that was named but not read yet: call it, await its value, iterate it, or go on with its attributes.
 * Only a call, an await or an iteration asks the worker, each in one round trip.
 */
export type Attribute<T = Value> = Callable & PromiseLike<T> & AsyncIterable<Value> & Reference & Untyped;

/** Attributes by name. Under `noUncheckedIndexedAccess`, name the ones you use: `Untyped<"sqrt" | "pi">`. */
export type Untyped<Names extends string = string> = { readonly [Name in Names]: Attribute };

/** How `data` gives the elements of a tensor. */
export interface DataOptions extends CallOptions {
  /** Convert float16 and bfloat16 to float32 values, in memory of this program. */
  readonly as?: "float32" | undefined;
  /** Copy the elements to memory of this program, so that the shared memory is free at once. Default: false. */
  readonly copy?: boolean | undefined;
}

/** What a handle can do beside its Python attributes. */
export interface HandleMethods extends Reference, AsyncIterable<Value> {
  /**
   * The value itself. A tensor gives a typed array: on a local worker a view of shared memory, without a copy, which lives
   * as long as the array does; float16 and bfloat16 are raw bits in a Uint16Array unless `as` says otherwise.
   * Everything else becomes plain JavaScript, with `Tensor`s where tensors and arrays lie inside.
   *
   * @throws NotSerializableError if the value, or one inside it, has no JavaScript form.
   */
  data(options: DataOptions & { readonly as: "float32" }): Promise<Float32Array>;
  data<T = TypedArray>(options?: DataOptions): Promise<T>;
  /** Gives the value back to the worker; further use throws HandleDisposedError. May be called again. */
  dispose(): void;
  [Symbol.dispose](): void;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * A value that stays in the worker until `data` asks for it. Its Python attributes are read through it (`y.shape`), and
 * it is called if Python can call it. It is freed by `dispose`, at the end of its scope, or some time after it is no
 * longer reachable.
 */
export type Handle = HandleMethods & Callable & Untyped<TensorNames> & Untyped;

/** Tensor attributes that strict programs reach without `attr`. */
type TensorNames =
  | "abs"
  | "add"
  | "argmax"
  | "cpu"
  | "device"
  | "dtype"
  | "float"
  | "grad"
  | "item"
  | "mean"
  | "ndim"
  | "reshape"
  | "shape"
  | "size"
  | "sum"
  | "tolist"
  | "transpose"
  | "view";

/** What the worker said of a handle when it gave it. */
export interface HandleInfo {
  readonly kind: "module" | "callable" | "tensor" | "iterator" | "model" | "object";
  /** Qualified Python type, for example `torch.Tensor`. */
  readonly type: string;
  /** Of a tensor; the name of its torch dtype, which need not be one that travels. */
  readonly dtype?: DType | string;
  /** Of a tensor. */
  readonly shape?: readonly number[];
  /** Of a tensor, for example `cpu` or `cuda:0`. */
  readonly device?: string;
}

/**
 * A module (or any Python object) as its TypeScript interface `M` describes it: functions return promises of their
 * results, anything else can be awaited.
 */
export type Remote<M> = Reference & { readonly [Name in keyof M]: RemoteMember<M[Name]> };

type RemoteMember<T> = T extends Reference & PromiseLike<unknown>
  ? T
  : T extends (...args: infer A) => infer R
    ? ((...args: A | [...Argument[], Kwargs]) => Reply<Awaited<R>>) & Reference
    : Attribute<T>;

/**
 * Modules whose attributes are known by name, for `worker.module`. Extend it with your own:
 *
 * @example
 * declare module "marlin-torch" {
 *   interface PythonModules { "my.module": { tokens(text: string): number } }
 * }
 */
export interface PythonModules {
  math: Untyped<"ceil" | "cos" | "e" | "exp" | "floor" | "inf" | "log" | "nan" | "pi" | "sin" | "sqrt" | "tau"> &
    Untyped;
  torch: Untyped<TorchNames> & Untyped;
  "torch.nn.functional": Untyped<FunctionalNames> & Untyped;
}

type TorchNames =
  | "arange"
  | "bfloat16"
  | "cat"
  | "empty"
  | "eye"
  | "float16"
  | "float32"
  | "float64"
  | "full"
  | "int32"
  | "int64"
  | "manual_seed"
  | "matmul"
  | "nn"
  | "ones"
  | "rand"
  | "randn"
  | "stack"
  | "tensor"
  | "zeros";

type FunctionalNames =
  | "cross_entropy"
  | "embedding"
  | "gelu"
  | "layer_norm"
  | "linear"
  | "log_softmax"
  | "relu"
  | "rms_norm"
  | "scaled_dot_product_attention"
  | "sigmoid"
  | "silu"
  | "softmax"
  | "tanh";

/** The type of `worker.module(name)`: of a known name its own, of any other the attributes are untyped. */
export type ModuleOf<Name extends string> = Reference &
  (Name extends keyof PythonModules ? RemoteOrUntyped<PythonModules[Name]> : Untyped);

type RemoteOrUntyped<M> = M extends Untyped<string> ? M : Remote<M>;
