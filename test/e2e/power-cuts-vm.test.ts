/**
 * Power cuts of a whole machine at random moments of deployments: a kernel and ext4 that lose what was not synced
 * (virtual-machine.ts says what that is). What the boot file names is booted, and the deployment ends by itself, on one of
 * the two systems, with the truth told, nothing left over, and every byte of the store as it should be.
 *
 * VM_CUTS says how many (default 3), VM_SEED which (printed for each failure).
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { addBigPath, createSequence } from "../support/closure.ts";
import { SYSTEM_PROFILE } from "../support/device.ts";
import {
  createVirtualFleet,
  type Deployment,
  FULL_FILE,
  FULL_FILE_BYTES,
  type VirtualFleet,
} from "../support/virtual-fleet.ts";

const CUTS = Number(process.env["VM_CUTS"] ?? 3);
const SEED = process.env["VM_SEED"] ?? "1";

/** Moment → what the console says when it has come. Those that find the most come first. */
const MOMENTS = {
  over: /@stage none/,
  committing: /@stage committing/,
  undoing: /@stage undoing/,
  activating: /@stage activating/,
  fetching: /deployment \w+ fetching/,
  confirming: /@stage confirming/,
} as const;
type Moment = keyof typeof MOMENTS;
const MOMENT_NAMES = ["over", "committing", "undoing", "activating", "fetching", "confirming"] as const;
/** How long it lasts at most, about, without KVM. A cut may come later, at another moment. */
const LASTS_MS: Readonly<Record<Moment, number>> = {
  ...{ over: 2_000, committing: 4_000, undoing: 6_000, activating: 5_000, fetching: 3_000, confirming: 800 },
};
const PAYLOAD_BYTES = 1_000_000;
/** Without KVM, on a busy machine. */
const CASE_MAX_MS = 600_000;
const REACHED_MAX_MS = 240_000;
/** A boot loader entry is written for each generation, and that takes its time here. */
const GENERATIONS_KEPT = 3;

let under: VirtualFleet;
/** Whether the machine is on, and as the last test should have left it. */
let isSound = false;

beforeAll(async () => {
  under = await createVirtualFleet("vm-cuts");
  isSound = true;
}, CASE_MAX_MS);
afterAll(() => under[Symbol.asyncDispose](), 30_000);

/**
 * A cut that failed leaves a machine of which nothing is known, and may leave it on: it is powered off, and the next cut
 * gets a new one with disks of its own, so that one failure is one failure.
 */
async function withSoundMachine(work: (under: VirtualFleet) => Promise<void>): Promise<void> {
  if (!isSound) {
    await under[Symbol.asyncDispose]();
    under = await createVirtualFleet("vm-cuts");
  }
  isSound = false;
  await work(under);
  isSound = true;
}

test(
  "the machine forgets what was not synced, whether its kernel had it or the disk",
  () =>
    withSoundMachine(async ({ machine }) => {
      const [kept, lost] = ["/boot/synced", "/boot/in-memory"];
      const blocks = `bs=4096 count=${FULL_FILE_BYTES / 4_096}`;
      const write = `tr '\\0' b < /dev/zero | dd of=${FULL_FILE} ${blocks} iflag=fullblock oflag=direct conv=notrunc`;
      await machine.run(`echo kept > ${kept}; sync -f /boot; echo lost > ${lost}; ${write}; grep -q b ${FULL_FILE}`);
      await machine.powerCut();
      await machine.boot();
      const left = await machine.run(`cat ${kept}; ls ${lost}; tr -d a < ${FULL_FILE} | wc -c; rm ${kept}`);
      expect(left.split("\n")).toEqual(["kept", expect.stringContaining("cannot access"), "0"]);
    }),
  CASE_MAX_MS,
);

for (let cut = 0; cut < CUTS; cut += 1) {
  const moment = MOMENT_NAMES[cut % MOMENT_NAMES.length] ?? "activating";
  const delayMs = Math.floor(createSequence(`${SEED} ${cut}`)() * LASTS_MS[moment]);
  const name = `power cut ${cut} of seed ${SEED}: ${delayMs} ms into ${moment}`;
  test(name, () => withSoundMachine((fleet) => cutPower(fleet, { name, cut, moment, delayMs })), CASE_MAX_MS);
}

type Cut = { readonly name: string; readonly cut: number; readonly moment: Moment; readonly delayMs: number };

async function cutPower(fleet: VirtualFleet, one: Cut): Promise<void> {
  const { machine } = fleet;
  const { moment, delayMs } = one;
  const before = (await fleet.state()).profile;
  const system = await buildNext(fleet, one);
  const from = machine.lineCount();
  const activation = await fleet.start(system);
  let ending = "(it did not come to that)";
  try {
    await machine.waitForLine(MOMENTS[moment], { from, timeoutMs: REACHED_MAX_MS });
    const told = moment === "over" ? await activation.end() : null;
    await Bun.sleep(delayMs);
    ending = machine.console();
    await machine.powerCut();
    await machine.boot();
    const lastMoment = findLastMoment(ending);
    const [, booted] = await machine.waitForLine(/@up (\S+)/);
    const mayBoot = told !== null ? [runsAfter(told, before)] : isEarly(lastMoment) ? [before] : [before, system];
    expect({ lastMoment, mayBoot }).toEqual({ lastMoment, mayBoot: expect.arrayContaining([booted]) });
    const deployment = await activation.end();
    expect(moment === "undoing" ? ["rolled-back"] : ["succeeded", "rolled-back"]).toContain(deployment.state);
    const runs = runsAfter(deployment, before);
    expect({ ...deployment, ...(await fleet.state()) }).toMatchObject({
      ...{ profile: runs, current: runs, bootDefault: runs },
    });
    await fleet.clean(deployment.id);
    expect(await fleet.verifyStore()).toBe("");
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const outputs = `before the cut:\n${ending}\nsince:\n${machine.console()}\n${activation.output()}`;
    throw new Error(`${one.name}: ${why}\n${outputs}`, { cause: error });
  }
}

async function buildNext({ fleet, machine, build }: VirtualFleet, { cut, moment }: Cut): Promise<string> {
  if (cut % GENERATIONS_KEPT === 0)
    await machine.run(`nix-env --profile ${SYSTEM_PROFILE} --delete-generations +${GENERATIONS_KEPT}`);
  const payload = await addBigPath(fleet.builder, { name: `payload-${SEED}-${cut}`, sizeBytes: PAYLOAD_BYTES });
  const cannotActivate = { stage: "activate", kind: "fail", actions: ["test"] } as const;
  const faults = moment === "undoing" ? [cannotActivate] : [];
  return await build({ version: `cut-${SEED}-${cut}`, payload, faults });
}

function runsAfter({ state, storePath }: Deployment, before: string): string {
  return state === "succeeded" ? storePath : before;
}

/** The last thing that the console said; the machine may have been a moment further. */
function findLastMoment(console: string): string {
  return (
    [...console.matchAll(/@stage (\w+)|deployment \w+ (fetching)/g)].map((match) => match[1] ?? match[2]).at(-1) ??
    "none"
  );
}

function isEarly(lastMoment: string): boolean {
  return ["fetching", "checking", "activating"].includes(lastMoment);
}
