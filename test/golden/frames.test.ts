/**
 * The frames of every release that is out, and of the one that is being made: today's program understands each of them,
 * whole, and answers it. See frames/README.md for what they are.
 */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { openDeploymentStore } from "../../src/agent/journal/deployment-store.ts";
import { loadIdentity } from "../../src/agent/link/identity.ts";
import { login } from "../../src/agent/link/login.ts";
import { runSession } from "../../src/agent/link/session.ts";
import { decodeAgentFrame, decodeCoordinatorFrame } from "../../src/frames.ts";
import { silentLogger } from "../../src/log.ts";
import { loginMessage } from "../../src/login-message.ts";
import { type DeploymentId, parseAgentName, parseDeploymentId } from "../../src/names.ts";
import { publicKeyFromSeed, signMessage } from "../../src/nix/signature.ts";
import { agentFrameSchema, cachesSchema, coordinatorFrameSchema, helloSchema } from "../../src/protocol.ts";
import { systemClock, systemRandom } from "../../src/runtime.ts";
import { NIXDEPLOY_VERSION } from "../../src/version.ts";
import { createTestCoordinator, type TestCoordinator } from "../support/coordinator.ts";
import { createMemoryDialer } from "../support/memory-socket.ts";
import { createAgentIdentity, openScriptedAgent } from "../support/scripted-agent.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { createTinyPath } from "../support/tiny-path.ts";
import { findUnshown } from "./schema-coverage.ts";

const FOLDER = join(import.meta.dir, "frames");
const RELEASES = readdirSync(FOLDER).filter((name) => /^\d+\.\d+$/.test(name));
const NEWEST = NIXDEPLOY_VERSION.split(".").slice(0, 2).join(".");
const SIDES = {
  agent: { schema: agentFrameSchema, decode: decodeAgentFrame },
  coordinator: { schema: coordinatorFrameSchema, decode: decodeCoordinatorFrame },
} as const;

const frameSchema = z.looseObject({ kind: z.string() });
type Frame = z.output<typeof frameSchema>;

function readFrames(release: string, file: string): readonly Frame[] {
  return z
    .array(frameSchema)
    .min(1)
    .parse(JSON.parse(readFileSync(join(FOLDER, release, file), "utf8")));
}

function framesOf(release: string, side: keyof typeof SIDES): readonly Frame[] {
  const files = readdirSync(join(FOLDER, release)).filter((file) => file.startsWith(`${side}-`));
  return files.flatMap((file) => readFrames(release, file));
}

test("there is a folder for this release", () => expect(RELEASES).toContain(NEWEST));

describe.each(RELEASES)("release %s", (release) => {
  for (const file of readdirSync(join(FOLDER, release))) {
    test(`${file} is understood, and nothing of it is dropped`, () => {
      const [side, kind] = /^(agent|coordinator)-([a-z]+)\.json$/.exec(file)?.slice(1) ?? [];
      for (const frame of readFrames(release, file)) {
        const { decode } = side === "agent" ? SIDES.agent : SIDES.coordinator;
        expect(frame.kind).toBe(kind ?? "");
        expect<unknown>(decode(JSON.stringify(frame))).toEqual({ kind: "frame", frame });
      }
    });
  }

  test("the coordinator of today serves an agent of then", async () => {
    for (const hello of framesOf(release, "agent").filter(({ kind }) => kind === "hello"))
      await serveAgent(release, hello);
  });

  test("the agent of today understands a coordinator of then", async () => {
    for (const welcome of framesOf(release, "coordinator").filter(({ kind }) => kind === "welcome")) {
      await meetCoordinator(release, welcome);
    }
  });
});

describe("the newest folder shows all that a frame may have", () => {
  for (const side of ["agent", "coordinator"] as const) {
    for (const option of SIDES[side].schema.options) {
      const { kind } = option.shape;
      test(`${side}: ${kind.value}`, () => {
        expect(findUnshown(option, readFrames(NEWEST, `${side}-${kind.value}.json`))).toEqual([]);
      });
    }
  }
});

test("what no sample shows is found", () => {
  const schema = z.object({ a: z.string().optional(), b: z.enum(["x", "y"]), c: z.number().nullable(), d: z.string() });
  const samples = [{ a: "", b: "x", c: 1 }];
  expect(findUnshown(schema, samples)).toEqual([".a (absent)", '.b = "y"', ".c = null", ".d (present)"]);
});

