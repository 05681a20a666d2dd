/**
 * Power cuts at random moments while the coordinator's own host takes a new nixdeploy, or fails to: PID 1 is killed, and
 * with it coordinator, agent and supervisor. What the boot loader names is booted; the deployment ends by itself, on one
 * of the two systems; who waits outside is told which.
 *
 * OWN_HOST_CUTS says how many (default 3), OWN_HOST_SEED which (printed for each failure).
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { createSequence } from "../support/closure.ts";
import { createOwnHost, OWN_STATE_DIRECTORY, type OwnHost, SERVE_UNIT } from "../support/own-host.ts";
import { waitFor } from "../support/wait-for.ts";

const CUTS = Number(process.env["OWN_HOST_CUTS"] ?? 3);
const SEED = process.env["OWN_HOST_SEED"] ?? "1";

/** Stage → how long it lasts at most, about, on a quiet machine. A cut may come later, in another stage. */
const STAGES = { activating: 1_200, confirming: 1_000, undoing: 1_200, committing: 250 } as const;
const STAGE_NAMES = ["activating", "confirming", "undoing", "committing"] as const;

let host: OwnHost;
let before: string;
/** With the one version of the program and with the other. */
let good: readonly [string, string];

beforeAll(async () => {
  host = await createOwnHost("own-host-cuts");
  before = host.installed;
  const next = await host.build({ version: "next", program: "next" });
  good = [before, next];
  for (const system of good) await host.push(system);
}, 120_000);
afterAll(() => host[Symbol.asyncDispose]());

for (let cut = 0; cut < CUTS; cut += 1) {
  const stage = STAGE_NAMES[cut % STAGE_NAMES.length] ?? "activating";
  const delayMs = Math.floor(createSequence(`${SEED} ${cut}`)() * STAGES[stage]);
  test(`power cut ${cut} of seed ${SEED}: ${delayMs} ms into ${stage}`, async () => {
    const { box } = host;
    const system = stage === "undoing" ? await buildDeaf(cut) : before === good[0] ? good[1] : good[0];
    const rollout = host.start(system, ["--confirm-window", stage === "undoing" ? "1s" : "60s"]);
    await waitFor(`the activation to be ${stage}`, readStage, {
      ...{ timeoutMs: 40_000, intervalMs: 3, until: (now) => now === stage, describe: rollout.process.output },
    });
    await Bun.sleep(delayMs);
    await box.powerCut();
    const cutIn = await readStage();
    const booted = await box.bootDefault();
    expect([before, system]).toContain(booted);
    if (cutIn === "activating" || cutIn === "confirming" || cutIn === "undoing") expect(booted).toBe(before);
    await box.boot();
    try {
      const { exitCode, deployment, output } = await rollout.end();
      // It may have been told before the cut.
      await waitFor("serve to be ready", () => box.unit(SERVE_UNIT, "ActiveState"), { until: (is) => is === "active" });
      const hasSucceeded = deployment.state === "succeeded";
      const runs = hasSucceeded ? system : before;
      // Systemd went before the supervisor did, which then could arm no deadline, and touched nothing.
      const isUntouched = deployment.reason?.startsWith("Nobody would go back if the supervisor were gone") === true;
      expect({ cutIn, exitCode, output, ...deployment, ...(await host.state()) }).toMatchObject({
        exitCode: hasSucceeded ? 0 : 1,
        state: isUntouched ? "failed" : expect.stringMatching(/^(succeeded|rolled-back)$/),
        ...{ profile: runs, current: runs, bootDefault: runs },
      });
      before = runs;
    } catch (error) {
      throw new Error(`cut in ${cutIn}, booted ${booted}\n${await box.describe()}`, { cause: error });
    }
  }, 90_000);
}

test("after all of them the database is whole", async () => {
  expect(await host.checkDatabase()).toEqual(["ok"]);
});

/** Nobody finds its `serve`. Another one each time: what failed once is not tried again. */
async function buildDeaf(cut: number): Promise<string> {
  const system = await host.build({ version: `deaf-${cut}`, program: "next", listen: "127.0.0.1:0" });
  await host.push(system);
  return system;
}

/** Null when nothing is on record. */
async function readStage(): Promise<string | null> {
  try {
    const record = await readFile(host.box.diskPath(`${OWN_STATE_DIRECTORY}/activation.json`), "utf8");
    return String(Object(JSON.parse(record)).stage);
  } catch {
    return null;
  }
}
