import { expect, test } from "bun:test";
import { defineNixdeployCommand, defineNixdeployGroup } from "../../../src/commands/command-line/args.ts";
import { resolveRequest } from "../../../src/commands/root.ts";

const push = defineNixdeployCommand({
  name: "cache push",
  summary: "Upload store paths with all they need",
  details:
    "Without PATH the paths are read from standard input, one a line, until its end; each is uploaded with its whole closure.\nA second paragraph.",
  examples: [{ comment: "What the last build made", command: "nixdeploy cache push ./result" }],
  args: {
    cache: { type: "string", valueHint: "NAME", default: "default", description: "The cache" },
    signingKeyFile: {
      type: "string",
      valueHint: "FILE",
      description: "Sign with this key, which the coordinator never sees, and which the devices know under its name",
    },
    compressionLevelOfUploads: { type: "integer", min: 1, max: 19, description: "Level" },
    dryRun: { type: "boolean", description: "Only say what would be done" },
  },
  positionals: { paths: { label: "PATH", description: "A store path", repeatable: true } },
  run: async () => {},
});
const group = defineNixdeployGroup({ name: "cache", summary: "Work with caches", commands: [push] });
const commands = [{ name: "cache", summary: group.summary, load: async () => ({ command: group }) }];

async function help(...words: string[]): Promise<string> {
  const request = await resolveRequest({ words: [...words, "--help"], version: "1.2.3", commands });
  return request.kind === "print" ? request.text : `not printed: ${request.kind}`;
}

test("the help of a command", async () => {
  expect(await help("cache", "push", "--nonsense")).toBe(`Upload store paths with all they need.

Usage: nixdeploy cache push [FLAGS] [PATH…]

Without PATH the paths are read from standard input, one a line, until its end; each is uploaded
with its whole closure.
A second paragraph.

Arguments:
  [PATH…]  A store path

Flags:
  --cache NAME             The cache (default: default)
  --signing-key-file FILE  Sign with this key, which the coordinator never sees, and which the
                           devices know under its name
  --compression-level-of-uploads NUMBER
                           Level
  --dry-run                Only say what would be done

Common flags:
  --url URL               The coordinator's address (default: NIXDEPLOY_URL)
  --json                  Print the result as JSON
  --verbose               Say more on standard error
  --log-format text|json  Form of the lines on standard error (default: text)
  -h, --help              This text

Examples:
  # What the last build made
  nixdeploy cache push ./result
`);
});

test("the help of a group names its commands", async () => {
  expect(await help("cache")).toContain("Commands:\n  cache push  Upload store paths with all they need\n");
});

test("the help of the program names its commands", async () => {
  expect(await help()).toContain("Commands:\n  cache  Work with caches\n");
});

test("an unknown command is refused with the nearest one", async () => {
  expect(resolveRequest({ words: ["cahce"], version: "1.2.3", commands })).rejects.toMatchObject({
    kind: "usage",
    hint: "Did you mean `nixdeploy cache`? See `nixdeploy --help`.",
  });
  expect(resolveRequest({ words: ["cache", "psuh"], version: "1.2.3", commands })).rejects.toMatchObject({
    kind: "usage",
    hint: "Did you mean `nixdeploy cache push`? See `nixdeploy cache --help`.",
  });
});

test("common flags may stand before the command", async () => {
  const words = ["--url", "http://localhost:1", "--log-format=json", "cache", "--json", "push", "x"];
  const request = await resolveRequest({ words, version: "1.2.3", commands });
  expect(request).toMatchObject({
    kind: "run",
    common: { url: "http://localhost:1", json: true, logFormat: "json", verbose: false },
  });
});
