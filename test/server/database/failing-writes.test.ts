/**
 * The disk refuses one write, and then takes everything again: each operation is tried with its first, second, third …
 * write refused, until it needs no more of them. Whoever asked is told the truth: what failed has left nothing behind, and
 * what was acknowledged is stored. Done once more, on a disk that is well, it is done.
 */
import { expect, test } from "bun:test";
import { CompiledQuery } from "kysely";
import { z } from "zod";
import { problemSchema } from "../../../src/api/problem.ts";
import { createdTokenSchema } from "../../../src/api/tokens.ts";
import type { DeploymentId } from "../../../src/names.ts";
import { createTestCoordinator, type RequestOptions, type TestCoordinator } from "../../support/coordinator.ts";
import {
  type AgentIdentity,
  createAgentIdentity,
  logEntry,
  machineState,
  numberEntries,
  openScriptedAgent,
  outcomeEntry,
  phaseEntry,
  type ScriptedAgent,
} from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const ONE = createTinyPath("one");
const TWO = createTinyPath("two");
const THREE = createTinyPath("three");

const FAULTS = ["SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_BUSY"] as const;
const WRITES = /^\s*(?:insert|update|delete|replace|begin|commit|savepoint|release)\b/i;
/** More than any operation has. */
const WRITES_MAX = 80;

/** A coordinator with one agent at work, one that is away, and what an operation may be about. */
type World = {
  readonly server: TestCoordinator;
  readonly identity: AgentIdentity;
  readonly newcomer: AgentIdentity;
  readonly agentToken: string;
  readonly doomedToken: string;
  /** Of `nuc`, which is fetching it; then one that failed, of `away`. */
  readonly running: DeploymentId;
  readonly failed: DeploymentId;
  agent: ScriptedAgent;
};

type Done = "done" | "refused";
type Operation = readonly [name: string, run: (world: World) => Promise<Done>];

const OPERATIONS: readonly Operation[] = [
  ["create a token", (world) => ask(world, "tokens", { json: { kind: "push" } })],
  ["revoke a token", (world) => ask(world, `tokens/${world.doomedToken}`, { method: "DELETE" })],
  ["set a webhook", (world) => ask(world, "webhook", { method: "PUT", json: { url: "http://127.0.0.1:1/" } })],
  ["publish a path", (world) => ask(world, "caches/default/paths", { json: { paths: [THREE.published] } })],
  ["start a rollout", (world) => ask(world, "rollouts", rollout({ nuc: TWO.storePath, away: TWO.storePath }))],
  ["start a rollout for an agent that is free", (world) => ask(world, "rollouts", rollout({ free: TWO.storePath }))],
  ["cancel", (world) => ask(world, "cancellations", { json: { of: ["nuc"] } })],
  ["try again", (world) => ask(world, "retries", { json: { of: [world.failed] } })],
  ["log in", async ({ server, identity }) => await logIn(server, identity, {})],
  ["enroll", async ({ server, newcomer, agentToken }) => await logIn(server, newcomer, { enrolmentToken: agentToken })],
  ["report", (world) => report(world, numberEntries([phaseEntry("activating"), logEntry("line")], 2))],
  ["report the end", (world) => report(world, numberEntries([logEntry("line"), outcomeEntry("succeeded")], 2))],
];

function rollout(agents: Readonly<Record<string, string>>): RequestOptions {
  return { json: { agents, mode: "switch" } };
}

async function ask({ server }: World, path: string, options: RequestOptions): Promise<Done> {
  const answer = await server.fetch(path, options);
  if (answer.ok) return "done";
  const problem = problemSchema.parse(await answer.json());
  expect(problem.title).toContain("cannot use the coordinator's database: ");
  return "refused";
}

async function logIn(server: TestCoordinator, identity: AgentIdentity, hello: object): Promise<Done> {
  const agent = openScriptedAgent(server.coordinator, identity);
  await agent.login({ state: machineState(null), ...hello });
  return agent.framesOf("welcome").length > 0 && agent.closed === null ? "done" : "refused";
}

/** On the connection that there is, or else on a new one. */
async function report(world: World, entries: Parameters<ScriptedAgent["report"]>[1]): Promise<Done> {
  const { server, running } = world;
  if (world.agent.closed !== null) {
    world.agent = await server.connectAgent(world.identity, { state: machineState(running) });
  }
  const through = await world.agent.report(running, entries);
  return through === entries.at(-1)?.n ? "done" : "refused";
}

