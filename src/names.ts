/**
 * Names people choose and identifiers the coordinator draws, each branded so that they cannot be confused.
 * Pure: chance comes in as bytes.
 */
import { quoteExcerpt } from "./nix/parse-error.ts";
import type { Random } from "./runtime.ts";

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/** Name of an agent, unique in its workspace. */
export type AgentName = Branded<"AgentName">;
export type WorkspaceName = Branded<"WorkspaceName">;
/** Name of a binary cache, unique on the coordinator. */
export type CacheName = Branded<"CacheName">;
export type DeploymentId = Branded<"DeploymentId">;
export type RolloutId = Branded<"RolloutId">;
export type AgentId = Branded<"AgentId">;
export type TokenId = Branded<"TokenId">;

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const ID = /^[0-9a-z]{16}$/;
const ID_ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz";
const ID_LENGTH = 16;

/** What a name may look like, for error messages. */
export const NAME_RULE = "1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit";

/** Text that is no name or identifier; the message says what it should look like. */
export class NameError extends Error {
  override readonly name = "NameError";
}

function parseName<Name extends string>(what: string, text: string): Branded<Name> {
  if (!NAME.test(text)) throw new NameError(`${quoteExcerpt(text)} is no ${what}: it must be ${NAME_RULE}`);
  return text as Branded<Name>;
}

/** @throws NameError when the text breaks {@link NAME_RULE} */
export const parseAgentName = (text: string): AgentName => parseName("agent name", text);
/** @throws NameError when the text breaks {@link NAME_RULE} */
export const parseWorkspaceName = (text: string): WorkspaceName => parseName("workspace name", text);
/** @throws NameError when the text breaks {@link NAME_RULE} */
export const parseCacheName = (text: string): CacheName => parseName("cache name", text);

function parseId<Name extends string>(what: string, text: string): Branded<Name> {
  if (!ID.test(text))
    throw new NameError(`${quoteExcerpt(text)} is no ${what}: it has 16 lower-case letters and digits`);
  return text as Branded<Name>;
}

export const parseDeploymentId = (text: string): DeploymentId => parseId("deployment id", text);
export const parseRolloutId = (text: string): RolloutId => parseId("rollout id", text);
export const parseAgentId = (text: string): AgentId => parseId("agent id", text);
export const parseTokenId = (text: string): TokenId => parseId("token id", text);

/** 80 random bits as 16 characters of an alphabet without vowels that spell. */
export function drawId(random: Random): string {
  return Array.from(random.bytes(ID_LENGTH), (byte) => ID_ALPHABET[byte & 31]).join("");
}
