/**
 * What the tables of bad input stand on, made once: a coordinator that is used by nobody else, a machine with a store
 * to push from, an agent that keeps a profile, servers that are no coordinator, and things of the wrong kind on disk.
 */
import { chmod, copyFile, mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { makeCertificate, type TestCertificate } from "../../support/certificates.ts";
import { ensureDebianPackages } from "../../support/debian.ts";
import { BINARY, createFleet, type Fleet } from "../../support/fleet.ts";
import { type RunResult, runChecked, runProcess, type SpawnedProcess } from "../../support/processes.ts";
import { tokenResultSchema } from "../../support/results.ts";
import { type BadInput, splitCommand, WRAPPERS } from "./case.ts";
import { startOddServers } from "./odd-servers.ts";
import { FALSE_TOKEN } from "./registry.ts";

export type World = AsyncDisposable & {
  readonly fleet: Fleet;
  readonly certificate: TestCertificate;
  /** What stands behind `{name}` in the tables. */
  readonly values: Readonly<Record<string, string>>;
  readonly secrets: readonly string[];
  /** A data directory that a coordinator worked on, to be copied. */
  readonly usedDataDirectory: string;
  /** A state directory of an agent that was admitted, to be copied. */
  readonly usedStateDirectory: string;
  /** Replaces every `{name}`. @throws Error for a name that is not known */
  fill(text: string, more?: Readonly<Record<string, string>>): string;
  /** Runs a row on the builder. @param directory what `{new}` means */
  run(row: BadInput, directory: string): Promise<RunResult>;
  /** A directory of its own, empty and not made. */
  newDirectory(): string;
};

const TOKENS = ["admin", "activate", "push", "read", "agent"] as const;

export async function createWorld(): Promise<World> {
  await ensureDebianPackages(["faketime", "openssl"]);
  await using stack = new AsyncDisposableStack();
  const fleet = stack.use(await createFleet("bad-input"));
  const folder = join(fleet.directory, "rows");
  await mkdir(folder);
  const certificate = await makeCertificate(folder);
  const odd = stack.use(startOddServers(certificate));
  const tokens = await makeTokens(fleet);
  const files = await makeFiles(folder, tokens);
  const key = await fleet.builder.generateKey("team-1");
  const path = await fleet.builder.build("profile", { name: "hello", version: "1" });
  const agent = stack.use(startFirstAgent(fleet, { folder, token: tokens["agent-token"] }));
  await agent.waitForLine(/connected/, { timeoutMs: 30_000 });
  const usedDataDirectory = join(folder, "used-data");
  await mkdir(usedDataDirectory);
  await runChecked([BINARY, "token", "list", "--data-dir", usedDataDirectory]);
  // Rows that run as another user come in here, and find a binary that they may run.
  await Promise.all([chmod(fleet.directory, 0o755), copyFile(BINARY, join(folder, "nixdeploy"))]);

  const { url, dataDirectory } = fleet.coordinator;
  const values: Record<string, string> = {
    ...odd.origins,
    ...tokens,
    ...files,
    url,
    port: new URL(url).port,
    data: dataDirectory,
    rows: folder,
    nixdeploy: join(folder, "nixdeploy"),
    path,
    key: key.secretKeyFile,
    absent: "/nix/store/00000000000000000000000000000000-absent",
    authority: certificate.authorityFile,
    certificate: certificate.certificateFile,
    "certificate-key": certificate.keyFile,
    "false-token": FALSE_TOKEN,
  };
  const fill: World["fill"] = (text, more = {}) =>
    text.replaceAll(/\{([a-z][a-z0-9-]*)\}/g, (_, name: string) => {
      const value = more[name] ?? values[name];
      if (value === undefined) throw new Error(`no value is called {${name}}`);
      return value;
    });
  let directories = 0;
  const owned = stack.move();
  return {
    fleet,
    certificate,
    values,
    usedDataDirectory,
    usedStateDirectory: join(folder, "first/state"),
    secrets: [
      ...Object.values(tokens).map((token) => token.slice(token.lastIndexOf("_") + 1)),
      ...[(await Bun.file(key.secretKeyFile).text()).trim().split(":")[1] ?? "", "s3cretS3cret", "hunter2"],
    ],
    fill,
    run: (row, directory) => runRow(row, { fleet, fill: (text) => fill(text, { new: directory }) }),
    newDirectory: () => {
      directories += 1;
      return join(folder, String(directories));
    },
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

type Runner = { readonly fleet: Fleet; readonly fill: (text: string) => string };

async function runRow({ command, env = {}, through, stdin }: BadInput, { fleet, fill }: Runner): Promise<RunResult> {
  const words = splitCommand(command).map(fill);
  const wrapper = through === undefined ? [] : WRAPPERS[through];
  const defaults = { NIXDEPLOY_URL: "{url}", NIXDEPLOY_TOKEN: "{admin-token}" };
  const variables = Object.entries({ ...defaults, ...env }).flatMap(([name, value]) =>
    value === null ? [] : [[name, fill(value)]],
  );
  // A row that is wrong does not end by itself: that is a failure too, and soon.
  return await fleet.builder.exec([...wrapper, fill("{nixdeploy}"), ...words], {
    env: Object.fromEntries(variables),
    timeoutMs: 60_000,
    ...(stdin === undefined ? {} : { input: fill(stdin) }),
  });
}

async function makeTokens(fleet: Fleet): Promise<Record<string, string>> {
  const make = async (...flags: readonly string[]) => {
    const made = await runProcess([
      ...[BINARY, "token", "create", "--json", "--data-dir", fleet.coordinator.dataDirectory],
      ...flags,
    ]);
    return tokenResultSchema.parse(JSON.parse(made.stdout));
  };
  const [revoked, short, long, ...usual] = await Promise.all([
    make("--kind", "push"),
    make("--kind", "admin", "--expires", "1s"),
    make("--kind", "admin", "--expires", "3650d"),
    ...TOKENS.map((kind) => make("--kind", kind)),
  ]);
  await runProcess([BINARY, "token", "revoke", revoked.id, "--data-dir", fleet.coordinator.dataDirectory]);
  return {
    ...Object.fromEntries(usual.map(({ token }, index) => [`${TOKENS[index]}-token`, token])),
    "revoked-token": revoked.token,
    "expired-token": short.token,
    "ten-year-token": long.token,
  };
}

/** Things that are not what they are taken for. Nobody but root can read `private`. */
async function makeFiles(folder: string, tokens: Readonly<Record<string, string>>): Promise<Record<string, string>> {
  const contents: Readonly<Record<string, string | Uint8Array>> = {
    text: "hello\n",
    "empty-file": "",
    bytes: new Uint8Array(4_096).map((_, index) => (index * 7 + 128) % 256),
    large: "a".repeat(20_000),
    "two-lines": `${tokens["push-token"]}\nhunter2\n`,
    "not-utf8": new Uint8Array([0xff, 0xfe, 0x00, 0x41]),
    private: "hunter2\n",
  };
  for (const [name, content] of Object.entries(contents)) {
    await writeFile(join(folder, name), content, { mode: name === "private" ? 0o600 : 0o644 });
  }
  await symlink("loop", join(folder, "loop"));
  await symlink("nothing", join(folder, "dangling"));
  return Object.fromEntries([...Object.keys(contents), "loop", "dangling"].map((name) => [name, join(folder, name)]));
}

type FirstAgent = { readonly folder: string; readonly token: string | undefined };

/** Keeps `{rows}/first/profile` with the state directory `{rows}/first/state`. */
function startFirstAgent(fleet: Fleet, { folder, token = "" }: FirstAgent): SpawnedProcess {
  const first = join(folder, "first");
  return fleet.builder.spawn(
    [BINARY, "agent", "--name", "first", "--profile", join(first, "profile"), "--state-dir", join(first, "state")],
    { env: { NIXDEPLOY_URL: fleet.coordinator.url, NIXDEPLOY_AGENT_TOKEN: token } },
  );
}
