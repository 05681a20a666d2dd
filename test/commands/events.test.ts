/** `events` against a coordinator in the same process: what is printed, behind which event it goes on, how it ends. */
import { describe, expect, test } from "bun:test";
import type { NewsEvent } from "../../src/api/events.ts";
import { formatStreamEvent } from "../../src/commands/events.ts";
import { EXAMPLE_HASH_PART } from "../support/deployment-example.ts";
import { FAKE_TOKEN, type FakeCoordinator, startFakeCoordinator } from "../support/fake-coordinator.ts";
import { startCommand } from "../support/run-command.ts";
import { waitFor } from "../support/wait-for.ts";

const SYSTEM = `/nix/store/${EXAMPLE_HASH_PART}-system`;
const NOTHING = { agent: null, rollout: null, deployment: null, storePath: null };

function change(id: number, more: object) {
  return { id, at: "2026-11-22T13:05:59.000Z", workspace: "default", kind: "deployment", ...NOTHING, ...more };
}

/** Answers each request for the stream with the next of these, and ends it. */
function serve(fake: FakeCoordinator, answers: readonly (readonly object[])[]): void {
  let next = 0;
  fake.intercept = async (request, otherwise) => {
    if (!request.path.startsWith("/api/v1/events")) return await otherwise();
    const events = answers[next] ?? [];
    next += 1;
    const text = events.map((data) => {
      const isPosition = "after" in data;
      const id = isPosition ? data.after : "id" in data ? data.id : 0;
      return `id: ${id}\nevent: ${isPosition ? "position" : "change"}\ndata: ${JSON.stringify(data)}\n\n`;
    });
    return new Response([": hello\n\n", "event: later-kind\ndata: {}\n\n", ...text].join(""), {
      headers: { "content-type": "text/event-stream" },
    });
  };
}

function start(fake: FakeCoordinator, ...words: readonly string[]) {
  const interrupted = new AbortController();
  const env = { NIXDEPLOY_URL: fake.url, NIXDEPLOY_TOKEN: FAKE_TOKEN };
  const command = startCommand(["events", ...words], { env, signal: interrupted.signal });
  return { ...command, interrupt: () => interrupted.abort() };
}

const cursors = (fake: FakeCoordinator) => fake.requests.map(({ lastEventId }) => lastEventId);

test("prints what comes, and goes on behind it when the stream ends", async () => {
  await using fake = startFakeCoordinator();
  const failed = { agent: "nuc", data: { state: "failed", reason: "The disk\u001b[2J is full." } };
  serve(fake, [[change(7, failed)], [change(9, { agent: "tv", storePath: SYSTEM, data: { state: "queued" } })]]);
  const command = start(fake, "--since", "5", "--workspace", "default");
  await waitFor("three tries", () => fake.requests.length >= 3);
  command.interrupt();
  const { exitCode, stdout, stderr } = await command.result;
  expect(exitCode).toBe(130);
  expect(stdout.split("\n")).toEqual([
    "7 2026-11-22T13:05:59.000Z default: nuc failed: The disk[2J is full.",
    `9 2026-11-22T13:05:59.000Z default: tv queued ${SYSTEM}`,
    "",
  ]);
  expect(cursors(fake).slice(0, 3)).toEqual(["5", "7", "9"]);
  expect(fake.requests[0]?.path).toBe("/api/v1/events?workspace=default");
  expect(stderr).toContain("lost the coordinator");
});

test("a stream in which nothing came goes on behind where it began, and is known to be back without an event", async () => {
  await using fake = startFakeCoordinator();
  const started = change(6, { kind: "rollout", rollout: "rrrrrrrrrrrrrrrr", data: { deployments: 1 } });
  serve(fake, [[{ after: 5 }], [{ after: 5 }], [{ after: 5 }, started]]);
  const command = start(fake);
  await waitFor("the event", () => command.stdout() !== "");
  command.interrupt();
  const { stdout, stderr } = await command.result;
  expect(cursors(fake).slice(0, 3)).toEqual([null, "5", "5"]);
  expect(stdout).toBe("6 2026-11-22T13:05:59.000Z default: rollout rrrrrrrrrrrrrrrr for 1\n");
  expect(stderr).toContain("the coordinator is there again");
});

test.each([[["events"]], [["status", "--watch"]]])("%p says at once that nobody is there, and why", async (words) => {
  const env = { NIXDEPLOY_URL: "http://127.0.0.1:1", NIXDEPLOY_TOKEN: FAKE_TOKEN };
  const { exitCode, stdout, stderr } = await startCommand(words, { env }).result;
  expect([exitCode, stdout]).toEqual([75, ""]);
  expect(stderr).toStartWith("nixdeploy: cannot reach http://127.0.0.1:1: the connection was refused\n");
});

test("with --json one object a line", async () => {
  await using fake = startFakeCoordinator();
  const event = change(7, { agent: "nuc", data: { state: "failed", reason: null } });
  serve(fake, [[event]]);
  const command = start(fake, "--json");
  await waitFor("a second try", () => fake.requests.length >= 2);
  command.interrupt();
  const { stdout } = await command.result;
  expect(JSON.parse(stdout.split("\n")[0] ?? "")).toEqual({ event: "change", data: event });
  expect(cursors(fake)[0]).toBeNull();
});

test("a cursor that is none is a mistake", async () => {
  await using fake = startFakeCoordinator();
  expect((await start(fake, "--since", "yesterday").result).exitCode).toBe(2);
});

describe("a line", () => {
  const line = (kind: string, agent: string | null, data: object) =>
    formatStreamEvent({ event: "change", data: change(1, { kind, agent, data }) } as NewsEvent)
      .split(": ")
      .slice(1)
      .join(": ");
  test.each([
    ["rollout", null, { deployments: 3, description: "new kernel" }, "rollout null for 3: new kernel"],
    ["progress", "nuc", { state: "fetching", stalledSince: "2026" }, "nuc fetching: no progress since 2026"],
    ["progress", "nuc", { state: "fetching", stalledSince: null }, "nuc fetching: makes progress again"],
    ["agent", null, { name: "nuc", change: "offline" }, "agent nuc offline"],
    ["something-new", null, { a: 1 }, 'something-new {"a":1}'],
  ])("of kind %s", (kind, agent, data, expected) => expect(line(kind, agent, data)).toBe(expected));

  test("of a gap says what is missed", () => {
    const gap = { after: 4, next: 9, reason: "too-old" as const };
    expect(formatStreamEvent({ event: "gap", data: gap })).toBe("-- events behind 4 and before 9 are no longer kept");
  });
});
