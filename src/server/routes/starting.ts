/** What the routes have in common that start a rollout: who asks, with which key, in which workspaces, and the answer. */
import type { StartedRolloutDto } from "../../api/rollouts.ts";
import { NixdeployError } from "../../errors.ts";
import type { TokenId } from "../../names.ts";
import { rolloutToDto } from "../convert.ts";
import { fingerprintOf, IDEMPOTENCY_KEY, type Once, type StartedRollout } from "../deployments/once.ts";
import type { Services } from "../services.ts";
import { noteAct, type RouteContext } from "./context.ts";

export function tokenIdOf(context: RouteContext): TokenId | null {
  const principal = context.get("principal");
  return principal.kind === "token" ? principal.tokenId : null;
}

/** @throws NixdeployError `usage` for a key that is none. @returns null without one */
export function readOnce(
  services: Services,
  context: RouteContext,
  { action, request }: { readonly action: string; readonly request: Readonly<Record<string, unknown>> },
): Once | null {
  const key = context.req.header("idempotency-key");
  if (key === undefined) return null;
  if (!IDEMPOTENCY_KEY.test(key)) {
    throw new NixdeployError("usage", "cannot read the header Idempotency-Key: it must be 1 to 255 visible characters");
  }
  const owner = tokenIdOf(context) ?? "control";
  return { owner, key, fingerprint: fingerprintOf(action, request), nowMs: services.clock.nowMs() };
}

/** 201 for a new rollout, 200 for one that the same request has started before. */
export async function answerStarted(services: Services, context: RouteContext, { rollout, isRepeat }: StartedRollout) {
  const dto = await rolloutToDto(services, rollout);
  services.log.info(isRepeat ? "rollout asked for again" : "rollout started", {
    id: rollout.id,
    agents: dto.deployments.length,
  });
  const of = dto.deployments.length === 1 ? "deployment" : "deployments";
  noteAct(context, {
    workspaceId: rollout.workspace_id,
    target: dto.deployments.map(({ agent }) => agent).join(" "),
    effect: `${isRepeat ? "asked for again" : "started"}: rollout ${rollout.id}, ${dto.deployments.length} ${of}`,
  });
  const started: StartedRolloutDto = { ...dto, isRepeat };
  return context.json(started, isRepeat ? 200 : 201);
}
