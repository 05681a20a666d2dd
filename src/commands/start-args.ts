/** The flags of the commands that start a rollout and follow it: `activate`, `retry`, `rollback`, `redeploy`. */
import { drawId } from "../names.ts";
import type { ArgDeclarations } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { FOLLOW_ARGS } from "./follow-rollout.ts";

const KEY = /^[!-~]{1,255}$/;

export const START_ARGS = {
  ...FOLLOW_ARGS,
  idempotencyKey: {
    type: "string",
    valueHint: "KEY",
    description: "Start it once: the same command with the same key follows the rollout that stands (24 hours)",
    parse: parseKey,
  },
} as const satisfies ArgDeclarations;

function parseKey(text: string): string {
  if (!KEY.test(text)) throw new Error("a key has 1 to 255 visible characters, and no spaces");
  return text;
}

/**
 * The key of one invocation: a call whose answer got lost is sent again with it, while the next invocation (a job that
 * somebody starts again) is a new request, unless its user says that it is not.
 */
export function chooseKey(context: Pick<CommandContext, "random">, given: string | undefined): string {
  return given ?? `once-${drawId(context.random)}`;
}
