// A stretch of a program whose handles, tensors and models end with it. Knows only that its members can be disposed.

/** What a scope frees. */
export interface Member {
  dispose(): void | Promise<void>;
}

/** Members that end together; those kept move to the scope around it. */
export class Scope {
  readonly #outer: Scope | undefined;
  readonly #members = new Set<Member>();
  #hasEnded = false;

  constructor(outer: Scope | undefined) {
    this.#outer = outer;
  }

  /** Takes `member` in; what runs on after the end of its scope (a timer, a server) is outside of it. */
  add(member: Member): void {
    if (this.#hasEnded) this.#outer?.add(member);
    else this.#members.add(member);
  }

  /** Takes `member` out, so that it lives as if it had been made outside of this scope. */
  keep(member: Member): void {
    if (this.#members.delete(member)) this.#outer?.add(member);
  }

  /** Frees all members; waits for those that end in the worker. */
  async dispose(): Promise<void> {
    this.#hasEnded = true;
    const members = [...this.#members];
    this.#members.clear();
    await Promise.all(members.map((member) => member.dispose()));
  }
}
