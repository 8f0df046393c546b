// The public surface of marlin-torch: re-exports, each documented where it is declared. Nothing runs on import.

// Workers
export type { ArenaStats } from "./arena/arena.ts";
// Tensors
export type { TensorData } from "./client/fill.ts";
// Models
export type { Chunk, FinishReason, GenerationSummary } from "./client/generation.ts";
export { Generation } from "./client/generation.ts";
export type { ConnectOptions, SpawnOptions, WorkerEvents } from "./client/link.ts";
export type {
  Activation,
  GenerateOptions,
  LoadOptions,
  LongCallOptions,
  ModelInfo,
  PerplexityOptions,
  PerplexityReport,
  Progress,
  QuantizationInfo,
  QuantizedLayer,
  QuantizeOptions,
  QuantizeReport,
  SaveOptions,
} from "./client/model.ts";
export { Model } from "./client/model.ts";

// Python from TypeScript
export { handleInfo, isHandle } from "./client/proxy.ts";
export { Tensor } from "./client/tensor.ts";
export type {
  Argument,
  Attribute,
  Callable,
  DataOptions,
  Handle,
  HandleInfo,
  HandleMethods,
  ModuleOf,
  PythonModules,
  Reference,
  Remote,
  Reply,
  Scalar,
  Untyped,
  Value,
} from "./client/types.ts";
export { Kwargs, kwargs } from "./client/types.ts";
export type { DTypeOf, ScopeControl, WorkerInfo, WorkerStats } from "./client/worker.ts";
export { Worker } from "./client/worker.ts";
export type { DType, TypedArray, TypedArrayOf } from "./dtype.ts";
export { bfloat16ToFloat32, DTYPES, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "./dtype.ts";
// Errors (docs/errors.md)
export type { ErrorCode, MarlinErrorOptions, WorkerExitOptions } from "./errors.ts";
export {
  ArenaFullError,
  BindRefusedError,
  CancelledError,
  CheckpointInvalidError,
  CheckpointNotFoundError,
  CheckpointUnsafeError,
  ConnectError,
  ConnectionClosedError,
  ExtensionMissingError,
  HandleDisposedError,
  InternalError,
  InvalidArgumentError,
  KernelUnavailableError,
  MarlinError,
  MessageTooLargeError,
  ModuleNotFoundError,
  NotSerializableError,
  OutOfMemoryError,
  ProtocolError,
  PythonError,
  StaleTensorError,
  TimeoutError,
  TooManyCallsError,
  UnknownHandleError,
  UnknownMethodError,
  UnsupportedError,
  VersionMismatchError,
  WorkerDiedError,
  WorkerStartError,
} from "./errors.ts";
export type { CallOptions } from "./session/deadline.ts";
export type { Pong } from "./session/session.ts";
export type { LogLine, WorkerExit } from "./worker-process.ts";
