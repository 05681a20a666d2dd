/** A token for Nix to read a private cache with, which it keeps in a file: of kind `read` and nothing more. */
import type { CacheDto } from "../../api/caches.ts";
import { NixdeployError } from "../../errors.ts";
import type { AdministrationClient } from "../api/administration.ts";

export type TokenChoice = {
  readonly cache: Pick<CacheDto, "name" | "workspace">;
  /** What the caller himself logs in with. */
  readonly own: string;
  readonly coordinator: Pick<AdministrationClient, "identify" | "createToken">;
  /** Of the machine, for the description of a new one. */
  readonly hostName: string;
  readonly signal: AbortSignal;
};

/** @throws NixdeployError "usage" when the caller's token may do more than read, and cannot make another one */
export async function chooseReadToken(choice: TokenChoice): Promise<string> {
  const { cache, own, coordinator, signal } = choice;
  const { token } = await coordinator.identify(signal);
  if (token?.kind === "read") return own;
  if (token?.kind !== "admin") {
    throw new NixdeployError("usage", `cannot keep this token for Nix: it is of kind ${token?.kind ?? "none"}`, {
      hint: `Use one that may only read (nixdeploy token create --kind read --workspace ${cache.workspace}), or an admin token, which makes such a one.`,
    });
  }
  const description = `nixdeploy cache use ${cache.name} on ${choice.hostName}`.slice(0, 200);
  return (await coordinator.createToken({ kind: "read", workspace: cache.workspace, description }, signal)).token;
}
