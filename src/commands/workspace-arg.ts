/** `--workspace NAME`, as so many commands take it. */
import { parseWorkspaceName } from "../names.ts";
import type { ArgDeclaration } from "./command-line/args.ts";

/** @param description for what it is there; what is the default */
export function workspaceArg(description: string) {
  return {
    type: "string",
    valueHint: "NAME",
    parse: parseWorkspaceName,
    description,
  } as const satisfies ArgDeclaration;
}
