import { describe, expect, test } from "bun:test";
import { OperationQueue } from "../../../src/nix/daemon/operation-queue.ts";

describe("OperationQueue", () => {
  test("gives turns one at a time, in the order asked", async () => {
    const queue = new OperationQueue();
    const order: number[] = [];
    let running = 0;
    const work = async (id: number) => {
      using _turn = await queue.turn();
      expect(running++).toBe(0);
      await Promise.resolve();
      order.push(id);
      running--;
    };
    await Promise.all([1, 2, 3, 4].map(work));
    await work(5);
    expect(order).toEqual([1, 2, 3, 4, 5]);
  });

  test("gives a turn only once, however often it is given back", async () => {
    const queue = new OperationQueue();
    const first = await queue.turn();
    const second = queue.turn();
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    await second;
    const third = queue.turn().then(() => "third");
    expect(await Promise.race([third, Promise.resolve("nobody")])).toBe("nobody");
    (await second)[Symbol.dispose]();
    expect(await third).toBe("third");
  });

  test("throws out who waits when it is closed, and everybody later", async () => {
    const queue = new OperationQueue();
    await queue.turn();
    const waiting = queue.turn();
    queue.close(new Error("over"));
    queue.close(new Error("again"));
    await expect(waiting).rejects.toThrow("over");
    await expect(queue.turn()).rejects.toThrow("over");
  });
});
