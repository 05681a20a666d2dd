/**
 * Workflow commands of GitHub Actions, which its runner (and that of Forgejo and Gitea) takes out of whatever a step
 * prints. Pure.
 *
 *     command = "::" name [ " " key "=" property { "," key "=" property } ] "::" data
 *     old     = "##[" name [ " " … ] "]" data          anywhere in a line
 *
 * What devices say must never become one: {@link neutralizeWorkflowCommands} makes sure for all that is printed, and a log
 * besides stands between `::stop-commands::TOKEN` and `::TOKEN::`, with a token that no device knows.
 * Source: docs.github.com "Workflow commands for GitHub Actions"; actions/runner `ActionCommand.cs`.
 */

export type Annotation = {
  readonly level: "error" | "warning" | "notice";
  readonly title: string;
  readonly text: string;
};

/** Where a runner's line begins, behind Unicode's white space, of which JavaScript's own lacks some. */
const COMMAND = /(^|[\r\n])([\s\u0085\u180e]*)::/g;

/** The same text for people, with nothing in it that a runner takes for a command. In JSON it stays the same value. */
export function neutralizeWorkflowCommands(text: string): string {
  return text.replace(COMMAND, "$1$2: :").replaceAll("##[", "#\\u0023[");
}

/** With its line end. */
export function formatAnnotation({ level, title, text }: Annotation): string {
  return `::${level} title=${escapeProperty(title)}::${escapeData(text)}\n`;
}

/** Lines that the runner folds. @param token drawn for this group only */
export function formatGroup(group: {
  readonly title: string;
  readonly lines: readonly string[];
  readonly token: string;
}): string {
  const lines = group.lines.map((line) => `${neutralizeWorkflowCommands(line)}\n`).join("");
  return `::group::${escapeData(group.title)}\n::stop-commands::${group.token}\n${lines}::${group.token}::\n::endgroup::\n`;
}

/**
 * Outputs of a step as `$GITHUB_OUTPUT` takes them.
 * @param delimiter drawn for this text only: a value that has it would end early
 */
export function formatOutputs(values: Readonly<Record<string, string>>, delimiter: string): string {
  return Object.entries(values)
    .map(([name, value]) => `${name}<<${delimiter}\n${value}\n${delimiter}\n`)
    .join("");
}

function escapeData(text: string): string {
  return text.replaceAll("%", "%25").replaceAll("\r", "%0D").replaceAll("\n", "%0A");
}

function escapeProperty(text: string): string {
  return escapeData(text).replaceAll(":", "%3A").replaceAll(",", "%2C");
}
