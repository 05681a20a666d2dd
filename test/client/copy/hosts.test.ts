/** Several hosts: each to its own end, so many at a time. */
import { expect, test } from "bun:test";
import { forEachHost, summarizeFailures } from "../../../src/client/copy/copy-hosts.ts";
import { NixdeployError } from "../../../src/errors.ts";

const HOSTS = ["a", "b", "c", "d", "e"].map((name) => ({ name }));
const failure = (kind: "host" | "denied") => new NixdeployError(kind, "cannot copy: no");

test("one that fails holds up none of the others, and is told of at once", async () => {
  const told: string[] = [];
  const ends = await forEachHost({
    ...{ hosts: HOSTS, atOnce: 2, signal: new AbortController().signal },
    work: async ({ name }) => {
      if (name === "b") throw failure("host");
      return name.toUpperCase();
    },
    onFailed: (host) => void told.push(host),
  });
  expect(ends.map((end) => (end.kind === "done" ? end.result : `${end.host} failed`))).toEqual([
    ...["A", "b failed", "C", "D", "E"],
  ]);
  expect(told).toEqual(["b"]);
});

test.each([
  [1, 1],
  [3, 3],
  [9, 5],
])("with %i at once, %i are at work at most", async (atOnce, most) => {
  let busy = 0;
  let busiest = 0;
  const work = async () => {
    busy += 1;
    busiest = Math.max(busiest, busy);
    await new Promise((resolve) => setImmediate(resolve));
    busy -= 1;
  };
  const ends = await forEachHost({
    ...{ hosts: HOSTS, atOnce, work, onFailed: () => {}, signal: new AbortController().signal },
  });
  expect([busiest, ends.length]).toEqual([most, 5]);
});

test("after a Ctrl-C nobody else is begun with, and no host is blamed for it", async () => {
  const stop = new AbortController();
  const begun: string[] = [];
  const told: string[] = [];
  const all = forEachHost({
    ...{ hosts: HOSTS, atOnce: 1, signal: stop.signal },
    work: async ({ name }) => {
      begun.push(name);
      if (name === "b") stop.abort(new Error("Ctrl-C"));
      stop.signal.throwIfAborted();
    },
    onFailed: (host) => void told.push(host),
  });
  expect(await all.catch((error: unknown) => error)).toMatchObject({ message: "Ctrl-C" });
  expect([begun, told]).toEqual([["a", "b"], []]);
});

test("the end says whether anything was done", () => {
  const done = { kind: "done", host: "a", result: null } as const;
  const failed = (host: string, kind: "host" | "denied") => ({ kind: "failed", host, error: failure(kind) }) as const;
  const messageOf = (...ends: Parameters<typeof summarizeFailures>[1]) => {
    const error = summarizeFailures("copy to", ends);
    return error instanceof NixdeployError ? `${error.kind}: ${error.message}` : error;
  };
  expect(messageOf(done, done)).toBeNull();
  expect(messageOf(done, failed("b", "host"))).toBe("host: cannot copy to 1 of 2 hosts: the others are done");
  expect(messageOf(failed("a", "host"), failed("b", "denied"))).toBe(
    "refused: cannot copy to 2 of 2 hosts: none is done",
  );
});
