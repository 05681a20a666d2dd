/**
 * What a principal may do, as a table. Pure.
 *
 * | right         | who                                                        |
 * | ------------- | ---------------------------------------------------------- |
 * | operate       | admin tokens of no workspace, the control socket           |
 * | administrate  | admin tokens, the control socket                           |
 * | activate      | activate tokens, and whoever may administrate              |
 * | watch         | activate and read tokens, and whoever may administrate     |
 * | push          | push tokens, and whoever may administrate                  |
 * | read-cache    | everyone with a valid credential of the workspace          |
 * | identify      | every token, about itself, the control socket              |
 *
 * An agent *token* has no other right: it admits agents, which then act under their own identity.
 * A token of one workspace has its rights there only. To operate is to make, rename and delete workspaces, and to make
 * caches: their names are unique on the coordinator, so whoever may choose one learns which others there are.
 */
import { TOKEN_KINDS, type TokenKind } from "../../token.ts";
import type { Principal } from "./authentication.ts";

export type Right = "operate" | "administrate" | "activate" | "watch" | "push" | "read-cache" | "identify";

const RIGHTS: Readonly<Record<TokenKind, readonly Right[]>> = {
  admin: ["operate", "administrate", "activate", "watch", "push", "read-cache", "identify"],
  activate: ["activate", "watch", "read-cache", "identify"],
  push: ["push", "read-cache", "identify"],
  read: ["watch", "read-cache", "identify"],
  agent: ["identify"],
};

/** The kinds of token that have a right; [] for a principal whose own kind has it, or that is no token. */
export function kindsThatMay(principal: Principal, right: Right): readonly TokenKind[] {
  if (principal.kind !== "token" || RIGHTS[principal.tokenKind].includes(right)) return [];
  return TOKEN_KINDS.filter((kind) => RIGHTS[kind].includes(right));
}

/** @param workspaceId the workspace that the right is wanted in */
export function mayDo(principal: Principal, right: Right, workspaceId: string): boolean {
  switch (principal.kind) {
    case "control":
      return true;
    case "agent":
      return principal.workspaceId === workspaceId && right === "read-cache";
    case "token":
      return (
        (principal.workspaceId === null || (principal.workspaceId === workspaceId && right !== "operate")) &&
        RIGHTS[principal.tokenKind].includes(right)
      );
    default:
      return principal satisfies never;
  }
}