async function createWorld(beforeStatement: (text: string) => void): Promise<World> {
  const server = await createTestCoordinator({ beforeStatement });
  await server.publishUnseen(ONE, TWO);
  const agent = await server.connectAgent("nuc");
  const away = await server.connectAgent("away");
  const free = await server.connectAgent("free");
  const { deployments } = await server.activate(ONE, "nuc", "away");
  const idOf = (name: string) => deployments.find((each) => each.agent === name)?.id ?? ("" as DeploymentId);
  await agent.report(idOf("nuc"), numberEntries([phaseEntry("fetching")]));
  await away.report(idOf("away"), numberEntries([outcomeEntry("failed")]));
  await away.disconnect();
  expect(free.closed).toBeNull();
  const agentToken = (await server.createToken("agent")).token;
  const doomed = createdTokenSchema.parse(await (await server.fetch("tokens", { json: { kind: "read" } })).json());
  // Its file is there, and it is not published.
  await server.upload(THREE);
  return {
    ...{ server, agent, agentToken, doomedToken: doomed.id, identity: agent.identity },
    ...{ newcomer: createAgentIdentity("newcomer"), running: idOf("nuc"), failed: idOf("away") },
  };
}

const FLEETING = ["last_used_ms", "last_seen_ms", "state", "at_ms"];
/** Written after the answer: what was done is not undone because it could not be noted. */
const NOTED_AFTERWARDS = "audit_log";

/** All that is stored, but for what any request may touch; ids and times of what is new differ from run to run. */
async function readAll({ server }: World): Promise<Readonly<Record<string, readonly unknown[]>>> {
  const { database } = server.coordinator.services;
  const query = async (text: string) => (await database.executeQuery(CompiledQuery.raw(text))).rows;
  const tables = z
    .array(z.object({ name: z.string() }))
    .parse(await query("select name from sqlite_schema where type = 'table'"));
  const all: Record<string, readonly unknown[]> = {};
  for (const { name } of tables.filter((table) => table.name !== NOTED_AFTERWARDS)) {
    const rows = z
      .array(z.record(z.string(), z.unknown()))
      .parse(await query(`select * from "${name}" order by rowid`));
    const kept = (table: string, column: string) => table === "deployments" || !FLEETING.includes(column);
    all[name] = rows.map((row) => Object.fromEntries(Object.entries(row).filter(([column]) => kept(name, column))));
  }
  return all;
}

/** How many rows there are of what. */
function count(all: Readonly<Record<string, readonly unknown[]>>): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(all).map(([name, rows]) => [name, rows.length]));
}

async function tryWith(
  [, run]: Operation,
  fault: { readonly code: string; readonly atWrite: number } | null,
): Promise<{ readonly hasFailed: boolean; readonly counts: Readonly<Record<string, number>> }> {
  let writesLeft = Number.POSITIVE_INFINITY;
  let hasFailed = false;
  const world = await createWorld((text) => {
    if (!WRITES.test(text)) return;
    writesLeft -= 1;
    if (writesLeft !== 0) return;
    hasFailed = true;
    throw Object.assign(new Error("the disk refuses"), { code: fault?.code });
  });
  await using server = world.server;
  const before = await readAll(world);
  if (fault !== null) writesLeft = fault.atWrite;
  const first = await run(world);
  writesLeft = Number.POSITIVE_INFINITY;
  if (first === "refused") {
    expect(hasFailed).toBe(true);
    expect(await readAll(world)).toEqual(before);
    expect(await run(world)).toBe("done");
  }
  // What was put off for want of a write is done by itself.
  await server.clock.advance(60_000);
  // The coordinator says what it could not do, and takes the disk's refusal for no mistake of its own.
  expect(server.logged.filter(({ message }) => message.includes("bug"))).toEqual([]);
  server.logged.length = 0;
  return { hasFailed, counts: count(await readAll(world)) };
}

for (const [index, operation] of OPERATIONS.entries()) {
  // The codes differ only in what is said about them.
  const code = FAULTS[index % FAULTS.length] ?? FAULTS[0];
  test(`${operation[0]}: ${code} at any of its writes`, async () => {
    const { counts: expected } = await tryWith(operation, null);
    let writes = 0;
    for (let atWrite = 1; atWrite <= WRITES_MAX; atWrite += 1) {
      const { hasFailed, counts } = await tryWith(operation, { code, atWrite });
      if (!hasFailed) break;
      writes = atWrite;
      expect({ atWrite, counts }).toEqual({ atWrite, counts: expected });
    }
    expect(writes).toBeGreaterThan(0);
    expect(writes).toBeLessThan(WRITES_MAX);
  });
}
