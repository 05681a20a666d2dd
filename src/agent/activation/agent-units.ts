/** Which units of the agent a new version must have, and who will prove it. */
import type { AgentName } from "../../names.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Journal } from "../journal/journal.ts";
import { isSystem, type SystemType } from "../machine/detect.ts";
import { undoUnitOf } from "./launch.ts";
import type { ActivationRecord } from "./record.ts";

type Request = { readonly journal: Pick<Journal, "offer">; readonly proof?: "login" | "none" | "visit" };
type UnitsDeps = {
  readonly config: { readonly name: AgentName };
  readonly hasUnit: (system: StorePath, unit: string) => Promise<boolean>;
};

/**
 * Systems need the agent's unit. A profile may do without, unless it is what brought the unit: then it would take the
 * agent away. The variant is what runs, the system itself what a reboot brings: both need their units.
 * The agent's comes first.
 */
export async function findMissingUnit(
  next: {
    readonly type: SystemType;
    readonly storePath: StorePath;
    readonly specialisation: NonNullable<ActivationRecord["specialisation"]> | null;
    readonly live: StorePath | null;
    readonly unit: string;
  },
  request: Request,
  deps: UnitsDeps,
): Promise<{ readonly why: string; readonly isAgent: boolean } | null> {
  const { type, storePath, specialisation, unit } = next;
  if (!isSystem(type) && (next.live === null || !(await deps.hasUnit(next.live, unit)))) return null;
  // Who sits at the machine needs neither; but what it has must not be lost unnoticed.
  const mustHave = async (name: string) =>
    !isByHand(request) || (next.live !== null && (await deps.hasUnit(next.live, name)));
  const systems = [
    { who: "it", path: storePath },
    ...(specialisation === null
      ? []
      : [{ who: `its specialisation ${specialisation.name}`, path: specialisation.path }]),
  ];
  for (const { who, path } of systems) {
    if ((await deps.hasUnit(path, unit)) || !(await mustHave(unit))) continue;
    const why = `${who} does not contain this agent's unit ${unit}, so nobody could prove that it works`;
    return { why, isAgent: true };
  }
  // nix-darwin boots what the profile names, and the agent's next start goes back.
  if (type !== "nixos") return null;
  const undoUnit = undoUnitOf(deps.config.name);
  for (const { who, path } of systems) {
    if ((await deps.hasUnit(path, undoUnit)) || !(await mustHave(undoUnit))) continue;
    const why = `${who} does not contain the unit ${undoUnit}, so nobody would go back after a reboot`;
    return { why, isAgent: false };
  }
  return null;
}

/** Started by somebody and not by the coordinator, which therefore need not be asked. */
function isByHand({ proof }: Pick<Request, "proof">): boolean {
  return proof === "none" || proof === "visit";
}

export async function chooseProver(
  { proof, journal }: Request,
  unit: string | null,
  { hasUnit }: UnitsDeps,
): Promise<ActivationRecord["prover"]> {
  const own = unit !== null && (await hasUnit(journal.offer.storePath, unit)) ? unit : null;
  if (proof === "visit") return { kind: "none", unit: own, awaitsVisit: true };
  if (proof === "none") return { kind: "none", unit: own };
  return own === null ? { kind: "supervisor" } : { kind: "agent", unit: own };
}