/** Logs in with a hello of that release, under a key of our own, and sends everything that an agent may say. */
async function serveAgent(release: string, sample: Frame): Promise<void> {
  const system = createTinyPath("system");
  await using server = await createTestCoordinator();
  await server.publishUnseen(system);
  const identity = createAgentIdentity("nuc");
  const first = await server.connectAgent(identity.name);
  await first.disconnect();
  const rollout = await server.activate(system, "nuc");
  const id = rollout.deployments[0]?.id;
  if (id === undefined) throw new Error("the rollout has no deployment");
  // The keys of the sample are nobody's, so it can sign for none.
  const { proof, rotate: _, ...hello } = helloSchema.parse(sample);
  const agent = openScriptedAgent(server.coordinator, first.identity);
  const claim = proof?.by === "supervisor" ? { proof } : {};
  await agent.send({
    ...hello,
    ...claim,
    publicKey: Buffer.from(publicKeyFromSeed(first.identity.seed)).toString("base64"),
    signature: Buffer.from(
      signMessage(first.identity.seed, loginMessage({ nonce: agent.nonce, name: "nuc", ...claim })),
    ).toString("base64"),
  });
  expect(agent.framesOf("welcome")).toHaveLength(1);
  if (proof?.by === "supervisor") return;
  expect(agent.framesOf("offer")).toMatchObject([{ deploymentId: id, storePath: system.storePath }]);
  await sayEverything(release, { server, agent, id });
}

async function sayEverything(
  release: string,
  to: {
    readonly server: TestCoordinator;
    readonly agent: ReturnType<typeof openScriptedAgent>;
    readonly id: DeploymentId;
  },
): Promise<void> {
  const { server, agent, id } = to;
  for (const frame of framesOf(release, "agent")) {
    const before = agent.received.length;
    if (frame.kind === "hello") continue;
    await agent.sendText(JSON.stringify(frame.kind === "report" ? { ...frame, deploymentId: id } : frame));
    const answers = agent.received.slice(before).map(({ kind }) => kind);
    if (frame.kind === "report" || frame.kind === "announce") expect(answers).toContain("acknowledge");
    if (frame.kind === "ping") expect(answers).toEqual(["pong"]);
    expect([frame.kind, answers]).not.toEqual([frame.kind, ["error"]]);
  }
  expect(agent.closed).toBeNull();
  const deployment = z.object({ state: z.string() }).parse(await (await server.fetch(`deployments/${id}`)).json());
  expect(["queued", "offered"]).not.toContain(deployment.state);
}

/** Plays a coordinator of that release to the real login and session of an agent. */
async function meetCoordinator(release: string, welcome: Frame): Promise<void> {
  await using directory = await createTemporaryDirectory("golden");
  const frames = framesOf(release, "coordinator");
  const stop = new AbortController();
  const common = { clock: systemClock, random: systemRandom, signal: stop.signal, stateDirectory: directory.path };
  const dial = createMemoryDialer((peer) => {
    for (const frame of frames.filter(({ kind }) => kind === "challenge")) peer.sendText(JSON.stringify(frame));
    peer.sendText(JSON.stringify(welcome));
    for (const frame of frames.filter(({ kind }) => !["challenge", "welcome", "refused"].includes(kind))) {
      peer.sendText(JSON.stringify(frame));
    }
    peer.close("that is all");
  });
  const state = { profilePath: null, generation: null, currentPath: null, bootedPath: null, storeFreeBytes: null };
  const result = await login({
    ...common,
    coordinatorUrl: "http://coordinator.test",
    name: parseAgentName("nuc"),
    identity: await loadIdentity(common),
    enrolmentToken: null,
    readFacts: async () => ({
      ...{ agentVersion: NIXDEPLOY_VERSION, system: "x86_64-linux", hostName: "nuc", nixVersion: null },
      ...{ profile: "/nix/var/nix/profiles/system", state: { ...state, inFlight: null } },
    }),
    dial,
  });
  if (result.kind !== "welcome") throw new Error("the agent did not take the welcome");
  expect<unknown>(result.welcome).toEqual(welcome);
  const told: string[] = [];
  await using store = await openDeploymentStore({ ...common, followed: null });
  const why = await runSession({
    ...common,
    ...result,
    store,
    logger: silentLogger,
    handlers: {
      onOffer: ({ deploymentId, mode }) => void told.push(`offer ${deploymentId} ${mode}`),
      onCancel: (deploymentId) => void told.push(`cancel ${deploymentId}`),
      onCaches: async ({ cache, substituters = [] }) => void told.push(`caches ${cache.name} ${substituters.length}`),
    },
  });
  const expected = frames.flatMap((frame) => {
    const id = parseDeploymentId(String(frame["deploymentId"] ?? "0000000000000000"));
    if (frame.kind === "caches") {
      const { cache, substituters = [] } = cachesSchema.parse(frame);
      return [`caches ${cache.name} ${substituters.length}`];
    }
    if (frame.kind === "offer") return [`offer ${id} ${String(frame["mode"])}`];
    return frame.kind === "cancel" ? [`cancel ${id}`] : [];
  });
  expect({ told, why }).toEqual({ told: expected, why: "that is all" });
}
