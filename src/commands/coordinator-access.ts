/**
 * Which coordinator a command talks to, and with which token: flags, then the environment, then the login that was saved
 * (`nixdeploy login`). Says where each came from, which is what `doctor` shows.
 *
 * Agents do not use saved logins: a service must not depend on who has logged in on its machine.
 */
import type { ConfiguredToken } from "../doctor/coordinator-checks.ts";
import { NixdeployError } from "../errors.ts";
import type { CommandContext } from "./command-line/context.ts";
import {
  checkToken,
  findCoordinatorUrl,
  findOwnToken,
  findSecretToken,
  noTokenError,
  type Sourced,
  type TokenRole,
} from "./command-line/environment.ts";
import { loadLogins } from "./logins.ts";

const LOGIN_SOURCE = "nixdeploy login";
/** Those that see more come first. */
const ROLES = ["general", "activate", "push", "agent"] as const satisfies readonly TokenRole[];

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
  const given = (await findSecretToken(context.env, role)) ?? (await findSavedToken(context, url));
  if (given === null) throw noTokenError(role);
  return checkToken(given, role);
}

/** Every token that some command here would use, each once, for `doctor`; what cannot be read is among them. */
export async function listConfiguredTokens(context: Asking, url: string): Promise<readonly ConfiguredToken[]> {
  const found: ConfiguredToken[] = [];
  for (const use of ROLES) {
    try {
      const own = await findOwnToken(context.env, use);
      const given = own ?? (use === "general" ? await findSavedToken(context, url) : null);
      if (given !== null) found.push({ use, kind: "given", given: checkToken(given, use) });
    } catch (error) {
      found.push({ use, kind: "broken", error });
    }
  }
  return found;
}

async function findSavedToken({ env }: Asking, url: string): Promise<Sourced | null> {
  const saved = (await loadLogins(env)).logins.find((login) => login.url === url);
  return saved === undefined ? null : { text: saved.token, source: LOGIN_SOURCE };
}
