// A decoded control map to a typed message: required fields, types, defaults. Unknown extra fields are ignored, since
// minor versions add fields. Knows no bytes.

import { ProtocolError } from "../errors.ts";
import type { BlockRelease, Limits, Message, ProgressData, WireValue } from "../protocol.ts";
import { Fields, isArray, isMap, isUint, refuseValue } from "./fields.ts";

/** The message that `value` states; throws ProtocolError with a sentence if it states none. */
export function toMessage(value: WireValue): Message {
  if (!isMap(value)) return refuseValue("The control frame", "a map", value);
  const type = new Fields("The control frame", value).text("type");
  const fields = new Fields(`\`${type}\``, value);
  switch (type) {
    case "hello":
      return { type, protocol: version(fields), client: fields.text("client"), arena: fields.boolean("arena") };
    case "welcome":
      return {
        type,
        protocol: version(fields),
        incarnation: fields.text("incarnation"),
        worker: identity(fields.fields("worker")),
        limits: limits(fields.fields("limits")),
        arena: arena(fields),
      };
    case "call":
      return {
        type,
        id: fields.uint("id"),
        method: fields.text("method"),
        args: fields.has("args") ? fields.array("args") : [],
        kwargs: fields.has("kwargs") ? fields.map("kwargs") : {},
        credit: fields.has("credit") ? fields.uint("credit") : 0,
        progress: fields.has("progress") ? fields.boolean("progress") : false,
      };
    case "result":
      return { type, id: fields.uint("id"), value: fields.get("value") ?? null, blocks: blockReleases(fields) };
    case "error":
      return {
        type,
        id: fields.uintOrNull("id"),
        error: wireError(fields.fields("error")),
        blocks: blockReleases(fields),
      };
    case "item":
      return { type, id: fields.uint("id"), seq: fields.uint("seq"), value: itemValue(fields) };
    case "progress":
      return { type, id: fields.uint("id"), data: progress(fields.fields("data")) };
    case "credit":
      return { type, id: fields.uint("id"), items: fields.uint("items") };
    case "cancel":
    case "ping":
      return { type, id: fields.uint("id") };
    case "release":
      return {
        type,
        handles: fields.has("handles") ? fields.uints("handles") : [],
        blocks: blockReleases(fields),
      };
    case "pong":
      return { type, id: fields.uint("id"), busy: fields.uintOrNull("busy"), queued: fields.uint("queued") };
    case "bye":
      return { type };
    default:
      throw new ProtocolError(
        `The control frame's \`type\` must be a message of the protocol, got ${JSON.stringify(type)}.`,
      );
  }
}

function version(fields: Fields): readonly [number, number] {
  const [major, minor] = fields.uints("protocol");
  if (major === undefined || minor === undefined) {
    return refuseValue("`protocol`", "`[major, minor]`", fields.get("protocol"));
  }
  return [major, minor];
}

function identity(fields: Fields): Extract<Message, { type: "welcome" }>["worker"] {
  return {
    pid: fields.uint("pid"),
    python: fields.text("python"),
    torch: fields.text("torch"),
    marlin: fields.text("marlin"),
    platform: fields.text("platform"),
  };
}

function limits(fields: Fields): Limits {
  return {
    max_control_bytes: fields.uint("max_control_bytes"),
    max_depth: fields.uint("max_depth"),
    max_elements: fields.uint("max_elements"),
    max_frames: fields.uint("max_frames"),
    max_frame_bytes: fields.uint("max_frame_bytes"),
    max_calls: fields.uint("max_calls"),
  };
}

function arena(fields: Fields): Extract<Message, { type: "welcome" }>["arena"] {
  if (fields.get("arena") === null) return null;
  const sizes = fields.fields("arena");
  return { bytes: sizes.uint("bytes"), client_bytes: sizes.uint("client_bytes") };
}

function wireError(fields: Fields): Extract<Message, { type: "error" }>["error"] {
  return {
    code: fields.text("code"),
    message: fields.text("message"),
    type: fields.has("type") ? fields.text("type") : "",
    traceback: fields.has("traceback") ? fields.text("traceback") : "",
    details: fields.has("details") ? fields.map("details") : {},
  };
}

function itemValue(fields: Fields): WireValue {
  const value = fields.get("value");
  return value === undefined ? refuseValue("`item`: `value`", "a value", value) : value;
}

function progress(fields: Fields): ProgressData {
  const data = { phase: fields.text("phase"), done: fields.number("done"), total: fields.number("total") };
  return fields.has("text") ? { ...data, text: fields.text("text") } : data;
}

function blockReleases(fields: Fields): readonly BlockRelease[] {
  return fields.has("blocks") ? fields.array("blocks").map(blockRelease) : [];
}

function blockRelease(value: WireValue): BlockRelease {
  if (isArray(value) && value.length === 3) {
    const [block, generation, count] = value;
    if (isUint(block) && isUint(generation) && isUint(count)) return [block, generation, count];
  }
  return refuseValue("Each of `blocks`", "`[block, generation, count]` of unsigned integers", value);
}
