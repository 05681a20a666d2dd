/**
 * Configuration from the environment: the coordinator's address, tokens and keys. A secret is never on the command
 * line, and no error repeats one.
 *
 * A secret is looked for in this order; the first place that has it wins:
 *
 *   1. its variable:           NIXDEPLOY_PUSH_TOKEN
 *   2. its file:               NIXDEPLOY_PUSH_TOKEN_FILE (a path)
 *   3. its systemd credential: $CREDENTIALS_DIRECTORY/nixdeploy-push-token
 *   4. to 6. for the tokens of a role the same three of NIXDEPLOY_TOKEN
 *
 * A variable that is set but empty is an error, not an absence: it is how CI systems hand over a secret that is missing.
 */
import { open } from "node:fs/promises";
import { join } from "node:path";
import { describeError, NixdeployError } from "../../errors.ts";
import { describeTokenFault, looksLikeSecret } from "../../token.ts";
import type { CommandContext, Environment } from "./context.ts";

/** Which work the token is for; "general" is anything else, `NIXDEPLOY_TOKEN` alone. */
export type TokenRole = "agent" | "activate" | "push" | "general";
/** "signing" signs closures, "deployment" signs manifests. */
export type KeyRole = "signing" | "deployment";

const TOKEN_VARIABLES: Readonly<Record<TokenRole, readonly string[]>> = {
  agent: ["NIXDEPLOY_AGENT_TOKEN", "NIXDEPLOY_TOKEN"],
  activate: ["NIXDEPLOY_ACTIVATE_TOKEN", "NIXDEPLOY_TOKEN"],
  push: ["NIXDEPLOY_PUSH_TOKEN", "NIXDEPLOY_TOKEN"],
  general: ["NIXDEPLOY_TOKEN"],
};
const KEY_VARIABLES: Readonly<Record<KeyRole, string>> = {
  signing: "NIXDEPLOY_SIGNING_KEY",
  deployment: "NIXDEPLOY_DEPLOYMENT_KEY",
};
/** A text of the configuration, and where it stands, as messages name it. */
export type Sourced = { readonly text: string; readonly source: string };

/** Looks behind, so that a long row of slashes elsewhere costs one look each, not one for all behind it. */
const TRAILING_SLASHES = /(?<!\/)\/+$/;
const SECRET_BYTES_MAX = 16 * 1024;
/** How messages name it. */
const CREDENTIAL = "a systemd credential";

/**
 * The address of the coordinator, from `--url`, else from NIXDEPLOY_URL; without a slash at its end. Null: neither is set.
 * @throws NixdeployError "usage" when it is no http(s) address, or carries a user name or query
 */
export function findCoordinatorUrl({ urlFlag, env }: Pick<CommandContext, "urlFlag" | "env">): Sourced | null {
  const source = urlFlag === null ? "NIXDEPLOY_URL" : "--url";
  const text = urlFlag ?? env["NIXDEPLOY_URL"] ?? "";
  return text === "" ? null : { text: checkCoordinatorUrl(text, source), source };
}

/** The same, for who cannot do without. @throws NixdeployError "usage" when there is none, too */
export function readCoordinatorUrl(context: Pick<CommandContext, "urlFlag" | "env">): string {
  const given = findCoordinatorUrl(context);
  if (given !== null) return given.text;
  throw new NixdeployError("usage", "cannot find the coordinator: neither --url nor NIXDEPLOY_URL is set", {
    hint: "Set NIXDEPLOY_URL to the address of `nixdeploy serve`, for example https://deploy.example.org.",
  });
}

/** @param source how the message names it. @throws NixdeployError "usage" */
export function checkCoordinatorUrl(text: string, source: string): string {
  const url = URL.parse(text);
  if (url === null || !["http:", "https:"].includes(url.protocol)) {
    throw new NixdeployError("usage", `cannot use ${source}: it is no http:// or https:// address`, {
      hint: "Write it out, for example https://deploy.example.org.",
    });
  }
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new NixdeployError("usage", `cannot use ${source}: it must have no user name, password, query or fragment`, {
      hint: "Credentials go into NIXDEPLOY_TOKEN or NIXDEPLOY_TOKEN_FILE.",
    });
  }
  return `${url.origin}${url.pathname}`.replace(TRAILING_SLASHES, "");
}

/** null when no place has one. @throws NixdeployError "usage" for a place that is set but empty or unreadable */
export async function findSecretToken(env: Environment, role: TokenRole): Promise<Sourced | null> {
  for (const variable of TOKEN_VARIABLES[role]) {
    const secret = await findSecret(env, variable);
    if (secret !== null) return secret;
  }
  return null;
}

