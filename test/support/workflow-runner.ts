/**
 * Reads the log of a step as GitHub's runner does, as far as commands go: lines end at CR, LF or both, a command of today
 * begins its line, one of the old form stands anywhere, and after stop-commands only its token counts. Written after
 * actions/runner (`ActionCommand.cs`, `ActionCommandManager.cs`), and deliberately no friend of ours: any name is a command.
 */
export type SeenCommand = {
  readonly name: string;
  readonly properties: Readonly<Record<string, string>>;
  readonly data: string;
};

export function runWorkflowLog(log: string): {
  readonly commands: readonly SeenCommand[];
  readonly text: readonly string[];
} {
  const commands: SeenCommand[] = [];
  const text: string[] = [];
  let token: string | null = null;
  for (const line of log.split(/\r\n|[\r\n]/)) {
    const command = parse(line);
    const isTaken = command !== null && (token === null || command.name === token);
    if (!isTaken) {
      if (line !== "") text.push(line);
      continue;
    }
    commands.push(command);
    if (command.name === token) token = null;
    else if (command.name === "stop-commands") token = command.data;
  }
  return { commands, text };
}

function parse(line: string): SeenCommand | null {
  const trimmed = line.replace(/^[\s\u0085\u180e]+/, "");
  const modern = /^::([^ :]+)(?: (.*?))?::(.*)$/s.exec(trimmed);
  if (modern !== null) {
    const [, name = "", properties = "", data = ""] = modern;
    return { name, properties: parseProperties(properties), data: unescapeText(data) };
  }
  const old = /##\[([^ \]]+)[^\]]*\](.*)$/s.exec(line);
  return old === null ? null : { name: old[1] ?? "", properties: {}, data: old[2] ?? "" };
}

function parseProperties(text: string): Record<string, string> {
  const pairs =
    text === "" ? [] : text.split(",").map((pair) => [pair.split("=")[0] ?? "", pair.slice(pair.indexOf("=") + 1)]);
  return Object.fromEntries(pairs.map(([key = "", value = ""]) => [key, unescapeText(value)]));
}

function unescapeText(text: string): string {
  const marks: Readonly<Record<string, string>> = { "%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ",", "%25": "%" };
  return text.replaceAll(/%0D|%0A|%3A|%2C|%25/g, (mark) => marks[mark] ?? mark);
}
