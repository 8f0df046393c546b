// The messages of the wire and the values in them; mirrors docs/protocol.md, which is the authority.
// Field names are exactly those of the wire. Knows neither bytes (codec) nor sockets (transport).

import type { DType } from "./dtype.ts";
import type { WireError } from "./errors.ts";
import type { TensorMeta } from "./tensor.ts";

export type { WireError } from "./errors.ts";

/** `[major, minor]`; majors must be equal, of the minors the smaller counts. */
export const PROTOCOL_VERSION: readonly [major: number, minor: number] = [1, 0];

/** What a receiver refuses before it decodes, in bytes and counts. */
export interface Limits {
  /** Bytes of frame 0. */
  readonly max_control_bytes: number;
  /** Nesting of arrays and maps; the control map is depth 1. */
  readonly max_depth: number;
  /** Values in the control frame, keys and extension payloads included. */
  readonly max_elements: number;
  /** Frames after frame 0. */
  readonly max_frames: number;
  /** Bytes of one frame. */
  readonly max_frame_bytes: number;
  /** Calls in flight per client. */
  readonly max_calls: number;
}

/** The limits that hold until a `welcome` states the worker's. */
export const DEFAULT_LIMITS: Limits = {
  max_control_bytes: 1024 * 1024,
  max_depth: 32,
  max_elements: 65536,
  max_frames: 64,
  max_frame_bytes: 256 * 1024 * 1024,
  max_calls: 1024,
};

/** What a handle stands for in the worker. */
export type HandleKind = "module" | "callable" | "tensor" | "iterator" | "model" | "object";

/** A value that stays in the worker. A client sends only the `id`; kind, type and meta are the worker's to say. */
export class WireHandle {
  /** Unsigned, never used twice in one incarnation of the worker. */
  readonly id: number;
  readonly kind: HandleKind;
  /** Qualified Python type, for example `torch.Tensor`. */
  readonly type: string;
  readonly meta: WireMap;

  constructor(id: number, kind: HandleKind = "object", type = "", meta: WireMap = {}) {
    this.id = id;
    this.kind = kind;
    this.type = type;
    this.meta = meta;
  }
}

/** Bytes that travel as a frame of the message itself. */
export interface FrameStorage {
  readonly kind: "frame";
  readonly bytes: Uint8Array;
}

/** Bytes that lie in the shared arena, in the partition of `owner`. */
export interface BlockStorage {
  readonly kind: "block";
  readonly owner: "client" | "worker";
  readonly block: number;
  readonly generation: number;
  /** From the start of the arena, in bytes; a multiple of 64. */
  readonly offset: number;
  /** Byte length. */
  readonly bytes: number;
}

/** A tensor in a message: row-major, contiguous, little endian. */
export class WireTensor implements TensorMeta {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly storage: FrameStorage | BlockStorage;

  constructor(dtype: DType, shape: readonly number[], storage: FrameStorage | BlockStorage) {
    this.dtype = dtype;
    this.shape = shape;
    this.storage = storage;
  }
}

/** A map on the wire. */
export interface WireMap {
  readonly [key: string]: WireValue;
}

/** Everything that can travel in `args`, `kwargs`, `value` and `data`. Integers beyond 2^53 are bigint. */
export type WireValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | WireHandle
  | WireTensor
  | readonly WireValue[]
  | WireMap;

export interface HelloMessage {
  readonly type: "hello";
  readonly protocol: readonly [major: number, minor: number];
  readonly client: string;
  readonly arena: boolean;
}

/** Who answers: the worker process and its libraries. */
export interface WorkerIdentity {
  readonly pid: number;
  readonly python: string;
  readonly torch: string;
  readonly marlin: string;
  readonly platform: string;
}

export interface WelcomeMessage {
  readonly type: "welcome";
  readonly protocol: readonly [major: number, minor: number];
  readonly incarnation: string;
  readonly worker: WorkerIdentity;
  readonly limits: Limits;
  readonly arena: { readonly bytes: number; readonly client_bytes: number } | null;
}

export interface CallMessage {
  readonly type: "call";
  readonly id: number;
  readonly method: string;
  readonly args: readonly WireValue[];
  readonly kwargs: WireMap;
  readonly credit: number;
  readonly progress: boolean;
}

/** `[block, generation, count]`: `count` references to a block of the receiver are given back. */
export type BlockRelease = readonly [block: number, generation: number, count: number];

export interface ResultMessage {
  readonly type: "result";
  readonly id: number;
  readonly value: WireValue;
  readonly blocks: readonly BlockRelease[];
}

export interface ErrorMessage {
  readonly type: "error";
  /** null: about the connection, or an unreadable message. */
  readonly id: number | null;
  readonly error: WireError;
  readonly blocks: readonly BlockRelease[];
}

export interface ItemMessage {
  readonly type: "item";
  readonly id: number;
  readonly seq: number;
  readonly value: WireValue;
}

/** How far a long call has come; `total` 0 means unknown. */
export interface ProgressData {
  readonly phase: string;
  readonly done: number;
  readonly total: number;
  readonly text?: string;
}

export interface ProgressMessage {
  readonly type: "progress";
  readonly id: number;
  readonly data: ProgressData;
}

export interface CreditMessage {
  readonly type: "credit";
  readonly id: number;
  readonly items: number;
}

export interface CancelMessage {
  readonly type: "cancel";
  readonly id: number;
}

export interface ReleaseMessage {
  readonly type: "release";
  readonly handles: readonly number[];
  readonly blocks: readonly BlockRelease[];
}

export interface PingMessage {
  readonly type: "ping";
  readonly id: number;
}

export interface PongMessage {
  readonly type: "pong";
  readonly id: number;
  readonly busy: number | null;
  readonly queued: number;
}

export interface ByeMessage {
  readonly type: "bye";
}

/** Any message, told apart by `type`. */
export type Message =
  | HelloMessage
  | WelcomeMessage
  | CallMessage
  | ResultMessage
  | ErrorMessage
  | ItemMessage
  | ProgressMessage
  | CreditMessage
  | CancelMessage
  | ReleaseMessage
  | PingMessage
  | PongMessage
  | ByeMessage;
