/**
 * The proof that a new version is fit to stay: somebody logs in to the coordinator from it, the health checks hold, the
 * operator's check script agrees, and no unit fails that did not fail before. In this order, so that the script finds
 * what has had its time to come up; all of it within the confirm window.
 *
 * Who logs in is in the record: the agent as the new system starts it, which leaves `proof.json` in the state directory
 * after a welcome that takes it for the proof; or, where no service manager runs, the supervisor itself. Or nobody: what
 * was started at the machine itself must not need the coordinator. Then the rest decides, after a moment in which units
 * may show that they fail; and where it was started from afar, whoever did must have come back in (`confirmVisit`).
 */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { fullJitterMs } from "../../backoff.ts";
import { parseOwnHealthChecks } from "../../health-check.ts";
import type { Clock, Random } from "../../runtime.ts";
import { awaitHealth } from "../health/health.ts";
import { createHealthProbe, type HealthSenses } from "../health/health-probe.ts";
import type { BootClock } from "../machine/boot-clock.ts";
import { writeDurableFile } from "../machine/durable-file.ts";
import { codeOf, describeExit, isSuccess } from "../machine/program-exit.ts";
import { isMissing } from "../machine/system-error.ts";
import { CANCELLED_TOUCHED } from "./engine.ts";
import { type ActivationRecord, type Cause, isCancelRequested, PROOF_FILE_NAME } from "./record.ts";
import { LOGIN_RETRY, tryLogin } from "./timed-login.ts";
import { DONE, type DriverDeps, runLogged, type StageEnd } from "./types/driver.ts";
import { listFreshFailures } from "./types/judge.ts";

export type ProofDeps = {
  readonly record: ActivationRecord;
  readonly stateDirectory: string;
  /** Why the agent's unit did not start; null when it did. */
  readonly trouble: string | null;
  /** The id of the main process of a unit; null when it has none. */
  readonly mainProcess: (unit: string) => Promise<number | null>;
  readonly driverDeps: DriverDeps;
  readonly healthSenses: HealthSenses;
  readonly bootClock: BootClock;
  readonly clock: Clock;
  readonly random: Random;
  /** Logs in as the supervisor. @returns whether the coordinator takes it for the proof. @throws when it cannot */
  readonly loginAsSupervisor: (signal: AbortSignal) => Promise<boolean>;
  readonly signal: AbortSignal;
};

const proofSchema = z.object({
  deploymentId: z.string(),
  bootId: z.string(),
  /** Of the agent that logged in. */
  processId: z.number().int().positive(),
});

const LOOK_INTERVAL_MS = 200;
const UNITS_LOOK_MS = 1_000;

/** For the agent: its welcome took the login for the proof. Durable on return. */
export async function recordProof(stateDirectory: string, proof: z.input<typeof proofSchema>): Promise<void> {
  await writeDurableFile({ path: join(stateDirectory, PROOF_FILE_NAME), text: JSON.stringify(proof), mode: 0o600 });
}

/** What is left of it in a state directory without an activation. */
export async function removeProof(stateDirectory: string): Promise<void> {
  for (const name of [`${PROOF_FILE_NAME}.new`, PROOF_FILE_NAME]) await rm(join(stateDirectory, name), { force: true });
}

/** @returns "good", or "bad" with the reason why the new version must go */
export async function awaitProof(deps: ProofDeps): Promise<StageEnd> {
  const { prover } = deps.record;
  const missing = prover.kind === "none" ? await awaitUnits(deps) : await awaitLogin(deps);
  if (missing !== null) return missing;
  if (prover.kind === "none" && prover.awaitsVisit === true) {
    const unvisited = await awaitVisit(deps);
    if (unvisited !== null) return unvisited;
  }
  return (await checkHealth(deps)) ?? (await runCheckScript(deps)) ?? (await judgeUnits(deps));
}

/** Without a login there would be none: units that start and fail at once need this long to be seen. */
const SETTLE_MS = 5_000;

/** @returns null when the moment is over, or units fail already, which is judged later; bad when a cancel was asked for */
async function awaitUnits({ record, clock, signal, driverDeps, stateDirectory }: ProofDeps): Promise<StageEnd | null> {
  const overAtMs = clock.monotonicMs() + Math.min(SETTLE_MS, record.policy.confirmWindowMs);
  for (;;) {
    if (await isCancelRequested(stateDirectory, record.deploymentId)) return bad(CANCELLED_TOUCHED, "elsewhere");
    const leftMs = overAtMs - clock.monotonicMs();
    // Where no service manager tells, waiting tells nothing.
    if (leftMs <= 0 || (await driverDeps.readFailedUnits()) === null) return null;
    if ((await readFreshFailures(record, driverDeps)).length > 0) return null;
    await clock.sleep(Math.min(UNITS_LOOK_MS, leftMs), signal);
  }
}

/** @returns null once somebody has come back in and said so */
async function awaitVisit(deps: ProofDeps): Promise<StageEnd | null> {
  const { record, stateDirectory, clock, signal } = deps;
  for (;;) {
    if (await isCancelRequested(stateDirectory, record.deploymentId)) return bad(CANCELLED_TOUCHED, "elsewhere");
    if ((await readProof(deps)) !== null) return null;
    const leftMs = await readLeftMs(deps);
    if (leftMs <= 0) {
      return await judgeLate(deps, { trouble: "nobody has come back in to confirm it", isSilent: true });
    }
    await clock.sleep(Math.min(LOOK_INTERVAL_MS, leftMs), signal);
  }
}

