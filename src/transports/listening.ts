// Waits until somebody listens at an endpoint, by trying with plain sockets that are closed at once. Sends nothing.
//
// Trying with ZeroMQ itself would cost sockets of its context for every attempt, and zeromq.js gives some of them back
// only when it is garbage collected: a worker that takes long to start could use up all of them.

import { connect, type NetConnectOpts } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

/** How soon a worker that is not listening yet is tried again, in milliseconds. */
const RETRY_MS = 20;

/**
 * Resolves once a connection to `endpoint` is accepted, and rejects with its reason when `signal` aborts. An endpoint that
 * is neither `ipc://path` nor `tcp://host:port` is left to the transport to refuse.
 */
export async function untilListening(endpoint: string, signal: AbortSignal): Promise<void> {
  const address = addressOf(endpoint);
  while (address !== undefined && !(await isListening(address, signal))) {
    signal.throwIfAborted();
    await delay(RETRY_MS);
  }
  signal.throwIfAborted();
}

function isListening(address: NetConnectOpts, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(address);
    const end = (answer: boolean): void => {
      signal.removeEventListener("abort", onAbort);
      socket.destroy();
      resolve(answer);
    };
    const onAbort = (): void => end(false);
    socket.once("connect", () => end(true));
    socket.once("error", () => end(false));
    signal.addEventListener("abort", onAbort);
  });
}

function addressOf(endpoint: string): NetConnectOpts | undefined {
  const [, path] = /^ipc:\/\/(.+)$/s.exec(endpoint) ?? [];
  if (path !== undefined) return { path: path.startsWith("@") ? `\0${path.slice(1)}` : path }; // `@`: abstract names
  const [, host, port] = /^tcp:\/\/(.+):(\d+)$/.exec(endpoint) ?? [];
  if (host === undefined || Number(port) > 65535) return undefined;
  return { host: host.replace(/^\[(.*)\]$/, "$1"), port: Number(port) };
}
