/** The parsers of the command line and of what clients read: words, specs, addresses, answers of a cache. */
import { parseSpec, splitAssignment } from "../../../src/client/spec/spec.ts";
import { listCommands, type NixdeployCommand } from "../../../src/commands/command-line/args.ts";
import { parseDuration } from "../../../src/commands/command-line/duration.ts";
import { readCoordinatorUrl } from "../../../src/commands/command-line/environment.ts";
import { parseArgs } from "../../../src/commands/command-line/parse-args.ts";
import { COMMANDS } from "../../../src/commands/root.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { readNetworkSettings } from "../../../src/http/settings.ts";
import { parseCacheName } from "../../../src/names.ts";
import { createCoordinatorCache } from "../../../src/nix/cache/download/coordinator-cache.ts";
import { resolveNarUrl } from "../../../src/nix/cache/download/nar-url.ts";
import { systemClock, systemRandom } from "../../../src/runtime.ts";
import { createTinyPath } from "../../support/tiny-path.ts";
import { defineParser, type Parser, textOf } from "../parser.ts";
import { HEALTH_CHECKS, HEALTH_WORDS, JSON_WORDS } from "./contracts.ts";

const errors = [NixdeployError];
const { storePath } = createTinyPath("tiny");

async function loadCommands(): Promise<readonly NixdeployCommand[]> {
  const loaded = await Promise.all(COMMANDS.map(async ({ load }) => (await load()).command));
  return loaded.flatMap(listCommands);
}

const commandLines: Readonly<Record<string, string>> = {
  serve: "--listen\n[::1]:0\n--public-url\nhttps://x.example/\n--data-dir=d",
  "token create": "--kind\npush\n--expires\n90d\n--description=x",
  push: "--cache\ndefault\n--dry-run\n--\n./result\n-x",
  activate: `nuc=${storePath}\n--agent\nnuc\n--agent=b\n--timeout\n1h30m\n--mode\nboot\n--no-async`,
  agent: "--name\nnuc\n--profile\n/p/x\n--trusted-public-key\na-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
};

/** Words are separated by line ends here. */
const commandParsers = (await loadCommands())
  .filter(({ name }) => name in commandLines)
  .map((command) =>
    defineParser({
      name: `words-${command.name.replace(" ", "-")}`,
      costFactor: 3,
      samples: [commandLines[command.name] ?? ""],
      errors,
      dictionary: [
        "--",
        "-",
        "\n",
        "=",
        "--json",
        "--url",
        "--no-",
        "-h",
        "\n\n",
        "--token",
        ...Object.keys(command.args),
      ],
      parse: (bytes) => parseArgs(command, textOf(bytes).split("\n")),
    }),
  );

/** What the client makes of an answer's headers when it asked for a file from byte 100 on. */
async function readPartialAnswer(contentRange: string): Promise<unknown> {
  const headers = new Headers({ "content-range": contentRange });
  const cache = createCoordinatorCache({
    coordinatorUrl: "http://x",
    cacheName: parseCacheName("default"),
    cachePath: "/cache/default",
    credential: () => "nda_x",
    http: {
      requestJson: () => Promise.reject(new Error("not asked")),
      openBody: async () => ({
        status: 206,
        headers,
        body: (async function* () {})(),
        [Symbol.asyncDispose]: async () => {},
      }),
    },
    clock: systemClock,
    random: systemRandom,
  });
  const { signal } = new AbortController();
  const answer = await cache.openNar({ narUrl: "nar/x", startByte: 100, etag: null, signal });
  return answer.kind === "body" ? { startByte: answer.startByte, sizeBytes: answer.sizeBytes } : null;
}

/** What may stand in a header; the rest never reaches us. */
const headerText = (bytes: Uint8Array) =>
  Buffer.from(bytes)
    .toString("latin1")
    .replace(/[^\t -~\x80-\xff]/g, "?")
    .trim();

