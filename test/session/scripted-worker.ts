// A worker whose every message the test writes: the far end of an in-memory transport.

import { decodeMessage, encodeMessage } from "../../src/codec.ts";
import type { BlockRelease, CallMessage, Message, WelcomeMessage, WireValue } from "../../src/protocol.ts";
import { DEFAULT_LIMITS } from "../../src/protocol.ts";
import { Session, type SessionOptions } from "../../src/session/session.ts";
import type { Transport } from "../../src/transport.ts";
import { memoryPair } from "../../src/transports/memory.ts";

export const WELCOME: WelcomeMessage = {
  type: "welcome",
  protocol: [1, 0],
  incarnation: "0123456789abcdef",
  worker: { pid: 1, python: "3.11.0", torch: "2.13.0", marlin: "0.1.0", platform: "test" },
  limits: DEFAULT_LIMITS,
  arena: null,
};

export class ScriptedWorker {
  readonly transport: Transport;

  constructor(transport: Transport) {
    this.transport = transport;
  }

  /** The next message from the session. */
  async receive(): Promise<Message> {
    return decodeMessage(await this.transport.receive());
  }

  /** The next message, which must have this type. */
  async expect<T extends Message["type"]>(type: T): Promise<Extract<Message, { type: T }>> {
    const message = await this.receive();
    if (!hasType(message, type)) throw new Error(`Expected a ${type}, got ${JSON.stringify(message)}.`);
    return message;
  }

  async send(message: Message): Promise<void> {
    await this.transport.send(encodeMessage(message));
  }

  async reply(call: CallMessage, value: WireValue, blocks: readonly BlockRelease[] = []): Promise<void> {
    await this.send({ type: "result", id: call.id, value, blocks });
  }

  async item(call: CallMessage, seq: number, value: WireValue): Promise<void> {
    await this.send({ type: "item", id: call.id, seq, value });
  }

  async fail(call: CallMessage, code: string, message: string): Promise<void> {
    const error = { code, message, type: "builtins.ValueError", traceback: "Traceback: here", details: { got: 3 } };
    await this.send({ type: "error", id: call.id, error, blocks: [] });
  }
}

/** A session after its handshake, and the worker at its other end. */
export function openSession(
  options: SessionOptions = {},
  welcome: WelcomeMessage = WELCOME,
): { session: Session; worker: ScriptedWorker } {
  const [near, far] = memoryPair();
  return { session: new Session(near, welcome, options), worker: new ScriptedWorker(far) };
}

function hasType<T extends Message["type"]>(message: Message, type: T): message is Extract<Message, { type: T }> {
  return message.type === type;
}
