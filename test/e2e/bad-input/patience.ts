/** What is odd and no error: services that wait for the trouble to pass, and commands that work all the same. */
import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runChecked } from "../../support/processes.ts";
import { type BadInput, WRAPPERS } from "./case.ts";
import { expectNoSecret } from "./verdict.ts";
import type { World } from "./world.ts";

/** Where the agent is sent → what it says, once, before it tries again. */
// biome-ignore format: a table, one row a line
const COMPLAINTS: Readonly<Record<string, RegExp>> = {
  "{closed}": /^warn: cannot connect to .*127\.0\.0\.1:9.*: nothing listens there; trying again$/,
  "{unknown}": /: its host name is not known \(Check the URL, and DNS\.\); trying again$/,
  "{ssh}": /: it does not speak HTTP there \(Check the URL\.\); trying again$/,
  "{http-as-tls}": /: it does not speak TLS there \(Is the address http:\/\/ instead\?\); trying again$/,
  "{tls}": /: its TLS certificate is not accepted \(.*\) \(Let SSL_CERT_FILE or NIX_SSL_CERT_FILE name the certificate authority, if it is your own\.\); trying again$/,
  "{html-200}": /: it answered with status 200 instead of a websocket \(Is it a nixdeploy coordinator\?/,
  "{html-401}": /: it answered with status 401 instead of a websocket/,
  "{html-502}": /: it answered with status 502 instead of a websocket \(The coordinator, or a proxy before it, is in trouble/,
  "{redirect-elsewhere}": /: it redirects to https:\/\/login\.example\.org \(Is https:\/\/login\.example\.org the coordinator's address\?\)/,
};

const CLOCKS = ["20 years later", "20 years earlier"] as const;

// biome-ignore format: a table, one row a line
const WORKS: readonly Pick<BadInput, "what" | "command" | "through" | "env" | "stdin">[] = [
  { what: "HOME unset", command: "status", through: "HOME unset" },
  { what: "HOME relative, as root", command: "status", env: { HOME: "home", XDG_STATE_HOME: "state", XDG_CONFIG_HOME: "x" } },
  { what: "standard input closed", command: "push {path}", through: "standard input closed" },
  { what: "a clock 20 years ahead", command: "status", through: "20 years later" },
  { what: "a clock 20 years behind", command: "status", through: "20 years earlier" },
  { what: "a token with white space around it", command: "status", env: { NIXDEPLOY_TOKEN: " {admin-token}\r\n" } },
  { what: "a slash at the end of the address", command: "status --url {url}/", env: {} },
  { what: "nothing readable in CREDENTIALS_DIRECTORY", command: "status", env: { CREDENTIALS_DIRECTORY: "{rows}/no" } },
];

export function testPatience(getWorld: () => World): void {
  const spawnAgent = (
    name: string,
    { url, directory, through }: { url: string; directory: string; through?: keyof typeof WRAPPERS },
  ) => {
    const { fleet, values } = getWorld();
    const flags = ["--name", name, "--profile", join(directory, "profile"), "--state-dir", join(directory, "state")];
    const wrapper = through === undefined ? [] : WRAPPERS[through];
    return fleet.builder.spawn([...wrapper, values["nixdeploy"] ?? "", "agent", "--url", url, ...flags], {
      env: { NIXDEPLOY_AGENT_TOKEN: values["agent-token"] ?? "" },
    });
  };

  describe("an agent waits, and says why once", () => {
    test.concurrent.each(Object.entries(COMPLAINTS))("%s", async (address, complaint) => {
      const world = getWorld();
      const url = world.fill(address);
      await using agent = spawnAgent("waiting", { url, directory: world.newDirectory() });
      await agent.waitForLine(complaint, { timeoutMs: 20_000 });
      const { exitCode } = await agent.stop();
      expect([
        exitCode,
        agent.lines.filter(({ text }) => /^(warn|nixdeploy): .*coordinator|cannot connect/.test(text)).length,
      ]).toEqual([0, 1]);
      expect(agent.output()).not.toMatch(/\n\s+at |bug/);
      expectNoSecret({ stdout: agent.output(), stderr: "" }, world.secrets);
    });

    test.concurrent("the name belongs to another device", async () => {
      await using agent = spawnAgent("first", { url: getWorld().fill("{url}"), directory: getWorld().newDirectory() });
      await agent.waitForLine(
        /^warn: cannot log in as first: the name first belongs to an agent with another key \(This device's key is (SHA256:\S+)\. .*agents approve first --fingerprint \1`.*\); trying again$/,
        { timeoutMs: 20_000 },
      );
    });
  });

  describe("it works all the same", () => {
    test.concurrent.each(WORKS.map((row) => [row.what, row] as const))("%s", async (_, row) => {
      const world = getWorld();
      const result = await world.run({ ...row, exitCode: 1, says: "" }, world.newDirectory());
      expect(result).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/\S/) });
    });

    test.concurrent.each(CLOCKS)("an agent whose clock is %s is admitted and deploys", async (through) => {
      const world = getWorld();
      const { fleet } = world;
      const name = through.replaceAll(" ", "-");
      const path = world.fill("{path}");
      const directory = world.newDirectory();
      await using agent = spawnAgent(name, { url: world.fill("{url}"), directory, through });
      await agent.waitForLine(/^connected to/, { timeoutMs: 20_000 });
      await fleet.expectRun(["push", path]);
      await fleet.expectRun(["activate", `${name}=${path}`]);
      expect(await fleet.builder.link(join(directory, "profile"))).toBe(path);
      expect(agent.output()).not.toContain("connection lost");
    });

    test.concurrent("a journal of noise is cut where it ends to make sense", async () => {
      const world = getWorld();
      const directory = world.newDirectory();
      await mkdir(directory);
      await runChecked(["cp", "-a", world.usedStateDirectory, join(directory, "state")]);
      await runChecked(["rm", join(directory, "state/key"), join(directory, "state/enrolment.json")]);
      const deployment = join(directory, "state/deployments/0123456789abcdfg");
      await mkdir(deployment, { recursive: true });
      const offer = {
        kind: "offer",
        deploymentId: "0123456789abcdfg",
        storePath: world.fill("{path}"),
        mode: "switch",
        rollbackScript: null,
      };
      await writeFile(join(deployment, "offer.json"), JSON.stringify(offer));
      await writeFile(
        join(deployment, "journal.ndjson"),
        new Uint8Array(5_000).map((_, index) => (index * 37) % 256),
      );
      await writeFile(join(deployment, "acknowledged"), "many");
      await using agent = spawnAgent("noisy", { url: world.fill("{url}"), directory });
      await agent.waitForLine(/^connected to/, { timeoutMs: 20_000 });
      expect(agent.output()).not.toMatch(/\n\s+at |bug/);
    });

    test.concurrent("a database of a newer version", async () => {
      const world = getWorld();
      const data = world.newDirectory();
      await runChecked(["cp", "-a", world.usedDataDirectory, data]);
      using database = new Database(join(data, "coordinator.db"));
      database.run("insert into migrations (id) values ('9999-from-the-future')");
      database.close();
      const command = [world.fill("{nixdeploy}"), "serve", "--listen", "127.0.0.1:0", "--data-dir", data];
      await using process = world.fleet.builder.spawn(command);
      await process.waitForLine(/^coordinator ready: /, { timeoutMs: 20_000 });
      expect((await process.stop()).exitCode).toBe(0);
    });

    test.concurrent("a reader that goes away", async () => {
      const script =
        'for words in --help "token list --data-dir $1" "cache show default --data-dir $1"; do "$0" $words | true; done';
      const result = await getWorld().fleet.builder.exec([
        "sh",
        "-c",
        script,
        getWorld().fill("{nixdeploy}"),
        getWorld().fill("{data}"),
      ]);
      expect(result.stderr).toBe("");
    });
  });

  test.concurrent("a coordinator whose clock is 20 years ahead takes no token that has expired by then", async () => {
    const world = getWorld();
    const data = world.newDirectory();
    await runChecked(["cp", "-a", world.usedDataDirectory, data]);
    const binary = world.fill("{nixdeploy}");
    const make = (...flags: readonly string[]) =>
      runChecked([binary, "token", "create", "--kind", "admin", "--data-dir", data, ...flags]);
    const tokens = { short: await make("--expires", "3650d"), long: await make() };
    await using process = world.fleet.builder.spawn([
      ...WRAPPERS["20 years later"],
      binary,
      "serve",
      "--listen",
      "127.0.0.1:0",
      "--data-dir",
      data,
    ]);
    const [, url = ""] = await process.waitForLine(/^coordinator ready: (\S+)$/, { timeoutMs: 20_000 });
    expect((await world.fleet.run(["status"], { url, token: tokens.short })).exitCode).toBe(77);
    expect((await world.fleet.run(["status"], { url, token: tokens.long })).exitCode).toBe(0);
  });
}
