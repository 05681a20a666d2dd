/**
 * Power cuts at any step of a whole activation, from the offer to the last acknowledgement: agent, supervisor, journal,
 * record and proof on a disk that keeps nothing that was not synced, or any part of it. The machine boots again, the
 * agent starts, and in the end the coordinator knows what the machine shows, has never been told two different things
 * under one number, and nothing is left.
 *
 * `POWER_CUTS=5000` takes that many seeds; the default is 1,000.
 */
import { expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { type Activations, createActivations } from "../../../src/agent/activation/activations.ts";
import { superviseActivation } from "../../../src/agent/activation/supervise.ts";
import { openDeploymentStore } from "../../../src/agent/journal/deployment-store.ts";
import type { Journal, OutcomeEntry } from "../../../src/agent/journal/journal.ts";
import { silentLogger } from "../../../src/log.ts";
import { offerOf } from "../offers.ts";
import { NEW, NEW_GAMING, OLD, OLD_GAMING } from "./records.ts";
import { SCENARIOS } from "./scenarios.ts";
import { createSimulatedProcess, type SimulatedProcess } from "./simulated-process.ts";
import { createEmptySimulation, expectTruth, type Simulation } from "./simulation.ts";

const SEEDS = Number(process.env["POWER_CUTS"] ?? 1_000);
const SEEDS_A_TEST = 20;
const BOOTS_MAX = 20;
const CUTS_MAX = 3;
/** More than any activation takes: a cut behind the last step is none. */
const STEPS_MAX = 120;

/** What the coordinator was told, by number. */
type Told = { readonly entries: Map<number, string>; outcome: OutcomeEntry | null; isOver: boolean };

type Boot = {
  readonly simulation: Simulation;
  readonly process: SimulatedProcess;
  readonly told: Told;
  readonly hasAgentUnit: boolean;
  /** Aborted when everything was done. */
  readonly signal: AbortSignal;
  readonly supervisors: Promise<unknown>[];
};

function createAgentSide({ simulation, process: own, hasAgentUnit, signal, supervisors }: Boot): Activations {
  const { record, stateDirectory, machine } = simulation;
  const { agentName, coordinatorUrl, profilePath } = record;
  const deps = own.superviseDeps(stateDirectory, signal);
  return createActivations({
    config: { name: agentName, coordinatorUrl, profilePath, stateDirectory },
    environment: {},
    launch: async () => {
      const supervising = superviseActivation(deps);
      supervisors.push(supervising.catch(() => "dead"));
    },
    agentUnit: async () => (hasAgentUnit ? "nixdeploy-agent-nuc.service" : null),
    hasUnit: async () => true,
    readCurrentSystem: async () => machine.current,
    readCurrentHome: async () => null,
    isRoot: true,
    readNames: async () => new Set(record.type === "nixos" ? ["nixos-version"] : ["bin"]),
    platform: "x86_64-linux",
    readPlatform: async () => null,
    findSpecialisation: async (current) => (current === OLD_GAMING ? { base: OLD, name: "gaming" } : null),
    resolveSpecialisation: async () => NEW_GAMING,
    readOwnHealthChecks: async () => [],
    readFailedUnits: async () => machine.failedUnits,
    bootClock: deps.bootClock,
    clock: own.clock,
    logger: silentLogger,
  });
}

/** The agent's start and all that follows. @throws when the power is cut */
async function liveOn(boot: Boot): Promise<void> {
  const { simulation, told, signal } = boot;
  const { stateDirectory, record, machine } = simulation;
  const { mode, rollbackScript, policy } = record;
  const offer = offerOf("a", { storePath: NEW, mode, rollbackScript, policy });
  const activations = createAgentSide(boot);
  const followed = await activations.pending();
  const settling = activations.settleTrial(signal);
  settling.catch(() => {
    // The power was cut, which whoever awaits it sees.
  });
  await using store = await openDeploymentStore({ stateDirectory, clock: boot.process.clock, followed });
  // The coordinator offers it again until it knows the outcome.
  if (told.outcome !== null && store.journals.length === 0) {
    await settling;
    told.isOver = true;
    return;
  }
  const journal = store.find(offer.deploymentId) ?? (await store.begin(offer));
  const isOver = new AbortController();
  const reporting = report(journal, { told, changes: store.changes, signal: isOver.signal });
  try {
    if (followed === null && journal.outcome === null) {
      await settling;
      await journal.phase({ phase: "fetching", previousPath: null });
      await journal.log("agent", "all of it is here already");
      await journal.phase({ phase: "activating", previousPath: machine.profile });
      await activations.begin({ journal, previousProfile: machine.profile, fetchedBytes: 5 });
    }
    if (followed !== null || journal.outcome === null) await activations.carry(journal, signal);
  } finally {
    isOver.abort(new Error("over"));
    await reporting;
  }
  await tell(journal, told);
  await store.acknowledge(offer.deploymentId, journal.durable.n);
}

/** Everything durable leaves the machine at once. */
async function report(
  journal: Journal,
  options: {
    readonly told: Told;
    readonly changes: { readonly version: number; waitAfter(version: number, signal: AbortSignal): Promise<void> };
    readonly signal: AbortSignal;
  },
): Promise<void> {
  while (!options.signal.aborted) {
    const { version } = options.changes;
    await tell(journal, options.told);
    await options.changes.waitAfter(version, options.signal).catch(() => {
      // Over, which the loop sees.
    });
  }
}

async function tell(journal: Journal, told: Told): Promise<void> {
  const { entries } = await journal.read({ n: 0, offset: 0 });
  for (const entry of entries) {
    const text = JSON.stringify(entry);
    // One number, one content; throws as a test does, out of whoever awaits the report.
    expect(told.entries.get(entry.n) ?? text).toBe(text);
    told.entries.set(entry.n, text);
    if (entry.type === "outcome") told.outcome = entry;
  }
}

/** One boot of the machine. @returns whether the power was cut */
async function bootOnce(options: Pick<Boot, "simulation" | "told" | "hasAgentUnit">, cutBefore: number | null) {
  const over = new AbortController();
  const supervisors: Promise<unknown>[] = [];
  const { machine } = options.simulation;
  const own: SimulatedProcess = createSimulatedProcess(machine, {
    ...(cutBefore === null ? {} : { killBefore: cutBefore }),
    onRestart: async () => {
      // The unit's new process logs in, if the coordinator can be reached.
      const agent = createAgentSide(boot);
      const proof = await agent.proofToGive();
      if (proof !== null && machine.login()) await agent.proved(proof.deploymentId);
    },
  });
  const boot: Boot = { ...options, process: own, supervisors, signal: over.signal };
  try {
    await own.run(() => liveOn(boot));
    return false;
  } catch (error) {
    if (!own.isDead) throw error;
    return true;
  } finally {
    over.abort(new Error("the machine stops"));
    await Promise.all(supervisors);
  }
}

async function liveThroughCuts(seed: number): Promise<void> {
  const fraction = createFractions(seed);
  const scenario = SCENARIOS[seed % SCENARIOS.length];
  if (scenario === undefined) throw new Error("no scenario");
  await using simulation = await createEmptySimulation(scenario.record);
  const { machine, disk, record, stateDirectory } = simulation;
  scenario.prepare?.(machine);
  const told: Told = { entries: new Map(), outcome: null, isOver: false };
  const hasAgentUnit = record.type === "nixos" && fraction() < 0.5;
  let cuts = 0;
  for (let boots = 0; !told.isOver; boots += 1) {
    expect(boots).toBeLessThan(BOOTS_MAX);
    const cutBefore = cuts < CUTS_MAX ? 1 + Math.floor(fraction() * STEPS_MAX) : null;
    const { bootId } = machine.readBoot();
    const isCut = await bootOnce({ simulation, told, hasAgentUnit }, cutBefore);
    // It went down in good order, and has booted.
    if (machine.readBoot().bootId !== bootId) continue;
    // What was done last may be lost, too.
    if (!isCut && (cuts >= CUTS_MAX || fraction() < 0.5)) continue;
    told.isOver = false;
    cuts += 1;
    const powerCut = { isStrict: seed % 2 === 0, fraction };
    disk.cutPower(powerCut);
    machine.cutPower(powerCut);
  }
  if (told.outcome === null) throw new Error("there is no outcome");
  await expectTruth(told.outcome, { ...simulation, isRebooted: cuts > 0 && record.mode !== "switch" });
  const numbers = [...told.entries.keys()];
  expect(numbers).toEqual(numbers.map((_, index) => index + 1));
  const left = await readdir(stateDirectory, { recursive: true });
  const waiting = left.includes("boot-trial.json") && told.outcome.outcome === "succeeded" ? ["boot-trial.json"] : [];
  const expected = [...waiting, "deployments", ...(told.outcome.fault === "version" ? ["quarantine.json"] : [])];
  expect(left.filter((name) => !name.endsWith(".lock")).sort()).toEqual(expected);
}

function createFractions(seed: number): () => number {
  let state = seed + 1;
  return () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

for (let first = 0; first < SEEDS; first += SEEDS_A_TEST) {
  const seeds = Array.from({ length: Math.min(SEEDS_A_TEST, SEEDS - first) }, (_, index) => first + index);
  test(`power cuts, seeds ${first} to ${first + seeds.length - 1}`, async () => {
    for (const seed of seeds) {
      try {
        await liveThroughCuts(seed);
      } catch (cause) {
        throw new Error(`seed ${seed}: ${String(cause)}`, { cause });
      }
    }
  });
}
