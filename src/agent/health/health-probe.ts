/**
 * One try of one health check: asks systemd, opens a TCP connection, asks a web server for its status, runs a program.
 * When a try is made, and what its failure means for the new version, is decided in `health.ts`.
 *
 * Nothing waits longer than its signal; only a program that was told to stop gets a moment to end.
 */
import { type HealthCheck, storePathOf } from "../../health-check.ts";
import { type DriverDeps, runLogged } from "../activation/types/driver.ts";
import { describeExit, isSuccess } from "../machine/program-exit.ts";
import type { HealthProbe, Trouble } from "./health.ts";

/** What of a machine can be asked. */
export type HealthSenses = {
  /** By unit, its ActiveState, or "not-found"; null where systemd does not run. @throws NixdeployError("host") */
  readUnitStates(units: readonly string[], maxMs: number): Promise<ReadonlyMap<string, string> | null>;
  /** Opens a TCP connection and closes it. @throws NixdeployError("unreachable") · the signal's reason */
  connect(target: { readonly host: string; readonly port: number }, signal: AbortSignal): Promise<void>;
  /** The status of the answer to a GET; nothing of its body is read. @throws as `HttpClient.openBody` */
  readStatus(
    request: { readonly url: string; readonly followRedirects: boolean },
    signal: AbortSignal,
  ): Promise<number>;
};

type Limits = Parameters<HealthProbe>[1];
type CheckOf<Kind extends HealthCheck["kind"]> = Extract<HealthCheck, { kind: Kind }>;

/** @param driverDeps its environment is that of commands, without any secret */
export function createHealthProbe(senses: HealthSenses, driverDeps: DriverDeps): HealthProbe {
  return async (check, limits) => {
    const { timeoutMs, signal } = limits;
    switch (check.kind) {
      case "units":
        return judgeUnits(check, await orAborted(senses.readUnitStates(check.units, timeoutMs), signal));
      case "tcp":
        await orAborted(senses.connect(check, signal), signal);
        return null;
      case "http":
        return judgeStatus(check, await orAborted(senses.readStatus(check, signal), signal));
      case "command":
        return await runCommand(check, driverDeps, limits);
      default:
        return check satisfies never;
    }
  };
}

function judgeUnits({ units }: CheckOf<"units">, states: ReadonlyMap<string, string> | null): Trouble | null {
  if (states === null) return { text: "systemd does not run here", isFinal: true };
  const others = units.filter((unit) => states.get(unit) !== "active");
  if (others.length === 0) return null;
  return { text: others.map((unit) => `${unit} is ${describeState(states.get(unit))}`).join(", ") };
}

function describeState(state: string | undefined): string {
  return state === undefined || state === "not-found" ? "not there" : state;
}

function judgeStatus({ url, status }: CheckOf<"http">, actual: number): Trouble | null {
  const isGood = status === undefined ? actual >= 200 && actual <= 299 : status.includes(actual);
  const wanted = status === undefined ? "200 to 299" : status.join(" or ");
  return isGood ? null : { text: `${url} answers with status ${actual} instead of ${wanted}` };
}

/** It may be killed, but not left alone: the way back must not run beside it. */
async function runCommand(check: CheckOf<"command">, deps: DriverDeps, limits: Limits): Promise<Trouble | null> {
  const [command = "", ...args] = check.command;
  const exit = await runLogged({ command, args, deadlineMs: limits.timeoutMs, stop: limits.signal }, deps);
  if (isSuccess(exit)) return null;
  const text = `${command} ${describeExit(exit)}`;
  // What is in the store stays as it is; a program of the device may still come.
  return { text, isFinal: exit.kind === "not-started" && storePathOf(check) !== null };
}

/** @throws the signal's reason as soon as it is aborted; what was waited for ends by itself */
async function orAborted<Value>(work: Promise<Value>, signal: AbortSignal): Promise<Value> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
