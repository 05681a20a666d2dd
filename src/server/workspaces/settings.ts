/** What holds in a workspace where a rollout does not say otherwise. Pure. */
import { type WorkspaceSettings, type WorkspaceSettingsChange, workspaceSettingsSchema } from "../../api/workspaces.ts";
import type { ActivationPolicy } from "../../deployment.ts";
import type { WorkspaceRow } from "../database/workspaces.ts";

export function parseWorkspaceSettings(row: Pick<WorkspaceRow, "settings">): WorkspaceSettings {
  return workspaceSettingsSchema.parse(JSON.parse(row.settings));
}

/** As the row keeps them. What the change leaves out stays. */
export function changeWorkspaceSettings(row: Pick<WorkspaceRow, "settings">, change: WorkspaceSettingsChange): string {
  const said = Object.fromEntries(Object.entries(change).filter(([, value]) => value !== undefined));
  const settings = { ...parseWorkspaceSettings(row), ...said };
  return JSON.stringify(Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== null)));
}

/** The policy of a rollout, completed by its workspace. What neither says is the device's default. */
export function completePolicy(policy: ActivationPolicy, settings: WorkspaceSettings): ActivationPolicy {
  const { confirmWindowMs, activationTimeoutMs } = settings;
  return {
    ...policy,
    confirmWindowMs: policy.confirmWindowMs ?? confirmWindowMs ?? undefined,
    activationTimeoutMs: policy.activationTimeoutMs ?? activationTimeoutMs ?? undefined,
  };
}