/** The one that was made for this role, and not the general one. @throws as {@link findSecretToken} */
export async function findOwnToken(env: Environment, role: TokenRole): Promise<Sourced | null> {
  const [own] = TOKEN_VARIABLES[role];
  return own === undefined ? null : await findSecret(env, own);
}

/** Its text alone. */
export async function readToken(env: Environment, role: TokenRole): Promise<string | null> {
  return (await findSecretToken(env, role))?.text ?? null;
}

export function noTokenError(role: TokenRole): NixdeployError {
  const [first, ...others] = TOKEN_VARIABLES[role];
  const names = [`${first}_FILE`, first, ...others.flatMap((name) => [`${name}_FILE`, name])];
  return new NixdeployError("usage", `cannot log in to the coordinator: no token is set`, {
    hint: `Set one of ${names.join(", ")}, or \`nixdeploy login URL\`; \`nixdeploy token create\` makes tokens.`,
  });
}

/** @returns it without white space around it. @throws NixdeployError "denied" when it cannot be a token */
export function checkToken({ text, source }: Sourced, role: TokenRole): Sourced {
  const token = text.trim();
  const fault = describeTokenFault(token);
  if (fault === null) return { text: token, source };
  const places = source.startsWith("NIXDEPLOY_") ? TOKEN_VARIABLES[role].join(" or ") : source;
  throw new NixdeployError("denied", `cannot use the token of ${places}: ${fault}`, {
    hint: "`nixdeploy token create` prints one line nd_KIND_ID_SECRET: that line, whole, is the token.",
  });
}

/** The text of a secret key; null when no place has one. @throws as {@link readToken} */
export async function readKey(env: Environment, role: KeyRole): Promise<string | null> {
  return (await findSecret(env, KEY_VARIABLES[role]))?.text ?? null;
}

async function findSecret(env: Environment, variable: string): Promise<Sourced | null> {
  const direct = env[variable];
  if (direct !== undefined) {
    return { text: checkNotEmpty(trimNewline(direct), variable), source: variable };
  }
  const fileVariable = `${variable}_FILE`;
  const file = env[fileVariable];
  if (file !== undefined) {
    const path = checkNotEmpty(file, fileVariable);
    return { text: await readSecretFile(path, fileVariable), source: fileVariable };
  }
  const directory = env["CREDENTIALS_DIRECTORY"];
  if (directory === undefined || directory === "") {
    return null;
  }
  const name = variable.toLowerCase().replaceAll("_", "-");
  const text = await readFileIfPresent(join(directory, name), CREDENTIAL);
  return text === null ? null : { text, source: `the systemd credential ${name}` };
}

function checkNotEmpty(text: string, variable: string): string {
  if (text === "") {
    throw new NixdeployError("usage", `cannot use ${variable}: it is set but empty`, {
      hint: "Is the secret missing in the settings of the CI? Unset the variable to look elsewhere.",
    });
  }
  return text;
}

/**
 * A secret from a file that the user named, without the newline at its end.
 * @param source the flag or variable that named the file, for errors
 * @throws NixdeployError "usage" when it cannot be read, is empty or too large
 */
export async function readSecretFile(path: string, source: string): Promise<string> {
  if (looksLikeSecret(path)) {
    throw new NixdeployError("usage", `cannot use ${source}: it is a secret itself, not the name of a file with one`, {
      hint: "Write the secret into a file that only you can read, and give the name of that file.",
    });
  }
  const secret = await readFileIfPresent(path, source);
  if (secret === null) {
    throw new NixdeployError("usage", `cannot read ${path} (${source}): there is no such file`);
  }
  return secret;
}

async function readFileIfPresent(path: string, source: string): Promise<string | null> {
  const text = await readBounded(path).catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      return null;
    }
    throw new NixdeployError("usage", `cannot read ${path} (${source}): ${describeError(error)}`, { cause: error });
  });
  if (text === "") {
    // Our units fall back to an empty one, where the file that they name is missing.
    const hint = source === CREDENTIAL ? { hint: "Is the file there that the unit names by LoadCredential?" } : {};
    throw new NixdeployError("usage", `cannot use ${path} (${source}): the file is empty`, hint);
  }
  return text;
}

async function readBounded(path: string): Promise<string> {
  await using file = await open(path, "r");
  const buffer = Buffer.alloc(SECRET_BYTES_MAX + 1);
  let length = 0;
  for (let bytesRead = -1; bytesRead !== 0 && length < buffer.length; length += bytesRead) {
    ({ bytesRead } = await file.read(buffer, length, buffer.length - length));
  }
  if (length > SECRET_BYTES_MAX) {
    throw new Error(`it is larger than ${SECRET_BYTES_MAX} bytes`);
  }
  return trimNewline(buffer.toString("utf8", 0, length));
}

function trimNewline(text: string): string {
  return text.replace(/\r?\n$/, "");
}
