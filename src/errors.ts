// Every error of the package, with its stable code (docs/errors.md; the same codes as python/marlin/errors.py).
// Imports nothing: errors know neither the wire nor the worker.

/** The stable codes of `docs/errors.md`. */
export type ErrorCode =
  | "invalid_argument"
  | "unsupported"
  | "extension_missing"
  | "kernel_unavailable"
  | "checkpoint_not_found"
  | "checkpoint_invalid"
  | "checkpoint_unsafe"
  | "python_error"
  | "module_not_found"
  | "unknown_method"
  | "unknown_handle"
  | "handle_disposed"
  | "not_serializable"
  | "stale_tensor"
  | "arena_full"
  | "out_of_memory"
  | "cancelled"
  | "timeout"
  | "worker_start_failed"
  | "worker_died"
  | "connect_failed"
  | "connection_closed"
  | "bind_refused"
  | "version_mismatch"
  | "protocol_violation"
  | "message_too_large"
  | "too_many_calls"
  | "internal";

/** What an error may carry beside its message. */
export interface MarlinErrorOptions {
  /** The error or abort reason behind this one. */
  readonly cause?: unknown;
  /** Plain values for programs, for example the sizes of a full arena. */
  readonly details?: Readonly<Record<string, unknown>>;
  /** Qualified name of the Python exception, if Python raised it. */
  readonly pythonType?: string;
  /** Text of the Python traceback, if Python raised it. */
  readonly traceback?: string;
}

/** The error map of the wire (docs/protocol.md, *Calls*). */
export interface WireError {
  readonly code: string;
  readonly message: string;
  readonly type: string;
  readonly traceback: string;
  readonly details: Readonly<Record<string, unknown>>;
}

// Two copies of the package in one program do not share classes; they share this symbol.
const BRAND = Symbol.for("marlin-torch.error");

/**
 * Base of all errors of the package. Use it to tell them from others, and `code` to tell them apart.
 *
 * @example
 * try { await model.perplexity(text) } catch (error) {
 *   if (MarlinError.isInstance(error) && error.code === "arena_full") await retrySmaller();
 * }
 */
export class MarlinError extends Error {
  readonly code: ErrorCode = "internal";
  /** Plain values for programs; empty if there are none. */
  readonly details: Readonly<Record<string, unknown>>;
  /** Qualified name of the Python exception behind this error, else "". */
  readonly pythonType: string;
  /** Python traceback text, else "". */
  readonly traceback: string;

  constructor(message: string, options: MarlinErrorOptions = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.details = options.details ?? {};
    this.pythonType = options.pythonType ?? "";
    this.traceback = options.traceback ?? "";
  }

  /** True for errors of this class and of its subclasses, also from another copy of the package. */
  static isInstance<T extends MarlinError>(
    this: abstract new (
      message: string,
      options?: MarlinErrorOptions,
    ) => T,
    value: unknown,
  ): value is T {
    if (!(value instanceof Error) || !(BRAND in value)) return false;
    // biome-ignore lint/complexity/noThisInStatic: `this` is the class that is asked, not always MarlinError
    return [MarlinError.name, value.name].includes(this.name);
  }
}

Object.defineProperty(MarlinError.prototype, BRAND, { value: true });
// A getter on the prototype: the name shows in stack traces and is no own property of each error.
Object.defineProperty(MarlinError.prototype, "name", {
  get(this: MarlinError): string {
    return this.constructor.name;
  },
});

/** An argument has the wrong shape, dtype, device, range or type; the message names it. */
export class InvalidArgumentError extends MarlinError {
  override readonly code = "invalid_argument";
}

/** A correct request that this version or machine cannot serve. */
export class UnsupportedError extends MarlinError {
  override readonly code = "unsupported";
}

/** The compiled operators are not built, or do not load in this torch. */
export class ExtensionMissingError extends MarlinError {
  override readonly code = "extension_missing";
}

/** A kernel forced by a `MARLIN_*` variable does not exist on this machine. */
export class KernelUnavailableError extends MarlinError {
  override readonly code = "kernel_unavailable";
}

/** No such checkpoint file, folder or hub id. */
export class CheckpointNotFoundError extends MarlinError {
  override readonly code = "checkpoint_not_found";
}

/** A checkpoint is truncated or malformed, or its tensors do not fit. */
export class CheckpointInvalidError extends MarlinError {
  override readonly code = "checkpoint_invalid";
}

/** Only pickle weights exist; they are never loaded. */
export class CheckpointUnsafeError extends MarlinError {
  override readonly code = "checkpoint_unsafe";
}

/** Python code raised; `pythonType` and `traceback` say what and where. */
export class PythonError extends MarlinError {
  override readonly code = "python_error";
}

/** The worker's Python has no such module. */
export class ModuleNotFoundError extends MarlinError {
  override readonly code = "module_not_found";
}

/** The worker has no such method. */
export class UnknownMethodError extends MarlinError {
  override readonly code = "unknown_method";
}

/** The worker does not know the handle: it was released, or belongs to another worker. */
export class UnknownHandleError extends MarlinError {
  override readonly code = "unknown_handle";
}

