/**
 * Turns pushed messages into an iteration that is pulled. Bounded by asking the producer to pause: a message that
 * comes in spite of that is kept, because dropping one would break the protocol.
 */

export type MessageQueue = {
  readonly messages: AsyncIterable<string>;
  push(text: string): void;
  /** No more will come; those that wait are still delivered. */
  end(): void;
};

export type MessageQueueOptions = {
  readonly lengthMax: number;
  readonly onFull: () => void;
  /** When half of it is free again. */
  readonly onDrained: () => void;
};

export function createMessageQueue(options: MessageQueueOptions): MessageQueue {
  const waiting: string[] = [];
  let hasEnded = false;
  let isPaused = false;
  let wake: (() => void) | null = null;
  const notify = () => {
    wake?.();
    wake = null;
  };
  async function* read(): AsyncGenerator<string> {
    for (;;) {
      const text = waiting.shift();
      if (text === undefined) {
        if (hasEnded) return;
        await new Promise<void>((resolve) => (wake = resolve));
        continue;
      }
      if (isPaused && waiting.length <= options.lengthMax / 2) {
        isPaused = false;
        options.onDrained();
      }
      yield text;
    }
  }
  return {
    messages: read(),
    push(text) {
      waiting.push(text);
      if (!isPaused && waiting.length >= options.lengthMax) {
        isPaused = true;
        options.onFull();
      }
      notify();
    },
    end() {
      hasEnded = true;
      notify();
    },
  };
}
