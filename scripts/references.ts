/**
 * `bun scripts/references.ts` writes the parts of docs/ that the code knows: docs/cli.md from the commands'
 * declarations, the table of docs/rest.md from the routes. A test compares, so neither is ever behind the code.
 */
import { join } from "node:path";
import { COMMANDS, resolveRequest } from "../src/commands/root.ts";
import type { Right } from "../src/server/access/authorization.ts";
import { createApiRoutes } from "../src/server/app.ts";
import type { Route } from "../src/server/routes/route.ts";
import { createTestCoordinator } from "../test/support/coordinator.ts";

const ROOT = join(import.meta.dir, "..");

/** Who may, as docs/rest.md calls them. */
const WHO: Readonly<Record<Right, string>> = {
  ...{ identify: "any", watch: "read", activate: "activate", push: "push", administrate: "admin", operate: "global" },
  "read-cache": "any but agent",
};

const CLI_HEAD = `# Command line

Made from the code by \`bun scripts/references.ts\`; \`nixdeploy COMMAND --help\` prints the same. Exit codes and
variables are the same for all commands: [README](../README.md#exit-codes).
`;
const ROUTES = /(?<=<!-- routes: .* -->\n)[\s\S]*(?=<!-- end of routes -->)/;

/** Pages by their path from the root, as they should be. @param pages as they are */
export async function writeReferences(pages: { readonly rest: string }): Promise<ReadonlyMap<string, string>> {
  await using server = await createTestCoordinator();
  const table = formatRoutes(createApiRoutes(server.coordinator.services));
  return new Map([
    ["docs/cli.md", await formatCommands()],
    ["docs/rest.md", pages.rest.replace(ROUTES, () => `${table}\n`)],
  ]);
}

/** Each command and each command of a group, in the order of `nixdeploy --help`. */
async function formatCommands(): Promise<string> {
  const sections: string[] = [CLI_HEAD, formatCommand("nixdeploy", await help([]))];
  for (const { name, load } of COMMANDS) {
    const { command } = await load();
    const under = command.kind === "group" ? command.commands.map((each) => each.name.split(" ")) : [];
    for (const words of [[name], ...under]) {
      sections.push(formatCommand(["nixdeploy", ...words].join(" "), await help(words)));
    }
  }
  return sections.join("\n");
}

async function help(words: readonly string[]): Promise<string> {
  const request = await resolveRequest({ words: [...words, "--help"], version: "" });
  return request.kind === "print" ? request.text : "";
}

function formatCommand(title: string, text: string): string {
  return `## ${title}\n\n\`\`\`text\n${text.trimEnd()}\n\`\`\`\n`;
}

function formatRoutes(routes: readonly Route[]): string {
  const rows = routes.map(
    ({ method, path, summary, right }) => `| \`${method} ${path}\` | ${WHO[right]} | ${summary} |`,
  );
  return ["| route | who | |", "| --- | --- | --- |", ...rows].join("\n");
}

if (import.meta.main) {
  const rest = await Bun.file(join(ROOT, "docs/rest.md")).text();
  for (const [path, text] of await writeReferences({ rest })) await Bun.write(join(ROOT, path), text);
}