/** A disposed handle, tensor or model was used. */
export class HandleDisposedError extends MarlinError {
  override readonly code = "handle_disposed";
}

/** A value cannot travel; the message names its place. */
export class NotSerializableError extends MarlinError {
  override readonly code = "not_serializable";
}

/** A tensor came back whose memory was freed. */
export class StaleTensorError extends MarlinError {
  override readonly code = "stale_tensor";
}

/** The shared memory has no room; `details` has `requested`, `largest_free` and `partition`. */
export class ArenaFullError extends MarlinError {
  override readonly code = "arena_full";
}

/** The worker could not allocate memory. */
export class OutOfMemoryError extends MarlinError {
  override readonly code = "out_of_memory";
}

/** An `AbortSignal` fired; its reason is `cause`. */
export class CancelledError extends MarlinError {
  override readonly code = "cancelled";
}

/** The `timeout` of a call passed. */
export class TimeoutError extends MarlinError {
  override readonly code = "timeout";
}

/** How a worker process ended, and the last it said. */
export interface WorkerExitOptions extends MarlinErrorOptions {
  /** Exit code, or null if a signal ended the process or it never ran. */
  readonly exitCode?: number | null;
  /** Name of the signal that ended the process, or null. */
  readonly signal?: string | null;
  /** The end of the worker's stderr, at most 64 KiB. */
  readonly stderr?: string;
}

/** What is known of a worker process that ended. */
abstract class WorkerExitError extends MarlinError {
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly stderr: string;

  constructor(message: string, options: WorkerExitOptions = {}) {
    super(message, options);
    this.exitCode = options.exitCode ?? null;
    this.signal = options.signal ?? null;
    this.stderr = options.stderr ?? "";
  }
}

/** The worker exited or said nothing before it was ready; the end of its stderr is in the message. */
export class WorkerStartError extends WorkerExitError {
  override readonly code = "worker_start_failed";
}

/** The worker process ended with calls in flight; they may have run. */
export class WorkerDiedError extends WorkerExitError {
  override readonly code = "worker_died";
}

/** Nobody answered at the endpoint in time. */
export class ConnectError extends MarlinError {
  override readonly code = "connect_failed";
}

/** The worker or client was closed, or the peer went away. */
export class ConnectionClosedError extends MarlinError {
  override readonly code = "connection_closed";
}

/** A worker was asked to listen beyond this machine without authentication. */
export class BindRefusedError extends MarlinError {
  override readonly code = "bind_refused";
}

/** The protocol's major versions of client and worker differ. */
export class VersionMismatchError extends MarlinError {
  override readonly code = "version_mismatch";
}

/** A malformed message. */
export class ProtocolError extends MarlinError {
  override readonly code = "protocol_violation";
}

/** A message exceeds a limit of the protocol. */
export class MessageTooLargeError extends MarlinError {
  override readonly code = "message_too_large";
}

/** More calls in flight than the worker's limit. */
export class TooManyCallsError extends MarlinError {
  override readonly code = "too_many_calls";
}

/** An invariant broke; please report it. */
export class InternalError extends MarlinError {
  override readonly code = "internal";
}

type ErrorConstructor = new (message: string, options?: MarlinErrorOptions) => MarlinError;

const CLASSES: Readonly<Record<ErrorCode, ErrorConstructor>> = {
  invalid_argument: InvalidArgumentError,
  unsupported: UnsupportedError,
  extension_missing: ExtensionMissingError,
  kernel_unavailable: KernelUnavailableError,
  checkpoint_not_found: CheckpointNotFoundError,
  checkpoint_invalid: CheckpointInvalidError,
  checkpoint_unsafe: CheckpointUnsafeError,
  python_error: PythonError,
  module_not_found: ModuleNotFoundError,
  unknown_method: UnknownMethodError,
  unknown_handle: UnknownHandleError,
  handle_disposed: HandleDisposedError,
  not_serializable: NotSerializableError,
  stale_tensor: StaleTensorError,
  arena_full: ArenaFullError,
  out_of_memory: OutOfMemoryError,
  cancelled: CancelledError,
  timeout: TimeoutError,
  worker_start_failed: WorkerStartError,
  worker_died: WorkerDiedError,
  connect_failed: ConnectError,
  connection_closed: ConnectionClosedError,
  bind_refused: BindRefusedError,
  version_mismatch: VersionMismatchError,
  protocol_violation: ProtocolError,
  message_too_large: MessageTooLargeError,
  too_many_calls: TooManyCallsError,
  internal: InternalError,
};

/** True if `code` is one of the stable codes of this version. */
export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(CLASSES, code);
}

/** The error that a wire error map stands for; a code of a newer worker becomes `InternalError` with `details.code`. */
export function errorFromWire(error: WireError): MarlinError {
  const options = { details: error.details, pythonType: error.type, traceback: error.traceback };
  if (isErrorCode(error.code)) return new CLASSES[error.code](error.message, options);
  return new InternalError(error.message, { ...options, details: { ...error.details, code: error.code } });
}
