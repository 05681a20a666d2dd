/** An agent and its coordinator: first contact, refusals, lost connections; and that there is one agent on a profile. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmod, stat } from "node:fs/promises";
import { NixdeployError } from "../../src/errors.ts";
import { waitFor } from "../support/wait-for.ts";
import { type AgentBench, openAgentBench, TRUSTED } from "./agent-bench.ts";
import { takeHello, welcomeFrame } from "./scripted-coordinator.ts";

let bench: AgentBench;

beforeEach(async () => {
  bench = await openAgentBench();
});
afterEach(() => bench[Symbol.asyncDispose]());

describe("login", () => {
  test("sends the token at the first contact only, pins the keys, and says where it is connected", async () => {
    const first = bench.startAgent();
    const peer = await bench.nextPeer();
    const hello = await takeHello(peer);
    expect(hello).toMatchObject({
      name: "nuc",
      enrolmentToken: "the-token",
      agentVersion: "1.2.3",
      nixVersion: "2.8.0",
    });
    peer.send(welcomeFrame({ publicKeys: [TRUSTED] }));
    await waitFor("the line", () =>
      bench.logged.includes(`connected to ${bench.cache.url} as nuc (workspace default)`),
    );
    await first.stop();
    expect((await stat(bench.directory.join("state", "key"))).mode & 0o777).toBe(0o600);

    const second = bench.startAgent();
    const again = await bench.nextPeer();
    expect(await takeHello(again)).not.toHaveProperty("enrolmentToken");
    again.send({ kind: "refused", code: "not-enrolled", message: "who are you?" });
    const third = await takeHello(await bench.nextPeer());
    expect(third).toMatchObject({ enrolmentToken: "the-token", publicKey: hello.publicKey });
    await second.stop();
  });

  test("that is refused for its credential at the very first contact ends the agent", async () => {
    for (const [token, code] of [
      [null, "not-enrolled"],
      ["the-token", "token-refused"],
    ] as const) {
      const agent = bench.startAgent({ enrolmentToken: token });
      const peer = await bench.nextPeer();
      await takeHello(peer);
      peer.send({ kind: "refused", code, message: "no" });
      const error = await agent.done.catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(NixdeployError);
      expect(error).toMatchObject({ kind: "denied", message: expect.stringContaining("cannot log in as nuc: no") });
    }
  });

  test("that is refused for another reason is tried again", async () => {
    const agent = bench.startAgent();
    for (const code of ["name-taken", "other-name", "bad-signature", "version"] as const) {
      const peer = await bench.nextPeer();
      await takeHello(peer);
      peer.send({ kind: "refused", code, message: `because of ${code}` });
      await waitFor("the line", () => bench.logged.some((line) => line.includes(`because of ${code}`)));
    }
    await bench.admit();
    await agent.stop();
  });

  test("survives connections that end, are silent, or talk nonsense", async () => {
    const agent = bench.startAgent();
    (await bench.nextPeer()).close("maintenance");
    (await bench.nextPeer()).sendText("{");
    (await bench.nextPeer()).send({ kind: "pong" });
    const peer = await bench.nextPeer();
    peer.sendText('{"kind":"song","verses":3}');
    await takeHello(peer).catch(async () => undefined);
    peer.send(welcomeFrame());
    await waitFor("the welcome", () => bench.logged.some((line) => line.startsWith("connected")));
    expect(bench.logged.join("\n")).toContain("it ended the connection (maintenance)");
    await agent.stop();
    expect(peer.isClosed).toBe(true);
  });

  test("with a key that others may read is refused before anything is sent", async () => {
    const first = bench.startAgent();
    await bench.admit();
    await first.stop();
    await chmod(bench.directory.join("state", "key"), 0o640);
    await expect(bench.startAgent().done).rejects.toThrow("other users may read it");
  });
});

test("a second agent on the profile, or on the state directory, is refused", async () => {
  const agent = bench.startAgent();
  await bench.nextPeer();
  await expect(bench.startAgent({ stateDirectory: bench.directory.join("other") }).done).rejects.toThrow(
    "another one keeps the profile",
  );
  await expect(bench.startAgent({ profilePath: bench.directory.join("other-profile") }).done).rejects.toThrow(
    "uses the state directory",
  );
  await agent.stop();
});
