/** What is found of an agent by its state directory alone. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { writeRecord } from "../../src/agent/activation/record.ts";
import { writeEnrolment } from "../../src/agent/link/enrolment.ts";
import { loadIdentity } from "../../src/agent/link/identity.ts";
import { tryLockFile } from "../../src/agent/machine/flock.ts";
import { type AgentLook, createAgentChecks } from "../../src/doctor/agent-checks.ts";
import { parseAgentId, parseAgentName, parseCacheName, parseWorkspaceName } from "../../src/names.ts";
import { formatPublicKey, publicKeyOf, secretKeyFromSeed } from "../../src/nix/signing-key.ts";
import { systemClock, systemRandom } from "../../src/runtime.ts";
import { NEW, recordOf } from "../agent/activation/records.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";

const URL = "https://coordinator.example";
const keyOf = (seed: number) =>
  formatPublicKey(publicKeyOf(secretKeyFromSeed("default-1", new Uint8Array(32).fill(seed))));
const PINNED = keyOf(1);
const OTHER = keyOf(2);

let directory: TemporaryDirectory;
let stateDirectory: string;

beforeEach(async () => {
  directory = await createTemporaryDirectory("agent-checks");
  stateDirectory = directory.join("state");
  await mkdir(stateDirectory, { mode: 0o700 });
});
afterEach(() => directory[Symbol.asyncDispose]());

/** "ok …", "warning …" of one check. */
async function look(name: string, changes: Partial<AgentLook> = {}): Promise<string[]> {
  const checks = createAgentChecks({
    agent: { name: parseAgentName("nuc"), stateDirectory, profilePath: "/profiles/test", healthChecksFile: null },
    ...{ environment: {}, clock: systemClock, url: URL, findCache: async () => null },
    ...changes,
  });
  const check = checks.find((each) => each.name === `nuc ${name}`);
  if (check === undefined) throw new Error(`there is no check ${name}`);
  const findings = await check.look(new AbortController().signal);
  return findings.map(({ verdict, message }) => `${verdict}: ${message}`);
}

describe("its key", () => {
  test("is missed before the first start, and known by its fingerprint then", async () => {
    expect(await look("key")).toEqual([`warning: there is no key in ${stateDirectory} yet`]);
    const { fingerprint } = await loadIdentity({ stateDirectory, random: systemRandom });
    expect(await look("key")).toEqual([`ok: ${fingerprint}, for its owner alone`]);
  });
});

describe("its folder", () => {
  test("is good when nobody else looks into it", async () => {
    expect(await look("state")).toEqual([`ok: ${stateDirectory} is for its owner alone`]);
  });

  test("is a fault when others do", async () => {
    await chmod(stateDirectory, 0o755);
    expect(await look("state")).toEqual([`fault: others may look into ${stateDirectory} (mode 755)`]);
  });
});

describe("its enrolment", () => {
  const enrol = (pinnedPublicKeys: readonly string[] = [PINNED]) =>
    writeEnrolment(stateDirectory, {
      ...{ coordinatorUrl: URL, agentId: parseAgentId("aaaaaaaaaaaaaaaa"), workspace: parseWorkspaceName("home") },
      ...{ pinnedPublicKeys: [...pinnedPublicKeys], pinnedCache: parseCacheName("default") },
    });
  const cache = (name: string, ...publicKeys: string[]) => ({
    findCache: async () => ({ name: parseCacheName(name), publicKeys }),
  });
  const ADMITTED = `ok: admitted to the workspace home of ${URL}`;
  const GOOD = `ok: pinned: ${PINNED}`;

  test("is awaited", async () => {
    expect(await look("enrolment")).toEqual(["warning: no coordinator has admitted it yet"]);
  });

  test.each<readonly [string, Partial<AgentLook>, readonly string[]]>([
    ["the cache signs with what is pinned", cache("default", OTHER, PINNED), [ADMITTED, GOOD]],
    ["another cache signs with something else", cache("other", OTHER), [ADMITTED, GOOD]],
    [
      "nobody says what the cache signs with",
      { findCache: () => Promise.reject(new Error("no token")) },
      [ADMITTED, GOOD],
    ],
    ["commands here go nowhere", { url: null }, [ADMITTED, GOOD]],
    [
      "commands here go elsewhere, whose cache says nothing of it",
      { url: "https://elsewhere.example", ...cache("default", OTHER) },
      [ADMITTED, GOOD, `warning: it talks to ${URL}, commands here to https://elsewhere.example`],
    ],
    [
      "its cache signs with something else",
      cache("default", OTHER),
      [ADMITTED, `fault: what is pinned (${PINNED}) is not what the cache signs with now (${OTHER})`],
    ],
  ])("is looked at where %s", async (_, changes, findings) => {
    await enrol();
    expect(await look("enrolment", changes)).toEqual([...findings]);
  });
});

describe("its journals", () => {
  test("are counted", async () => {
    expect(await look("journals")).toEqual(["ok: 0 journals kept"]);
  });

  test("of an activation that somebody carries out are good; one that nobody does is said", async () => {
    await writeRecord(stateDirectory, recordOf({ stage: "confirming" }));
    expect(await look("journals")).toEqual([
      `warning: an activation of ${NEW} is on record (confirming), and nobody carries it out`,
    ]);
    using lock = tryLockFile(join(stateDirectory, "activation.lock"));
    expect(lock).not.toBeNull();
    expect(await look("journals")).toEqual([`ok: it activates ${NEW} at this moment (confirming)`]);
  });
});
