/**
 * Power cuts at random moments of whole deployments, under systemd: PID 1 is killed, what the boot loader names is
 * booted, the same again while that machine takes up what it finds, and the deployment ends by itself, on one of the two
 * systems, with the truth told. Neither caches nor disks lose anything here; what a write that was not synced becomes
 * is tested elsewhere (power-cuts-vm.test.ts).
 *
 * SYSTEMD_CUTS says how many (default 40), SYSTEMD_SEED which (printed for each failure); two a deployment, and several
 * machines side by side, because most of the time is spent waiting.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { createSequence } from "../support/closure.ts";
import { createSystemdFleet, type Deployment, STATE_DIRECTORY, type SystemdFleet } from "../support/systemd-fleet.ts";

const CUTS = Number(process.env["SYSTEMD_CUTS"] ?? 40);
const SEED = process.env["SYSTEMD_SEED"] ?? "1";
const LANES = 3;
const CASE_MAX_MS = 90_000;

/** Stage → how long it lasts at most, about, on a quiet machine. A cut may come later, in another stage. */
const STAGES = { activating: 700, confirming: 700, committing: 250, undoing: 900 } as const;
const STAGE_NAMES = ["activating", "confirming", "committing", "undoing"] as const;
/** From the boot, in which units still start, until an undo is surely over. */
const RECOVERY_MS = 1_500;
const NO_DEADLINE = "Nobody would go back if the supervisor were gone";

type CutCase = {
  readonly index: number;
  readonly name: string;
  readonly stage: (typeof STAGE_NAMES)[number];
  /** Into the stage. */
  readonly firstMs: number;
  /** After the boot that followed. */
  readonly secondMs: number;
};

type Lane = {
  readonly under: SystemdFleet;
  /** Two that are good. */
  readonly good: readonly [string, string];
};

const cases = Array.from({ length: Math.ceil(CUTS / 2) }, (_, index): CutCase => {
  const stage = STAGE_NAMES[index % STAGE_NAMES.length] ?? "activating";
  const random = createSequence(`${SEED} ${index}`);
  const firstMs = Math.floor(random() * STAGES[stage]);
  const secondMs = Math.floor(random() * RECOVERY_MS);
  return {
    ...{ index, stage, firstMs, secondMs },
    name: `power cuts ${2 * index} and ${2 * index + 1} of seed ${SEED}: ${firstMs} ms into ${stage}, ${secondMs} ms after the boot`,
  };
});
const results = new Map(cases.map((one) => [one, Promise.withResolvers<void>()]));
const lanes: Lane[] = [];
let running: Promise<unknown>;

beforeAll(async () => {
  for (const { promise } of results.values()) promise.catch(() => {});
  for (let index = 0; index < LANES; index += 1) lanes.push(await createLane(index));
  const queue = [...cases];
  running = Promise.all(lanes.map((lane) => runLane(lane, queue)));
}, 180_000);

afterAll(async () => {
  await running;
  for (const { under } of lanes) await under[Symbol.asyncDispose]();
}, 120_000);

async function createLane(index: number): Promise<Lane> {
  const under = await createSystemdFleet(`cuts${index}`);
  await under.fleet.expectRun(["push", under.installed]);
  const second = await under.build({ version: "2", units: [{ name: "app.service" }] });
  return { under, good: [under.installed, second] };
}

/** Never proves itself. Another one each time: what failed once is not tried again. */
function buildDeaf(under: SystemdFleet, index: number): Promise<string> {
  return under.build({ version: `deaf-${index}`, agent: { flags: ["--url", "http://127.0.0.1:9"] } });
}

async function runLane(lane: Lane, queue: CutCase[]): Promise<void> {
  for (;;) {
    const one = queue.shift();
    if (one === undefined) return;
    const settled = results.get(one);
    await runCase(lane, one).then(settled?.resolve, settled?.reject);
  }
}

for (const one of cases) {
  // They run side by side: the first of them waits for the most.
  test(one.name, () => results.get(one)?.promise ?? Promise.reject(new Error("not run")), CASE_MAX_MS * cases.length);
}

test("after all of them the stores are whole", async () => {
  await running;
  for (const { under } of lanes) {
    expect((await under.box.exec(["nix-store", "--verify", "--check-contents"])).exitCode).toBe(0);
  }
}, 120_000);

async function runCase({ under, good }: Lane, { index, stage, firstMs, secondMs }: CutCase): Promise<void> {
  const before = (await under.state()).profile;
  const [first, second] = good;
  const system = stage === "undoing" ? await buildDeaf(under, index) : before === first ? second : first;
  const end = (await under.start(system, ["--retry", "--confirm-window", stage === "undoing" ? "1s" : "60s"]))();
  // A short stage may pass between two looks: then it is cut after its end.
  const passed = under.stage(stage);
  passed.catch(() => {});
  await Promise.race([passed, end]);
  const cuts: Cut[] = [];
  try {
    for (const delayMs of [firstMs, secondMs]) {
      await Bun.sleep(delayMs);
      cuts.push(await cutPower(under, [before, system]));
    }
    const deployment = await end;
    expect({ cuts, ...deployment, ...(await under.state()) }).toMatchObject(describeEnd(deployment, { before, stage }));
    await under.clean();
  } catch (error) {
    throw new Error(`cut and booted: ${JSON.stringify(cuts)}\n${await under.box.describe()}`, { cause: error });
  }
}

type Cut = { readonly cutIn: string | null; readonly booted: string };

async function cutPower(under: SystemdFleet, [before, system]: readonly [string, string]): Promise<Cut> {
  const { box } = under;
  await box.powerCut();
  const cut = { cutIn: await readStage(under), booted: await box.bootDefault() };
  const mayBeNew = ["committing", "finished", null].includes(cut.cutIn);
  await box.boot();
  expect({ ...cut, mayBoot: mayBeNew ? [before, system] : [before] }).toMatchObject({
    mayBoot: expect.arrayContaining([cut.booted]),
  });
  return cut;
}

/** A power cut is no fault of a version; one to which it is laid would not be tried again. */
function describeEnd({ state, reason, storePath }: Deployment, { before, stage }: { before: string; stage: string }) {
  // Systemd went before the supervisor did, which then could arm no deadline, and touched nothing.
  const isUntouched = stage === "activating" && reason?.startsWith(NO_DEADLINE) === true;
  const runs = state === "succeeded" ? storePath : before;
  return {
    state: isUntouched ? "failed" : expect.stringMatching(/^(succeeded|rolled-back)$/),
    ...(stage === "undoing" ? {} : { fault: null }),
    ...{ profile: runs, current: runs, bootDefault: runs },
  };
}

async function readStage({ box }: SystemdFleet): Promise<string | null> {
  try {
    const record = await readFile(box.diskPath(`${STATE_DIRECTORY}/activation.json`), "utf8");
    return String(Object(JSON.parse(record)).stage);
  } catch {
    return null; // It was over: nothing is on record any more.
  }
}
