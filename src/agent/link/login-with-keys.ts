/**
 * A login by whichever of this device's keys the coordinator takes. There are two while one takes the place of the other
 * (`nixdeploy agent rotate-key`): the new one is in a file of its own before anybody hears of it, and the old one stays
 * until the coordinator has said that it has the new one, so that a device that dies at any moment gets in by one of them.
 *
 *   files              coordinator has   login
 *   key, next-key      key               by key, which brings next-key along; welcome says that it is taken
 *   key, next-key      next-key          by key is refused (`key-retired`), by next-key is welcome
 *
 * In both cases `next-key` is renamed to `key` then; only the agent itself does that, which holds the state directory.
 */
import type { Keys } from "./identity.ts";
import { type LoginOptions, type LoginResult, login } from "./login.ts";

export type KeyLogin = LoginResult & {
  /** The coordinator knows this device by its next key: it is to be made the key. */
  readonly hasNewKey: boolean;
};

/** @param options.offerNext whether the next key is brought along; a supervisor speaks for the agent, and brings none */
export async function loginWithKeys(
  options: Omit<LoginOptions, "identity" | "next"> & { readonly keys: Keys; readonly offerNext: boolean },
): Promise<KeyLogin> {
  const { current, next } = options.keys;
  const result = await login({ ...options, identity: current, next: options.offerNext ? next : null });
  if (result.kind === "welcome") {
    return { ...result, hasNewKey: next !== null && result.welcome.rotatedTo === next.publicKey };
  }
  if (next === null || result.refusal.code !== "key-retired") return { ...result, hasNewKey: false };
  const again = await login({ ...options, identity: next, next: null });
  return { ...again, hasNewKey: again.kind === "welcome" };
}
