/**
 * Which coordinator a command talks to, and with which token: flags, then the environment, then the login that was saved
 * (`nixdeploy login`). Says where each came from, which is what `doctor` shows.
 *
 * Agents do not use saved logins: a service must not depend on who has logged in on its machine.
 */
import { NixdeployError } from "../errors.ts";
import type { CommandContext } from "./context.ts";
import {
  checkToken,
  findCoordinatorUrl,
  findSecretToken,
  noTokenError,
  type Sourced,
  type TokenRole,
} from "./environment.ts";
import { loadLogins } from "./logins.ts";

export const LOGIN_SOURCE = "nixdeploy login";

type Asking = Pick<CommandContext, "urlFlag" | "env">;

/** @throws NixdeployError "usage" when no place has one, or it is none · as `loadLogins` does */
export async function resolveCoordinatorUrl(context: Asking): Promise<Sourced> {
  const given = findCoordinatorUrl(context);
  if (given !== null) return given;
  const { current, logins } = await loadLogins(context.env);
  if (current !== null) return { text: current, source: LOGIN_SOURCE };
  throw new NixdeployError("usage", "cannot find the coordinator: neither --url nor NIXDEPLOY_URL is set", {
    hint:
      logins.length === 0
        ? "Set NIXDEPLOY_URL to the address of `nixdeploy serve`, for example https://deploy.example.org, or log in " +
          "once: nixdeploy login https://deploy.example.org."
        : `You are logged in to ${logins.map(({ url }) => url).join(", ")}: choose one with \`nixdeploy login use URL\`.`,
  });
}

/**
 * Checked before it goes anywhere, so that no other secret is sent by mistake.
 * @throws NixdeployError "usage" when no place has one, naming them; "denied" when it cannot be a token
 */
export async function resolveToken(context: Asking, role: TokenRole, url: string): Promise<Sourced> {
  const given = await findSecretToken(context.env, role);
  if (given !== null) return checkToken(given, role);
  const { logins } = await loadLogins(context.env);
  const saved = logins.find((login) => login.url === url);
  if (saved === undefined) throw noTokenError(role);
  return checkToken({ text: saved.token, source: LOGIN_SOURCE }, role);
}