export const clientParsers: readonly Parser[] = [
  defineParser({
    name: "spec",
    costFactor: 2,
    samples: [
      JSON.stringify({ agents: { nuc: storePath, b: storePath }, rollbackScript: { "x86_64-linux": storePath } }),
      JSON.stringify({ agents: { nuc: storePath }, rollbackScript: null, later: 1 }),
      JSON.stringify({
        agents: { nuc: storePath },
        nixdeploy: { healthChecks: [HEALTH_CHECKS[0]], agents: { nuc: { healthChecks: HEALTH_CHECKS.slice(1) } } },
      }),
    ],
    errors,
    isExact: true,
    dictionary: [...JSON_WORDS, '"agents":', '"rollbackScript":', '"nuc":', ...HEALTH_WORDS],
    floods: {
      "many wrong health checks": () =>
        `{"agents":{"a":"${storePath}"},"nixdeploy":{"healthChecks":[${"0,".repeat(400_000)}0]}}`,
      "health checks for many agents": () =>
        `{"agents":{},"nixdeploy":{"agents":{${Array.from({ length: 60_000 }, (_, n) => `"a${n}":{"x":0}`).join(",")}}}}`,
      "many wrong agents": () => `{"agents":{${Array.from({ length: 60_000 }, (_, n) => `"a${n}":"x"`).join(",")}}}`,
      "many agents": () =>
        JSON.stringify({ agents: Object.fromEntries(Array.from({ length: 15_000 }, (_, n) => [`a${n}`, storePath])) }),
      "many unknown keys": () =>
        `{"agents":{"a":"${storePath}"},${Array.from({ length: 60_000 }, (_, n) => `"k${n}":0`).join(",")}}`,
    },
    parse: (bytes) => parseSpec(textOf(bytes), "spec.json").spec,
    format: ({ agents, rollbackScript, healthChecks }) =>
      JSON.stringify({
        ...{ agents: Object.fromEntries(agents), rollbackScript: Object.fromEntries(rollbackScript) },
        nixdeploy: {
          healthChecks: healthChecks.forAll,
          agents: Object.fromEntries(
            [...healthChecks.byAgent].map(([name, checks]) => [name, { healthChecks: checks }]),
          ),
        },
      }),
  }),
  defineParser({
    name: "assignment",
    samples: [`nuc=${storePath}`, "a=./result\nb"],
    errors: [],
    parse: (bytes) => splitAssignment(textOf(bytes)),
    format: ({ name, path }) => `${name}=${path}`,
    dictionary: ["=", "..", "/"],
  }),
  defineParser({
    name: "nar-url",
    samples: ["nar/0123.nar.zst", "x?hash=y"],
    errors,
    dictionary: ["..", "/", "//", "%2e", "%2F", "\\", "http://evil", "?", "#", "@", ":", "%00", "."],
    parse: (bytes) => {
      const url = resolveNarUrl({ cacheUrl: "https://host/cache/default", narUrl: textOf(bytes) });
      if (!url.startsWith("https://host/cache/default/") || new URL(url).href !== url)
        throw new Error(`leads out: ${url}`);
      return url;
    },
  }),
  defineParser({
    name: "content-range",
    samples: ["bytes 100-199/200", "bytes 100-199/*"],
    errors: [],
    dictionary: ["bytes ", "-", "/", "*", "999999999999999999999"],
    parse: (bytes) => readPartialAnswer(headerText(bytes)),
  }),
  defineParser({
    name: "no-proxy",
    costFactor: 4,
    samples: ["localhost,.example.org:443 [::1]:80,*", "::1,10.0.0.1"],
    errors: [],
    dictionary: [":", "::", "[", "]", ",", "*.", ":80", "."],
    parse: (bytes) => {
      const { findProxy } = readNetworkSettings({ no_proxy: textOf(bytes), https_proxy: "proxy:1" });
      return [findProxy(new URL("https://a.example.org/")), findProxy(new URL("https://[::1]/"))];
    },
  }),
  defineParser({
    name: "coordinator-url",
    samples: ["https://deploy.example.org", "http://[::1]:8470/sub/path///"],
    errors,
    dictionary: ["http://", "https://", "/", "//", "@", "?", "#", ":", "[", "..", "\t", "user:pass@"],
    parse: (bytes) => readCoordinatorUrl({ urlFlag: null, env: { NIXDEPLOY_URL: textOf(bytes) } }),
    format: (url) => url,
  }),
  defineParser({
    name: "duration",
    samples: ["45s", "1h30m", "90d", "1d1h1m1s"],
    // The parser of words says which flag it was.
    errors: [Error],
    dictionary: ["d", "h", "m", "s", "0", "9999999"],
    parse: (bytes) => parseDuration(textOf(bytes)),
    format: (milliseconds) => `${Math.floor(milliseconds / 3_600_000)}h${(milliseconds / 1000) % 3_600}s`,
  }),
  ...commandParsers,
];
