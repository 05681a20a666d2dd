/**
 * Power cuts at random moments of whole deployments, under systemd: PID 1 is killed, what the boot loader names is
 * booted, and the deployment ends by itself, on one of the two systems, with the truth told. Neither caches nor disks
 * lose anything here; what a write that was not synced may become is tested elsewhere.
 *
 * SYSTEMD_CUTS says how many (default 10), SYSTEMD_SEED which (printed for each failure).
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { createSequence } from "../support/closure.ts";
import { createSystemdFleet, STATE_DIRECTORY, type SystemdFleet } from "../support/systemd-fleet.ts";

const CUTS = Number(process.env["SYSTEMD_CUTS"] ?? 10);
const SEED = process.env["SYSTEMD_SEED"] ?? "1";

/** Stage → how long it lasts at most, about, on a quiet machine. A cut may come later, in another stage. */
const STAGES = { activating: 700, confirming: 700, committing: 250, undoing: 900 } as const;
const STAGE_NAMES = ["activating", "confirming", "committing", "undoing"] as const;

let under: SystemdFleet;
let before: string;
/** Two that are good. */
let good: readonly [string, string];

beforeAll(async () => {
  under = await createSystemdFleet("cuts");
  before = under.installed;
  await under.fleet.expectRun(["push", before]);
  good = [before, await under.build({ version: "2", units: [{ name: "app.service" }] })];
}, 90_000);
afterAll(() => under[Symbol.asyncDispose]());

const NO_DEADLINE = "Nobody would go back if the supervisor were gone";

for (let cut = 0; cut < CUTS; cut += 1) {
  const stage = STAGE_NAMES[cut % STAGE_NAMES.length] ?? "activating";
  const delayMs = Math.floor(createSequence(`${SEED} ${cut}`)() * STAGES[stage]);
  test(`power cut ${cut} of seed ${SEED}: ${delayMs} ms into ${stage}`, async () => {
    const { box } = under;
    const [first, second] = good;
    const system = stage === "undoing" ? await buildDeaf(cut) : before === first ? second : first;
    const end = await under.start(system, ["--confirm-window", stage === "undoing" ? "1s" : "60s"]);
    await under.stage(stage);
    await Bun.sleep(delayMs);
    await box.powerCut();
    const cutIn = await readStage();
    const booted = await box.bootDefault();
    if (cutIn !== "committing" && cutIn !== "finished" && cutIn !== null)
      expect({ cutIn, booted }).toEqual({ cutIn, booted: before });
    expect([before, system]).toContain(booted);
    await box.boot();
    try {
      const deployment = await end();
      const runs = deployment.state === "succeeded" ? system : before;
      // Systemd went before the supervisor did, which then could arm no deadline, and touched nothing.
      const isUntouched = stage === "activating" && deployment.reason?.startsWith(NO_DEADLINE) === true;
      expect({ cutIn, ...deployment, ...(await under.state()) }).toMatchObject({
        state: isUntouched ? "failed" : expect.stringMatching(/^(succeeded|rolled-back)$/),
        ...{ profile: runs, current: runs, bootDefault: runs },
      });
      before = runs;
      await under.clean();
    } catch (error) {
      throw new Error(`cut in ${cutIn}, booted ${booted}\n${await box.describe()}`, { cause: error });
    }
  }, 60_000);
}

test("after all of them the store is whole", async () => {
  expect((await under.box.exec(["nix-store", "--verify", "--check-contents"])).exitCode).toBe(0);
}, 60_000);

/** Never proves itself. Another one each time: what failed once is not tried again. */
function buildDeaf(cut: number): Promise<string> {
  return under.build({ version: `deaf-${cut}`, agent: { flags: ["--url", "http://127.0.0.1:9"] } });
}

async function readStage(): Promise<string | null> {
  try {
    const record = await readFile(under.box.diskPath(`${STATE_DIRECTORY}/activation.json`), "utf8");
    return String(Object(JSON.parse(record)).stage);
  } catch {
    return null; // It was over: nothing is on record any more.
  }
}