/** @returns null once the login is proved */
async function awaitLogin(deps: ProofDeps): Promise<StageEnd | null> {
  const { record, clock, signal } = deps;
  let lastTrouble = deps.trouble ?? "nobody has logged in from it";
  // An agent that does not start, or a login that does come through, says more than that the coordinator is far.
  let isSilent = deps.trouble === null;
  let nextLoginAtMs = Number.NEGATIVE_INFINITY;
  for (let attempt = 0; ; ) {
    signal.throwIfAborted();
    if (await isCancelRequested(deps.stateDirectory, record.deploymentId)) {
      return bad(CANCELLED_TOUCHED, "elsewhere");
    }
    const leftMs = await readLeftMs(deps);
    if (leftMs <= 0) return await judgeLate(deps, { trouble: lastTrouble, isSilent });
    if (record.prover.kind === "agent") {
      const proof = await readProof(deps);
      if (proof !== null && proof.processId === (await deps.mainProcess(record.prover.unit))) return null;
      if (proof !== null) {
        lastTrouble = `the agent that logged in is not the main process of ${record.prover.unit}`;
        isSilent = false;
      }
    } else if (clock.monotonicMs() >= nextLoginAtMs) {
      const tried = await tryLogin({ login: deps.loginAsSupervisor, maxMs: leftMs, clock, signal });
      if (tried.kind === "welcome" && tried.isProof) return null;
      if (tried.kind === "welcome") isSilent = false;
      lastTrouble = tried.kind === "failed" ? tried.trouble : "the coordinator does not see the new version here";
      nextLoginAtMs = clock.monotonicMs() + fullJitterMs(attempt, deps.random.fraction(), LOGIN_RETRY);
      attempt += 1;
    }
    await clock.sleep(Math.min(LOOK_INTERVAL_MS, leftMs), signal);
  }
}

/** The window is over: was the confirmation all that was missing? */
async function judgeLate(
  { record, driverDeps }: ProofDeps,
  late: { readonly trouble: string; readonly isSilent: boolean },
): Promise<StageEnd> {
  const windowS = record.policy.confirmWindowMs / 1_000;
  const fresh = await readFreshFailures(record, driverDeps);
  const units = fresh.length === 0 ? "" : `; units fail that did not fail before: ${fresh.join(", ")}`;
  const cause = late.isSilent && !record.unitsFailed && fresh.length === 0 ? "unconfirmed" : undefined;
  return bad(`the new version did not prove itself within ${windowS} s: ${late.trouble}${units}`, cause);
}

/** Of this deployment, in this boot. */
async function readProof({ stateDirectory, record }: ProofDeps): Promise<z.output<typeof proofSchema> | null> {
  try {
    const text = await readFile(join(stateDirectory, PROOF_FILE_NAME), "utf8");
    const proof = proofSchema.safeParse(JSON.parse(text)).data ?? null;
    return proof?.deploymentId === record.deploymentId && proof.bootId === record.bootId ? proof : null;
  } catch (error) {
    if (isMissing(error) || error instanceof SyntaxError) return null;
    throw error;
  }
}

async function checkHealth(deps: ProofDeps): Promise<StageEnd | null> {
  const { record, stateDirectory } = deps;
  const parsed = parseOwnHealthChecks(record.healthChecks ?? [], "health checks");
  if (parsed.kind === "faults") return bad(`the health checks cannot be carried out: ${parsed.faults[0]}`);
  const driverDeps = withPaths(deps);
  const reason = await awaitHealth({
    ...deps,
    checks: parsed.checks,
    probe: createHealthProbe(deps.healthSenses, driverDeps),
    windowSeconds: record.policy.confirmWindowMs / 1_000,
    readLeftMs: () => readLeftMs(deps),
    isCancelled: () => isCancelRequested(stateDirectory, record.deploymentId),
    log: (text) => driverDeps.log("agent", text),
  });
  return reason === null ? null : bad(reason, reason === CANCELLED_TOUCHED ? "elsewhere" : undefined);
}

/** The operator's script; stopped when the window ends. */
async function runCheckScript(deps: ProofDeps): Promise<StageEnd | null> {
  const { rollbackScript } = deps.record;
  if (rollbackScript === null) return null;
  const deadlineMs = Math.max(1, await readLeftMs(deps));
  const exit = await runLogged({ command: rollbackScript, args: [], deadlineMs }, withPaths(deps));
  if (isSuccess(exit)) return null;
  return { kind: "bad", reason: `the rollback script ${describeExit(exit)}`, exitCode: codeOf(exit) };
}

/** What is run finds the paths that it judges in its environment. */
function withPaths({ record, driverDeps }: ProofDeps): DriverDeps {
  const environment = {
    ...record.environment,
    NIXDEPLOY_NEW_PATH: record.storePath,
    NIXDEPLOY_OLD_PATH: record.previous.current ?? record.previous.profile ?? "",
  };
  return { ...driverDeps, record: { ...record, environment } };
}

async function readLeftMs({ record, bootClock }: ProofDeps): Promise<number> {
  return (record.deadlineUptimeMs ?? 0) - (await bootClock.read()).uptimeMs;
}

async function judgeUnits({ record, driverDeps }: ProofDeps): Promise<StageEnd> {
  const fresh = await readFreshFailures(record, driverDeps);
  if (fresh.length === 0) return DONE;
  if (record.policy.onUnitFailure === "keep") return { kind: "good", exitCode: null, unitsFailed: true };
  return bad(`units fail that did not fail before: ${fresh.join(", ")}`);
}

async function readFreshFailures(
  { previous }: ActivationRecord,
  driverDeps: Pick<DriverDeps, "readFailedUnits">,
): Promise<readonly string[]> {
  return listFreshFailures({ failedBefore: previous.failedUnits, failedNow: await driverDeps.readFailedUnits() });
}

function bad(reason: string, cause?: Cause): StageEnd {
  return { kind: "bad", reason, exitCode: null, ...(cause === undefined ? {} : { cause }) };
}
