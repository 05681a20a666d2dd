/** First starts, second coordinators on the same directory, and the API without a server. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { tokenListSchema } from "../../src/api/tokens.ts";
import { createHttpClient } from "../../src/http/client.ts";
import { silentLogger } from "../../src/log.ts";
import { systemClock, systemRandom } from "../../src/runtime.ts";
import { createBus } from "../../src/server/bus.ts";
import { openBlobStore } from "../../src/server/cache/blob-store.ts";
import { createCoordinator } from "../../src/server/coordinator.ts";
import { openDataDirectory } from "../../src/server/data-directory.ts";
import { openDatabase } from "../../src/server/database/dialect.ts";
import { openOfflineCoordinator } from "../../src/server/offline.ts";
import { runServe } from "../../src/server/serve.ts";
import { NIXDEPLOY_VERSION } from "../../src/version.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";

async function startServe(dataDirectory: string, publicUrl: string | null = null) {
  const stop = new AbortController();
  const ready = Promise.withResolvers<string>();
  const done = runServe({
    dataDirectory,
    hostname: "127.0.0.1",
    port: 0,
    tls: null,
    publicUrl,
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
    env: {},
    signal: stop.signal,
    onStopping: () => {},
    onReady: async (url) => ready.resolve(url),
  });
  const url = await Promise.race([ready.promise, done.then(() => "stopped")]);
  return {
    url,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await done;
    },
  };
}

const readToken = (file: string) => readFileSync(file, "utf8").trim();

describe("serve", () => {
  test("begins with an admin token in a file of its owner, and keeps it", async () => {
    await using directory = await createTemporaryDirectory("serve");
    const dataDirectory = directory.join("deep", "data");
    const file = `${dataDirectory}/admin-token`;
    const tokens: string[] = [];
    for (let start = 0; start < 2; start += 1) {
      await using served = await startServe(dataDirectory);
      tokens.push(readToken(file));
      const headers = { authorization: `Bearer ${tokens[0]}` };
      const answer = await fetch(`${served.url}/api/v1/status`, { headers });
      expect(await answer.json()).toMatchObject({ url: served.url, workspaces: ["default"], deploymentsQueued: 0 });
    }
    expect(tokens[0]).toMatch(/^nd_admin_/);
    expect(tokens[1]).toBe(tokens[0]);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(statSync(dataDirectory).mode & 0o777).toBe(0o700);
    expect(existsSync(`${dataDirectory}/control.sock`)).toBe(false);
  });

  test("hands out the URL it was given", async () => {
    await using directory = await createTemporaryDirectory("serve");
    await using served = await startServe(directory.path, "https://deploy.example.org");
    expect(served.url).toBe("https://deploy.example.org");
    const answer = await fetch("http://control/api/v1/caches/default", { unix: directory.join("control.sock") });
    expect(await answer.json()).toMatchObject({ url: "https://deploy.example.org/cache/default" });
  });

  test("refuses a directory that another coordinator works on", async () => {
    await using directory = await createTemporaryDirectory("serve");
    await using _ = await startServe(directory.path);
    await expect(startServe(directory.path)).rejects.toThrow("another coordinator works on it");
    await expect(openOfflineCoordinator(directory.path)).rejects.toThrow("another coordinator works on it");
  });

  test("refuses a directory that cannot be made", () => {
    expect(() => openDataDirectory("/dev/null/data")).toThrow("cannot use the data directory /dev/null/data");
  });
});

describe("the API without a server", () => {
  test("works on the directory, and leaves it for the next", async () => {
    await using directory = await createTemporaryDirectory("serve");
    const request = () => new Request("http://offline/api/v1/tokens");
    for (let turn = 0; turn < 2; turn += 1) {
      await using offline = await openOfflineCoordinator(directory.path);
      const answer = await offline.fetch(request());
      expect(tokenListSchema.parse(await answer.json()).tokens).toHaveLength(1);
    }
    await using served = await startServe(directory.path);
    const headers = { authorization: `Bearer ${readToken(directory.join("admin-token"))}` };
    expect((await fetch(`${served.url}/api/v1/tokens`, { headers })).status).toBe(200);
  });

  test("lets go of the directory when it cannot begin", async () => {
    await using directory = await createTemporaryDirectory("serve");
    await writeFile(directory.join("nars"), "no folder");
    await expect(openOfflineCoordinator(directory.path)).rejects.toThrow();
    using again = openDataDirectory(directory.path);
    expect(again.databaseFile).toBe(directory.join("coordinator.db"));
  });
});

test("a first start that was killed before its token counted writes another one", async () => {
  await using directory = await createTemporaryDirectory("serve");
  const written: string[] = [];
  const start = async (writeAdminToken: (token: string) => Promise<void>) =>
    await createCoordinator({
      database: openDatabase(directory.join("coordinator.db")),
      blobs: await openBlobStore(directory.join("nars")),
      http: createHttpClient({ userAgent: "test", env: {}, clock: systemClock, random: systemRandom }),
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
      version: NIXDEPLOY_VERSION,
      isServing: true,
      publicUrl: () => "",
      writeAdminToken,
    });
  const failing = start(async (token) => {
    written.push(token);
    throw new Error("killed");
  });
  await expect(failing).rejects.toThrow("killed");
  await using coordinator = await start(async (token) => void written.push(token));
  const statuses: number[] = [];
  for (const token of written) {
    const request = new Request("http://x/api/v1/status", { headers: { authorization: `Bearer ${token}` } });
    statuses.push((await coordinator.fetch(request, { control: false })).status);
  }
  expect(statuses).toEqual([401, 200]);
});

describe("the bus", () => {
  const signal = new AbortController().signal;

  test("wakes who listens, and remembers for who does not listen yet", async () => {
    const bus = createBus();
    using subscription = bus.subscribe("a", "b");
    const woken = subscription.changed(signal);
    bus.publish("b");
    await woken;
    bus.publish("a");
    bus.publish("a");
    await subscription.changed(signal);
    const next = subscription.changed(signal).then(() => "woken");
    bus.publish("other");
    expect(await Promise.race([next, Promise.resolve("asleep")])).toBe("asleep");
    bus.publish("a");
    expect(await next).toBe("woken");
  });

  test("stops at an abort, and loses no signal to it", async () => {
    const bus = createBus();
    using subscription = bus.subscribe("a");
    const stop = new AbortController();
    const stopped = subscription.changed(stop.signal);
    stop.abort(new Error("enough"));
    await expect(stopped).rejects.toThrow("enough");
    bus.publish("a");
    await subscription.changed(signal);
  });

  test("forgets who left", async () => {
    const bus = createBus();
    const gone = bus.subscribe("a");
    using stays = bus.subscribe("a");
    gone[Symbol.dispose]();
    bus.publish("a");
    await stays.changed(signal);
  });
});
