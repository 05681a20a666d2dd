/** `login` and `logout`: what is saved, who comes first, and that a token goes to its own coordinator only. */
import { describe, expect, test } from "bun:test";
import { chmod, lstat, mkdir, readFile, rename, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Logins, NO_LOGINS, withLogin, withoutLogin } from "../../src/commands/logins.ts";
import { type Typing, typeCharacters } from "../../src/commands/terminal/secret-prompt.ts";
import { parseTokenId } from "../../src/names.ts";
import { formatToken } from "../../src/token.ts";
import { FAKE_TOKEN, startFakeCoordinator } from "../support/fake-coordinator.ts";
import { type RunCommandOptions, runCommand } from "../support/run-command.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";

const OTHER_TOKEN = formatToken("read", parseTokenId("fedcba9876543210"), new Uint8Array(32));

async function createHome() {
  const directory = await createTemporaryDirectory("login");
  const file = directory.join("nixdeploy/logins.json");
  const run = (words: readonly string[], options: RunCommandOptions = {}) =>
    runCommand(words, { ...options, env: { XDG_CONFIG_HOME: directory.path, ...options.env } });
  return { file, run, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
}

describe("login", () => {
  test("from then on commands need neither address nor token, until logout", async () => {
    await using home = await createHome();
    await using fake = startFakeCoordinator();
    fake.addAgent("nuc");
    const login = await home.run(["login", `${fake.url}/`], { stdin: `${FAKE_TOKEN}\n` });
    expect([login.exitCode, login.stdout]).toEqual([0, ""]);
    expect(login.stderr).toContain(`logged in to ${fake.url}: a token of kind admin, workspace default`);
    expect(((await stat(home.file)).mode & 0o777).toString(8)).toBe("600");
    for (const words of [["agents"], ["status"], ["token", "list"]]) {
      expect((await home.run(words)).exitCode).toBe(0);
      expect(fake.requests.at(-1)?.authorization).toBe(`Bearer ${FAKE_TOKEN}`);
    }
    expect((await home.run(["logout"])).stderr).toBe(`logged out of ${fake.url}\n`);
    const after = await home.run(["agents"]);
    expect([after.exitCode, after.stderr]).toEqual([2, expect.stringContaining("cannot find the coordinator")]);
    expect(await readFile(home.file, "utf8")).not.toContain("nd_");
  });

  test("several at the same moment are all saved", async () => {
    await using home = await createHome();
    const fakes = Array.from({ length: 6 }, () => startFakeCoordinator());
    try {
      const ends = await Promise.all(fakes.map(({ url }) => home.run(["login", url], { stdin: FAKE_TOKEN })));
      expect(ends.map(({ exitCode }) => exitCode)).toEqual(fakes.map(() => 0));
      const { logins } = JSON.parse(await readFile(home.file, "utf8"));
      expect(logins.map(({ url }: { url: string }) => url)).toEqual(fakes.map(({ url }) => url).toSorted());
    } finally {
      for (const fake of fakes) await fake[Symbol.asyncDispose]();
    }
  });

  test("a file that is a link, as people have who keep theirs elsewhere, stays one", async () => {
    await using home = await createHome();
    await using fake = startFakeCoordinator();
    expect((await home.run(["login", fake.url], { stdin: FAKE_TOKEN })).exitCode).toBe(0);
    await rename(home.file, `${home.file}.elsewhere`);
    await symlink(`${home.file}.elsewhere`, home.file);
    expect((await home.run(["logout"])).exitCode).toBe(0);
    expect((await lstat(home.file)).isSymbolicLink()).toBe(true);
    expect(JSON.parse(await readFile(home.file, "utf8"))).toMatchObject({ logins: [] });
  });

  test("flags come before the environment, and both before the login", async () => {
    await using home = await createHome();
    await using saved = startFakeCoordinator();
    await using named = startFakeCoordinator();
    await using flagged = startFakeCoordinator();
    expect((await home.run(["login", saved.url], { stdin: FAKE_TOKEN })).exitCode).toBe(0);
    for (const fake of [saved, named, flagged]) fake.intercept = async () => Response.json({ agents: [] });
    const env = { NIXDEPLOY_URL: named.url, NIXDEPLOY_TOKEN: OTHER_TOKEN };
    expect((await home.run(["agents"], { env })).exitCode).toBe(0);
    expect((await home.run(["agents", "--url", flagged.url], { env })).exitCode).toBe(0);
    expect((await home.run(["agents"], { env: { NIXDEPLOY_TOKEN: OTHER_TOKEN } })).exitCode).toBe(0);
    expect([named, flagged, saved].map((each) => each.requests.at(-1)?.authorization)).toEqual(
      Array<string>(3).fill(`Bearer ${OTHER_TOKEN}`),
    );
  });

  test("a saved token is sent to no other coordinator", async () => {
    await using home = await createHome();
    await using saved = startFakeCoordinator();
    await using other = startFakeCoordinator();
    await home.run(["login", saved.url], { stdin: FAKE_TOKEN });
    const result = await home.run(["agents", "--url", other.url]);
    expect([result.exitCode, result.stderr]).toEqual([2, expect.stringContaining("no token is set")]);
    expect(other.requests).toEqual([]);
  });

  test("several: the latest is the current one, `use` chooses another", async () => {
    await using home = await createHome();
    await using first = startFakeCoordinator();
    await using second = startFakeCoordinator();
    for (const { url } of [first, second]) await home.run(["login", url], { stdin: FAKE_TOKEN });
    const current = async () => {
      const { stdout } = await home.run(["login", "list", "--json"]);
      const { logins }: { logins: { url: string; current: boolean }[] } = JSON.parse(stdout);
      return logins.filter((login) => login.current).map(({ url }) => url);
    };
    expect(await current()).toEqual([second.url]);
    expect((await home.run(["login", "use", first.url])).exitCode).toBe(0);
    expect(await current()).toEqual([first.url]);
    expect((await home.run(["login", "list"])).stdout).toMatch(new RegExp(`^\\* +${first.url} `, "m"));
    expect((await home.run(["login", "use", "http://nowhere.example"])).exitCode).toBe(1);
    expect((await home.run(["logout", first.url])).stderr).toContain(`commands use ${second.url} from now on`);
  });

  test("what is refused is not saved", async () => {
    await using home = await createHome();
    await using fake = startFakeCoordinator();
    const agentToken = formatToken("agent", parseTokenId("0123456789abcdef"), new Uint8Array(32));
    const now = "2026-01-01T00:00:00.000Z";
    const times = { createdAt: now, expiresAt: null, lastUsedAt: null, revokedAt: null };
    const token = { id: "0123456789abcdef", kind: "agent", workspace: "default", description: "", ...times };
    fake.intercept = async () => Response.json({ now, version: "0.1.0", token });
    const cases: readonly [stdin: string, exitCode: number, text: string][] = [
      ["", 2, "no token was given"],
      ["hunter2", 77, "cannot use the token of this login: it is no token"],
      [agentToken, 1, "this token is of kind agent"],
    ];
    for (const [stdin, exitCode, text] of cases) {
      const result = await home.run(["login", fake.url], { stdin });
      expect([result.exitCode, result.stderr]).toEqual([exitCode, expect.stringContaining(text)]);
      expect(result.stderr).not.toContain("hunter2");
    }
    fake.intercept = async () => Response.json({ title: "cannot log in", status: 401 }, { status: 401 });
    expect((await home.run(["login", fake.url], { stdin: FAKE_TOKEN })).exitCode).not.toBe(0);
    expect(stat(home.file)).rejects.toThrow();
  });

  test("a file that others may read, or that is damaged, is not used", async () => {
    await using home = await createHome();
    await mkdir(join(home.file, ".."));
    await writeFile(home.file, "{}");
    await chmod(home.file, 0o640);
    const open = await home.run(["agents"]);
    expect([open.exitCode, open.stderr]).toEqual([1, expect.stringContaining(`Run: chmod 600 ${home.file}`)]);
    await chmod(home.file, 0o600);
    const damaged = await home.run(["agents"]);
    expect([damaged.exitCode, damaged.stderr]).toEqual([1, expect.stringContaining("it is damaged (version")]);
  });
});

describe("which login counts", () => {
  const one = { url: "http://one", token: "1", savedAt: "" };
  const two = { url: "http://two", token: "2", savedAt: "" };
  const three = { url: "http://three", token: "3", savedAt: "" };
  const all: Logins = [one, two, three].reduce(withLogin, NO_LOGINS);

  test.each<[string, Logins, Logins["current"], number]>([
    ["the latest", all, three.url, 3],
    ["the same once more", withLogin(all, { ...one, token: "4" }), one.url, 3],
    ["without another", withoutLogin(all, one.url), three.url, 2],
    ["without the current one of three", withoutLogin(all, three.url), null, 2],
    ["without the current one of two", withoutLogin(withoutLogin(all, one.url), three.url), two.url, 1],
    ["without the last", withoutLogin(withLogin(NO_LOGINS, one), one.url), null, 0],
  ])("%s", (_, logins, current, count) => {
    expect([logins.current, logins.logins.length]).toEqual([current, count]);
  });
});

test.each<[string, readonly string[], Typing]>([
  ["a paste and enter", ["nd_x", "y\r"], { text: "nd_xy", end: "entered" }],
  ["mended by backspace", ["nd_z\u007fx\r"], { text: "nd_x", end: "entered" }],
  ["begun anew", ["secret\u0015nd_x\n"], { text: "nd_x", end: "entered" }],
  ["Ctrl-C", ["nd_\u0003x\r"], { text: "", end: "given-up" }],
  ["Ctrl-D at the start", ["\u0004"], { text: "", end: "given-up" }],
  ["Ctrl-D later, and an arrow", ["a\u0004\u001bb\r"], { text: "ab", end: "entered" }],
  ["not yet", ["nd_"], { text: "nd_", end: null }],
])("typing: %s", (_, chunks, expected) => {
  expect(chunks.reduce(typeCharacters, { text: "", end: null })).toEqual(expected);
});
