/** What the commands of `nixdeploy cache` take alike. */
import { parseCacheName, parseWorkspaceName } from "../names.ts";
import { formatPublicKey, parsePublicKey } from "../nix/signing-key.ts";
import type { PositionalDeclaration } from "./command-line/args.ts";
import { withoutFormat } from "./local-args.ts";
import { workspaceArg } from "./workspace-arg.ts";

export const CACHE_NAME = {
  label: "NAME",
  description: "The cache",
  required: true,
  parse: parseCacheName,
} as const satisfies PositionalDeclaration;

export const WORKSPACE = workspaceArg("Whose it is (default: the token's, else default)");

export const DEFAULT_WORKSPACE = parseWorkspaceName("default");

/** Of a key that is typed. @returns it as it is written everywhere. @throws Error with the reason alone */
export function parseKeyArgument(text: string): string {
  return withoutFormat(() => formatPublicKey(parsePublicKey(text)));
}
