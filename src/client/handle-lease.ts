// A handle of the worker that this program holds, and its end: explicit, or by garbage collection as a safety net.
// Knows no proxies: they hold a lease, and so do the attributes taken from them.

import { HandleDisposedError } from "../errors.ts";
import type { WireHandle } from "../protocol.ts";

/** Gives a handle back to its worker. */
type Release = (id: number) => void;

// Held strongly by the module: a registry that is itself collected never reports.
const collected = new FinalizationRegistry<{ readonly id: number; readonly release: Release }>(({ id, release }) => {
  release(id);
});

/** Ownership of one handle id; it is given back exactly once. */
export class HandleLease {
  readonly #wire: WireHandle;
  readonly #release: Release;
  #isDisposed = false;

  constructor(wire: WireHandle, release: Release) {
    this.#wire = wire;
    this.#release = release;
    collected.register(this, { id: wire.id, release }, this);
  }

  get isDisposed(): boolean {
    return this.#isDisposed;
  }

  /** What the worker said of the handle; also after its disposal. */
  get description(): WireHandle {
    return this.#wire;
  }

  /** The handle, to be sent. Throws `HandleDisposedError`. */
  use(): WireHandle {
    if (this.#isDisposed) throw new HandleDisposedError(`${this} was disposed and can no longer be used.`);
    return this.#wire;
  }

  /** Gives the handle back; may be called again. */
  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    collected.unregister(this);
    this.#release(this.#wire.id);
  }

  /** `Handle(torch.Tensor float32 [16, 4096] #7)`, without asking the worker. */
  toString(): string {
    const { id, type, meta } = this.#wire;
    const { dtype, shape } = meta;
    const tensor = typeof dtype === "string" && Array.isArray(shape) ? ` ${dtype} [${shape.join(", ")}]` : "";
    return `Handle(${type}${tensor} #${id}${this.#isDisposed ? ", disposed" : ""})`;
  }
}
