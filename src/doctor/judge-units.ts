/** What systemd says of the units that run agents and coordinator, judged. Pure. */
import { type Finding, fault, ok, skipped, warning } from "./finding.ts";

export type SeenUnit = {
  readonly name: string;
  /** Of a user's own systemd. */
  readonly isUsers: boolean;
  /** systemd's LoadState, ActiveState and SubState. */
  readonly load: string;
  readonly active: string;
  readonly sub: string;
  /** What starts it: targets, timers, sockets. */
  readonly startedBy: readonly string[];
  /** systemd's ExecStart. */
  readonly command: string;
};

export type UnitAnswer =
  | { readonly kind: "found"; readonly unit: SeenUnit }
  | { readonly kind: "none" }
  /** There is no systemd, or it does not answer this user. */
  | { readonly kind: "unknown"; readonly why: string };

const STARTED_BY = ["WantedBy", "RequiredBy", "UpheldBy", "TriggeredBy"] as const;
/** What is asked for, and parsed. */
export const UNIT_PROPERTIES = ["LoadState", "ActiveState", "SubState", "ExecStart", ...STARTED_BY] as const;

/** @param lines of `systemctl show`. @returns null for a unit that is not there */
export function parseUnit(
  lines: readonly string[],
  { name, isUsers }: { readonly name: string; readonly isUsers: boolean },
): SeenUnit | null {
  const read = (key: string) => lines.find((line) => line.startsWith(`${key}=`))?.slice(key.length + 1) ?? "";
  const load = read("LoadState");
  if (load === "not-found" || load === "") return null;
  return {
    ...{ name, isUsers, load },
    active: read("ActiveState"),
    sub: read("SubState"),
    startedBy: STARTED_BY.flatMap((key) => read(key).split(" ")).filter((unit) => unit !== ""),
    command: read("ExecStart"),
  };
}

const UNITS_HINT = "docs/install.md has the unit; the NixOS module makes it.";

/** @param runs whether the agent does, by whatever */
export function judgeAgentUnit(answer: UnitAnswer, { name, runs }: { name: string; runs: boolean }): Finding {
  const text = `there is no unit ${name}: this agent does not come back after a reboot, unless another unit runs it`;
  return judge(answer, { who: "the agent", runs, none: warning(text, UNITS_HINT) });
}

/** @param runs whether the coordinator does, by whatever */
export function judgeServerUnit(answer: UnitAnswer, { name, runs }: { name: string; runs: boolean }): Finding {
  const text = `there is no unit ${name}, and the coordinator does not run`;
  return judge(answer, { who: "the coordinator", runs, none: warning(text, UNITS_HINT) });
}

/** Of a system's profile: what goes back after a reboot. */
export function judgeUndoUnit(answer: UnitAnswer, name: string): Finding {
  if (answer.kind === "unknown") return skipped(answer.why);
  if (answer.kind === "none") {
    return fault(
      `there is no unit ${name}: nobody would go back after a reboot, so activations are refused`,
      "The NixOS module makes it (docs/install.md, An agent on NixOS).",
    );
  }
  const { unit } = answer;
  const trouble = describeLoad(unit);
  if (trouble !== null) return trouble;
  if (unit.startedBy.length > 0) return ok(`${name} is there for each boot`);
  return fault(
    `nothing starts ${name} at boot: nobody would go back after a reboot`,
    `systemctl enable ${name}, or wantedBy in its NixOS module.`,
  );
}

type Judging = { readonly who: string; readonly runs: boolean; readonly none: Finding };

function judge(answer: UnitAnswer, { who, runs, none }: Judging): Finding {
  switch (answer.kind) {
    case "unknown":
      return skipped(`${answer.why}; ${who} ${runs ? "runs" : "does not run"}`);
    case "none":
      return runs ? ok(`${who} runs, by another unit or by hand`) : none;
    case "found":
      return describeLoad(answer.unit) ?? judgeState(answer.unit, { who, runs });
    default:
      return answer satisfies never;
  }
}

/** Why systemd cannot start it; null when it can. */
function describeLoad(unit: SeenUnit): Finding | null {
  const { name, load } = unit;
  const { systemctl } = programsFor(unit);
  if (load === "loaded") return null;
  if (load === "masked") return fault(`${name} is masked: nothing can start it`, `${systemctl} unmask ${name}`);
  return fault(`systemd cannot load ${name} (${load})`, `See why: ${systemctl} status ${name}`);
}

function judgeState(unit: SeenUnit, { who, runs }: Omit<Judging, "none">): Finding {
  const { name, active, sub } = unit;
  const { systemctl, journalctl } = programsFor(unit);
  if (active === "active") {
    if (unit.startedBy.length > 0) return ok(`${name} runs, and is started at boot`);
    return warning(`${name} runs, but nothing starts it at boot`, `${systemctl} enable ${name}`);
  }
  const state = sub === "auto-restart" ? "ends soon after each start" : `is ${active}`;
  if (runs) {
    const hint = `When that is not meant, stop what runs it now; then: ${systemctl} restart ${name}`;
    return warning(`${who} runs, but not by ${name}, which ${state}`, hint);
  }
  return fault(`${name} ${state}`, `See why: ${journalctl} -u ${name} -e; then: ${systemctl} restart ${name}`);
}

function programsFor({ isUsers }: SeenUnit): { readonly systemctl: string; readonly journalctl: string } {
  const own = isUsers ? " --user" : "";
  return { systemctl: `systemctl${own}`, journalctl: `journalctl${own}` };
}
