// The two extensions of the wire: handles and tensors, to and from their payloads. Knows no other value.

import { isDType } from "../dtype.ts";
import { InvalidArgumentError, NotSerializableError, ProtocolError } from "../errors.ts";
import {
  type BlockStorage,
  type FrameStorage,
  type HandleKind,
  WireHandle,
  WireTensor,
  type WireValue,
} from "../protocol.ts";
import { byteLength, MAX_RANK } from "../tensor.ts";
import { isArray, isMap, isUint, refuseValue } from "./fields.ts";
import type { Extension } from "./msgpack-writer.ts";

const HANDLE = 1;
const TENSOR = 2;

const KINDS: ReadonlySet<string> = new Set(["module", "callable", "tensor", "iterator", "model", "object"]);

function isKind(value: WireValue | undefined): value is HandleKind {
  return typeof value === "string" && KINDS.has(value);
}

/**
 * Writes handles and tensors for one message. Bytes of frame-stored tensors are appended to `frames`, uncopied.
 *
 * @param full - Write a handle with kind, type and meta, as the worker does; a client writes its id alone.
 */
export function extensionWriter(frames: Uint8Array[], full: boolean): (value: object) => Extension | undefined {
  return (value) => {
    if (value instanceof WireHandle) {
      const { id, kind, type, meta } = value;
      return { code: HANDLE, payload: full ? [id, kind, type, meta] : [id] };
    }
    if (value instanceof WireTensor) {
      checkStoredBytes(value);
      return { code: TENSOR, payload: [value.dtype, value.shape, storagePayload(value.storage, frames)] };
    }
    return undefined;
  };
}

function checkStoredBytes(tensor: WireTensor): void {
  const expected = byteLength(tensor.dtype, tensor.shape);
  const got = tensor.storage.kind === "frame" ? tensor.storage.bytes.byteLength : tensor.storage.bytes;
  if (expected !== got) {
    throw new NotSerializableError(
      `A ${tensor.dtype} tensor of shape [${tensor.shape.join(", ")}] must have ${expected} bytes, its storage has ${got}.`,
    );
  }
}

function storagePayload(storage: FrameStorage | BlockStorage, frames: Uint8Array[]): readonly unknown[] {
  if (storage.kind === "frame") return ["frame", frames.push(storage.bytes) - 1];
  return ["block", storage.owner, storage.block, storage.generation, storage.offset, storage.bytes];
}

/** Reads handles and tensors of one message with these frames; throws ProtocolError for anything else. */
export function extensionReader(frames: readonly Uint8Array[]): (code: number, payload: WireValue) => WireValue {
  return (code, payload) => {
    if (code === HANDLE) return readHandle(payload);
    if (code === TENSOR) return readTensor(payload, frames);
    throw new ProtocolError(`An extension must have code ${HANDLE} or ${TENSOR}, got ${code}.`);
  };
}

function readHandle(payload: WireValue): WireHandle {
  const where = "A handle";
  if (!isArray(payload) || (payload.length !== 1 && payload.length !== 4)) {
    return refuseValue(where, "`[id]` or `[id, kind, type, meta]`", payload);
  }
  const [id, kind, type, meta] = payload;
  if (!isUint(id)) return refuseValue(`${where}'s \`id\``, "an unsigned integer below 2^53", id);
  if (payload.length === 1) return new WireHandle(id);
  if (!isKind(kind)) return refuseValue(`${where}'s \`kind\``, `one of ${[...KINDS].join(", ")}`, kind);
  if (typeof type !== "string") return refuseValue(`${where}'s \`type\``, "a string", type);
  if (!isMap(meta)) return refuseValue(`${where}'s \`meta\``, "a map", meta);
  return new WireHandle(id, kind, type, meta);
}

function readTensor(payload: WireValue, frames: readonly Uint8Array[]): WireTensor {
  const where = "A tensor";
  if (!isArray(payload) || payload.length !== 3) return refuseValue(where, "`[dtype, shape, storage]`", payload);
  const [dtype, shape, storage] = payload;
  if (!isDType(dtype)) return refuseValue(`${where}'s \`dtype\``, "a dtype of the protocol", dtype);
  if (!isArray(shape) || shape.length > MAX_RANK || !shape.every(isUint)) {
    return refuseValue(`${where}'s \`shape\``, `at most ${MAX_RANK} non-negative integers`, shape);
  }
  if (!isArray(storage)) return refuseValue(`${where}'s \`storage\``, "an array", storage);
  const read = storage[0] === "block" ? readBlock(storage) : readFrame(storage, frames);
  const bytes = read.kind === "frame" ? read.bytes.byteLength : read.bytes;
  const expected = expectedBytes(dtype, shape);
  if (bytes !== expected) {
    throw new ProtocolError(
      `A ${dtype} tensor of shape [${shape.join(", ")}] must have ${expected} bytes, its storage has ${bytes}.`,
    );
  }
  return new WireTensor(dtype, shape, read);
}

function expectedBytes(...meta: Parameters<typeof byteLength>): number {
  try {
    return byteLength(...meta);
  } catch (cause) {
    if (cause instanceof InvalidArgumentError) throw new ProtocolError(cause.message, { cause });
    throw cause;
  }
}

function readFrame(storage: readonly WireValue[], frames: readonly Uint8Array[]): FrameStorage {
  const [kind, index] = storage;
  if (kind !== "frame" || storage.length !== 2 || !isUint(index)) {
    return refuseValue("A tensor's `storage`", '`["frame", index]` or `["block", ...]` of 6', storage);
  }
  const bytes = index === 0 ? undefined : frames[index];
  if (bytes === undefined) {
    return refuseValue("A tensor's frame index", `between 1 and ${frames.length - 1}`, index);
  }
  return { kind: "frame", bytes };
}

function readBlock(storage: readonly WireValue[]): BlockStorage {
  const [, owner, block, generation, offset, bytes] = storage;
  if (
    storage.length !== 6 ||
    (owner !== "client" && owner !== "worker") ||
    !isUint(block) ||
    !isUint(generation) ||
    !isUint(offset) ||
    !isUint(bytes)
  ) {
    return refuseValue(
      "A tensor's `storage`",
      '`["block", owner, block, generation, offset, bytes]` with an owner `client` or `worker` and unsigned integers',
      storage,
    );
  }
  return { kind: "block", owner, block, generation, offset, bytes };
}
