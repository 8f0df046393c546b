// The first exchange on a transport: `hello` and `welcome`. Knows the transport, not who made it.

import { decodeMessage, encodeMessage } from "../codec.ts";
import { errorFromWire, type MarlinError, ProtocolError, VersionMismatchError } from "../errors.ts";
import { DEFAULT_LIMITS, PROTOCOL_VERSION, type WelcomeMessage } from "../protocol.ts";
import type { Transport } from "../transport.ts";
import { type CallOptions, checkCallOptions, watchDeadline } from "./deadline.ts";

/** How the client presents itself. */
export interface HandshakeOptions extends CallOptions {
  /** Name and version of the client, for the worker's logs. */
  readonly client: string;
  /** Whether the client shares an arena with this worker. */
  readonly hasArena: boolean;
}

/**
 * Says hello and resolves with the worker's welcome. Closes the transport if it fails.
 *
 * @throws VersionMismatchError if the worker speaks another major version; CancelledError, TimeoutError;
 *   ConnectionClosedError if the transport closed first.
 */
export async function shakeHands(transport: Transport, options: HandshakeOptions): Promise<WelcomeMessage> {
  let ended: MarlinError | undefined;
  let stop = (): void => {};
  try {
    checkCallOptions(options, "The handshake with the worker");
    stop = watchDeadline(options, "The handshake with the worker", (error) => {
      ended = error;
      transport.close(); // rejects the receive below
    });
    const { client, hasArena } = options;
    await transport.send(encodeMessage({ type: "hello", protocol: PROTOCOL_VERSION, client, arena: hasArena }));
    const message = decodeMessage(await transport.receive(), DEFAULT_LIMITS);
    if (message.type === "error") throw errorFromWire(message.error);
    if (message.type !== "welcome") {
      throw new ProtocolError(`The worker answered \`hello\` with \`${message.type}\`, expected \`welcome\`.`);
    }
    const [major, minor] = message.protocol;
    if (major !== PROTOCOL_VERSION[0]) {
      throw new VersionMismatchError(
        `The worker speaks protocol ${major}.${minor}, this client ${PROTOCOL_VERSION.join(".")}; install matching versions.`,
      );
    }
    return message;
  } catch (error) {
    transport.close();
    throw ended ?? error;
  } finally {
    stop();
  }
}
