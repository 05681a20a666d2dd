/** `nixdeploy login`: remembers a coordinator's address and a token for it. */
import type { Identity } from "../api/tokens.ts";
import { readBounded } from "../client/read-bounded.ts";
import { NixdeployError } from "../errors.ts";
import { defineNixdeployCommand, defineNixdeployGroup } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { checkCoordinatorUrl, checkToken } from "./command-line/environment.ts";
import { resolveCoordinatorUrl } from "./coordinator-access.ts";
import { changeLogins, loadLogins, loginsFile, withLogin } from "./logins.ts";
import { openCoordinatorAt } from "./open-coordinator.ts";
import { formatTable, printResult } from "./terminal/output.ts";

const STDIN_BYTES_MAX = 16 * 1024;

const login = defineNixdeployCommand({
  name: "login",
  summary: "Remember a coordinator and a token for it",
  details:
    "The token is asked for, or read from standard input; it is tried before it is saved, in a file that only you can " +
    "read. From then on commands need neither NIXDEPLOY_URL nor NIXDEPLOY_TOKEN; where these or --url are given, they " +
    "come first. The coordinator of the latest login is the current one. Agents do not use it.",
  examples: [
    { comment: "At a terminal, which asks for the token", command: "nixdeploy login https://deploy.example.org" },
    { comment: "From a file", command: "nixdeploy login https://deploy.example.org < token" },
  ],
  args: {},
  positionals: { address: { label: "URL", description: "The coordinator's address (default: NIXDEPLOY_URL)" } },
  async run({ args, context }) {
    const url = readAddress(context, args.address) ?? (await resolveCoordinatorUrl(context)).text;
    const token = checkToken({ text: await readNewToken(context, url), source: "this login" }, "general").text;
    const identity = await tryToken(context, { url, token });
    const savedAt = new Date(context.clock.nowMs()).toISOString();
    await changeLogins(context, (logins) => withLogin(logins, { url, token, savedAt }));
    const json = { url, current: true, file: loginsFile(context.env), token: identity.token };
    await printResult(context, { json, text: "" });
    context.log.info(`logged in to ${url}: ${describeIdentity(identity)}`);
    const overruling = ["NIXDEPLOY_URL", "NIXDEPLOY_TOKEN", "NIXDEPLOY_TOKEN_FILE"].filter((name) => context.env[name]);
    if (overruling.length > 0) context.log.warn(`${overruling.join(" and ")} is set here and comes first`);
  },
});

const list = defineNixdeployCommand({
  name: "login list",
  summary: "List the coordinators that you are logged in to",
  args: {},
  async run({ context }) {
    const { current, logins } = await loadLogins(context.env);
    const json = { logins: logins.map(({ url, savedAt }) => ({ url, savedAt, current: url === current })) };
    const rows = logins.map(({ url, savedAt }) => [url === current ? "*" : "", url, savedAt.slice(0, 10)]);
    const text = logins.length === 0 ? "" : formatTable(["current", "coordinator", "since"], rows);
    await printResult(context, { json, text });
    if (logins.length === 0) context.log.info("logged in nowhere: nixdeploy login URL");
  },
});

const use = defineNixdeployCommand({
  name: "login use",
  summary: "Make one that you are logged in to the current one",
  args: {},
  positionals: { address: { label: "URL", description: "As `login list` shows it", required: true } },
  async run({ args, context }) {
    const url = checkCoordinatorUrl(args.address, "URL");
    await changeLogins(context, ({ logins }) => {
      if (!logins.some((each) => each.url === url)) throw notLoggedIn(url, logins);
      return { current: url, logins };
    });
    await printResult(context, { json: { url, current: true }, text: "" });
    context.log.info(`commands use ${url} from now on`);
  },
});

export const command = defineNixdeployGroup({
  name: "login",
  summary: "Remember a coordinator and a token for it",
  alone: login,
  commands: [list, use],
});

/** Null when it is not on the command line. @throws NixdeployError "usage" when it is there twice */
export function readAddress(context: Pick<CommandContext, "urlFlag">, given: string | undefined): string | null {
  if (given === undefined) return null;
  if (context.urlFlag !== null) throw new NixdeployError("usage", "cannot use both URL and --url: give one of them");
  return checkCoordinatorUrl(given, "URL");
}

export function notLoggedIn(url: string, logins: readonly { readonly url: string }[]): NixdeployError {
  return new NixdeployError("not-found", `cannot find a login for ${url}: there is none`, {
    hint:
      logins.length === 0
        ? `Log in first: nixdeploy login ${url}`
        : `There are logins for ${logins.map((each) => each.url).join(", ")}.`,
  });
}

async function readNewToken(context: CommandContext, url: string): Promise<string> {
  const text = await (context.askSecret === null
    ? readAll(context)
    : context.askSecret(`Token for ${url} (it is not shown): `, context.signal));
  if (text.trim() !== "") return text;
  throw new NixdeployError("usage", "cannot log in: no token was given", {
    hint: "Type or paste it when asked, or hand it over on standard input: nixdeploy login URL < FILE",
  });
}

async function readAll({ readStdin }: CommandContext): Promise<string> {
  const bytes = await readBounded(readStdin(), STDIN_BYTES_MAX);
  if (bytes === null) throw new NixdeployError("usage", "cannot log in: that is too long for a token");
  return bytes.toString("utf8");
}

async function tryToken(context: CommandContext, access: { url: string; token: string }): Promise<Identity> {
  await using coordinator = openCoordinatorAt(context, access);
  const identity = await coordinator.identify(context.signal);
  if (identity.token?.kind !== "agent") return identity;
  throw new NixdeployError("refused", "cannot log in: this token is of kind agent, which is for devices only", {
    hint: "For people: nixdeploy token create --kind activate, or admin.",
  });
}

/** `a token of kind activate, workspace default, until 2027-01-01` */
export function describeIdentity({ token }: Identity): string {
  if (token === null) return "no token is needed";
  const where = token.workspace === null ? "all workspaces" : `workspace ${token.workspace}`;
  const until = token.expiresAt === null ? "" : `, until ${token.expiresAt.slice(0, 10)}`;
  return `a token of kind ${token.kind}, ${where}${until}`;
}
