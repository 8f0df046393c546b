// Messages to frames and back. Frame 0 is the msgpack control map, the others are tensor bytes (docs/protocol.md).
// Knows neither sockets nor the arena.
//
// The msgpack here is our own. A control frame has to be walked in full before anything may be built from it (depth,
// counts, lengths, extension codes, UTF-8), and a value before it may be written (places of what cannot travel, integers
// between 2^32 and 2^53, minus zero); building and writing along these walks is a hundred lines more. msgpackr behind such
// walks takes 0.70 us for a usual call each way, this takes 0.85 and 0.92 us (Node 20, x86-64), of a round trip of 45 us and
// more; but its table of extensions is one for the whole process, so a program that uses msgpackr with a code 1 or 2
// of its own and this package would break one another, and a native add-on would read what peers send. Tests hold the
// two against each other.

import { Budget, checkFrames } from "./codec/budget.ts";
import { extensionReader, extensionWriter } from "./codec/extensions.ts";
import { MsgpackReader } from "./codec/msgpack-reader.ts";
import { MsgpackWriter } from "./codec/msgpack-writer.ts";
import { toMessage } from "./codec/structure.ts";
import { ProtocolError } from "./errors.ts";
import { DEFAULT_LIMITS, type Limits, type Message } from "./protocol.ts";

export { WireHandle, WireTensor } from "./protocol.ts";

/**
 * The frames of `message`. Frame-stored tensors are appended without a copy: do not write to their bytes before the
 * peer has answered.
 *
 * @throws NotSerializableError naming the place of a value that cannot travel; MessageTooLargeError past a limit.
 */
export function encodeMessage(message: Message, limits: Limits = DEFAULT_LIMITS): Uint8Array[] {
  const frames: Uint8Array[] = [new Uint8Array()];
  const writer = new MsgpackWriter(new Budget(limits), extensionWriter(frames, isFromWorker(message)));
  writer.write(withoutDefaults(message));
  frames[0] = writer.finish();
  checkFrames(frames, limits);
  return frames;
}

/**
 * The message in `frames`. Tensors keep views of their frames; everything else is copied out of frame 0.
 *
 * @throws ProtocolError for a malformed message, MessageTooLargeError past a limit; never anything else.
 */
export function decodeMessage(frames: readonly Uint8Array[], limits: Limits = DEFAULT_LIMITS): Message {
  const control = frames[0];
  if (control === undefined) throw new ProtocolError("A message must have a control frame, got no frame.");
  checkFrames(frames, limits);
  return toMessage(new MsgpackReader(control, new Budget(limits), extensionReader(frames)).readAll());
}

function isFromWorker(message: Message): boolean {
  switch (message.type) {
    case "hello":
    case "call":
    case "credit":
    case "cancel":
    case "ping":
      return false;
    default:
      return true;
  }
}

/** The map that is written: fields in the order of the protocol's tables, those equal to their default left out. */
function withoutDefaults(message: Message): object {
  switch (message.type) {
    case "hello": {
      const { type, protocol, client, arena } = message;
      return { type, protocol, client, arena };
    }
    case "welcome": {
      const { type, protocol, incarnation, worker, limits, arena } = message;
      return { type, protocol, incarnation, worker, limits, arena };
    }
    case "call": {
      const { type, id, method, args, kwargs, credit, progress } = message;
      return {
        type,
        id,
        method,
        args: unlessEmpty(args),
        kwargs: Object.keys(kwargs).length === 0 ? undefined : kwargs,
        credit: credit === 0 ? undefined : credit,
        progress: progress ? true : undefined,
      };
    }
    case "result": {
      const { type, id, value, blocks } = message;
      return { type, id, value: value ?? undefined, blocks: unlessEmpty(blocks) };
    }
    case "error": {
      const { code, message: text, type, traceback, details } = message.error;
      const error = { code, message: text, type, traceback, details };
      return { type: message.type, id: message.id, error, blocks: unlessEmpty(message.blocks) };
    }
    case "item": {
      const { type, id, seq, value } = message;
      return { type, id, seq, value };
    }
    case "progress": {
      const { phase, done, total, text } = message.data;
      return { type: message.type, id: message.id, data: { phase, done, total, text } };
    }
    case "credit": {
      const { type, id, items } = message;
      return { type, id, items };
    }
    case "release": {
      const { type, handles, blocks } = message;
      return { type, handles: unlessEmpty(handles), blocks: unlessEmpty(blocks) };
    }
    case "pong": {
      const { type, id, busy, queued } = message;
      return { type, id, busy, queued };
    }
    case "cancel":
    case "ping": {
      const { type, id } = message;
      return { type, id };
    }
    case "bye":
      return { type: message.type };
    default: {
      const unknown: never = message;
      return unknown;
    }
  }
}

function unlessEmpty<T>(values: readonly T[]): readonly T[] | undefined {
  return values.length === 0 ? undefined : values;
}
