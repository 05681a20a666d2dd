/**
 * One operation at a time, in the order asked. What waits is thrown out at once when the queue is closed, even while
 * the operation in progress never ends (a reader of a NAR that has stopped reading, say).
 */
export class OperationQueue {
  readonly #waiting: { readonly start: () => void; readonly refuse: (reason: unknown) => void }[] = [];
  #busy = false;
  #closed: { readonly reason: unknown } | null = null;

  /** Resolves when it is our turn; dispose of the turn to let the next one start. @throws the reason of `close` */
  async turn(): Promise<Disposable> {
    if (this.#closed !== null) throw this.#closed.reason;
    if (this.#busy) {
      await new Promise<void>((start, refuse) => this.#waiting.push({ start, refuse }));
    }
    this.#busy = true;
    let over = false;
    return {
      [Symbol.dispose]: () => {
        if (over) return;
        over = true;
        const next = this.#waiting.shift();
        if (next === undefined) this.#busy = false;
        else next.start();
      },
    };
  }

  /** Refuses every turn from now on. The first reason counts. */
  close(reason: unknown): void {
    if (this.#closed !== null) return;
    this.#closed = { reason };
    for (const waiter of this.#waiting.splice(0)) waiter.refuse(reason);
  }
}
