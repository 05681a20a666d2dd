/**
 * A box (systemd-box.ts) that runs the coordinator, an agent of the same host, and the undo unit, all as docs/install.md
 * has them; and a CI machine outside, which reaches the coordinator through the box's network, that of the host.
 *
 * There are two versions of the program in it: ours, and another one that migrates the database further
 * (variant-binary.ts). A system may run either.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Builder, createBuilder, type FixtureOptions, type FixtureUnit } from "./builder.ts";
import { createDevice, SYSTEM_PROFILE } from "./device.ts";
import { BINARY } from "./fleet.ts";
import { findFreePorts } from "./free-port.ts";
import { readGuideFile, readGuideServices } from "./install-guide.ts";
import { checkResult, type RunResult, runProcess, type SpawnedProcess, spawnProcess } from "./processes.ts";
import { rolloutResultSchema } from "./results.ts";
import { createSystemdBox, type SystemdBox } from "./systemd-box.ts";
import { createTemporaryDirectory } from "./temporary-directory.ts";
import { buildVariant } from "./variant-binary.ts";
import { waitFor } from "./wait-for.ts";

/** As the document calls the host. */
export const OWN_HOST = "nuc";
export const SERVE_UNIT = "nixdeploy.service";
export const OWN_AGENT_UNIT = `nixdeploy-agent-${OWN_HOST}.service`;
/** What the agent's unit is called where it is a file. */
export const FILES_AGENT_UNIT = "nixdeploy-agent.service";
export const OWN_STATE_DIRECTORY = `/var/lib/nixdeploy/agents/${OWN_HOST}`;
export const NEXT_VERSION = "99.0.0";
export const NEXT_MIGRATION = "9999-next";

/** Folder inside → which program is there. */
const PREFIXES = { ours: "/usr/local", next: "/opt/next" } as const;
export const AGENT_TOKEN = "/etc/nixdeploy/agent-token";
/** Behind the link that systemd makes for `DynamicUser=`. */
const DATA_DIRECTORY = "/var/lib/private/nixdeploy/server";

export type OwnHostOptions = {
  /** Of which part of the document: its NixOS modules (default), or its unit files, fenced in as it says. */
  readonly units?: "nixos" | "files";
};

export type OwnSystemOptions = Pick<FixtureOptions["system"], "version" | "faults"> & {
  /** Which program coordinator, agent and undo unit are; default ours. */
  readonly program?: keyof typeof PREFIXES;
  /** Where `serve` listens instead of where everybody looks for it. */
  readonly listen?: string;
  /** More units. */
  readonly units?: readonly FixtureUnit[];
};

export type OwnRollout = {
  readonly exitCode: number | null;
  readonly deployment: ReturnType<typeof rolloutResultSchema.parse>["deployments"][number];
  /** Everything that it printed, for error messages. */
  readonly output: string;
};

export type OwnHost = AsyncDisposable & {
  readonly box: SystemdBox;
  readonly builder: Builder;
  /** The coordinator's. */
  readonly url: string;
  /** What it was installed with. */
  readonly installed: string;
  /** Builds a system; `push` it before it is deployed. */
  build(options: OwnSystemOptions): Promise<string>;
  /** Runs our program on the CI machine. */
  cli(args: readonly string[]): Promise<RunResult>;
  push(path: string): Promise<void>;
  /** `activate`, whose end is awaited later. */
  start(system: string, flags?: readonly string[]): { readonly process: SpawnedProcess; end(): Promise<OwnRollout> };
  state(): Promise<{ readonly profile: string; readonly current: string; readonly bootDefault: string }>;
  /** Migrations that the database has had, as SQLite reads them. */
  migrations(): Promise<string[]>;
  /** What SQLite's integrity check says of it: "ok". */
  checkDatabase(): Promise<string[]>;
  /** What a unit's main process runs; null when there is none. */
  program(unit: string): Promise<string | null>;
};

export async function createOwnHost(name: string, { units = "nixos" }: OwnHostOptions = {}): Promise<OwnHost> {
  await using stack = new AsyncDisposableStack();
  const { path: root } = stack.use(await createTemporaryDirectory(name));
  const builder = stack.use(await createBuilder({ directory: join(root, "builder") }));
  const [port = 0] = await findFreePorts(1);
  const listen = `127.0.0.1:${port}`;
  const variant = join(root, "variant");
  await mkdir(variant);
  const next =
    units === "files" ? null : await buildVariant({ directory: variant, version: NEXT_VERSION, migration: NEXT });
  const build = (options: OwnSystemOptions) =>
    buildSystem(builder, { ...options, documented: units, url: `http://${listen}`, listen: options.listen ?? listen });
  const installed = await build({ version: "1" });
  const directory = join(root, OWN_HOST);
  const tokenFile = join(root, "agent-token");
  await install({ builder, directory, system: installed, tokenFile });
  const files = {
    [BINARY]: `${PREFIXES.ours}/bin/nixdeploy`,
    ...(next === null ? {} : { [next]: `${PREFIXES.next}/bin/nixdeploy` }),
    [tokenFile]: AGENT_TOKEN,
  };
  const box = stack.use(await createSystemdBox({ name: OWN_HOST, directory, files }));
  await box.boot();
  await waitFor("the agent to be admitted", () => readFile(box.diskPath(`${OWN_STATE_DIRECTORY}/enrolment.json`)), {
    timeoutMs: 30_000,
    describe: () => "see the journal of the box",
  });
  const env = {
    NIXDEPLOY_URL: `http://${listen}`,
    NIXDEPLOY_TOKEN: (await readFile(box.diskPath(`${DATA_DIRECTORY}/admin-token`), "utf8")).trim(),
  };
  const cli: OwnHost["cli"] = (args) => builder.exec([BINARY, ...args], { env, timeoutMs: 120_000 });
  const databaseFile = box.diskPath(`${DATA_DIRECTORY}/coordinator.db`);
  const owned = stack.move();
  return {
    box,
    builder,
    url: env.NIXDEPLOY_URL,
    installed,
    build,
    cli,
    push: async (path) => void checkResult(["nixdeploy", "push", path], await cli(["push", path])),
    start(system, flags = []) {
      const command = [BINARY, "activate", `${OWN_HOST}=${system}`, "--json", ...flags];
      const process = builder.spawn(command, { env });
      return { process, end: () => readEnd(process) };
    },
    state: async () => ({
      profile: await box.run(["readlink", "--canonicalize", SYSTEM_PROFILE]),
      current: await box.run(["readlink", "--canonicalize", "/run/current-system"]),
      bootDefault: await box.bootDefault(),
    }),
    migrations: () => queryDatabase(databaseFile, "select id from migrations order by id"),
    checkDatabase: () => queryDatabase(databaseFile, "pragma integrity_check"),
    async program(unit) {
      const id = await box.unit(unit, "MainPID");
      return id === "0" ? null : await box.run(["readlink", `/proc/${id}/exe`]);
    },
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

/** What a next version may do to a database, as far as the rule of migrations.ts goes. */
const NEXT = {
  id: NEXT_MIGRATION,
  statements: [
    "alter table agents add column later text",
    "alter table deployments add column weight integer not null default 1",
    "create table later (id text not null primary key, deployment_id text references deployments (id)) strict",
    "create index deployments_by_weight on deployments (weight)",
  ],
};

const DAEMON: FixtureUnit = { name: "nix-daemon.service", version: "any", service: ["ExecStart=/usr/bin/nix-daemon"] };

type Place = { readonly url: string; readonly listen: string };

type Documented = { readonly documented: NonNullable<OwnHostOptions["units"]> };

/** The document's services, with the addresses and the program of this test in them. */
async function buildSystem(
  builder: Builder,
  { program = "ours", units = [], url, listen, documented, ...options }: OwnSystemOptions & Place & Documented,
): Promise<string> {
  const found = await (documented === "files" ? readUnitFiles : readModules)(builder, PREFIXES[program]);
  const ours = found.map((unit) => ({ ...unit, text: settle(unit.text ?? "", { url, listen }) }));
  const system = { name: OWN_HOST, serviceManager: "systemd", ...options } as const;
  return await builder.build("system", { ...system, units: [DAEMON, ...ours, ...units] });
}

async function readModules(builder: Builder, prefix: string): Promise<FixtureUnit[]> {
  return [
    ...(await readGuideServices(builder, { heading: "An agent on NixOS", prefix })),
    ...(await readGuideServices(builder, { heading: "A coordinator that deploys its own host", prefix })),
  ];
}

/** The drop-in is read after the file, as systemd does. There is an undo unit for NixOS alone. */
async function readUnitFiles(builder: Builder, prefix: string): Promise<FixtureUnit[]> {
  const read = async (file: string) => await readGuideFile(`/etc/systemd/system/${file}`);
  const hardening = await read(`${FILES_AGENT_UNIT}.d/hardening.conf`);
  return [
    { name: SERVE_UNIT, text: `${await read(SERVE_UNIT)}\n${await read(`${SERVE_UNIT}.d/hardening.conf`)}` },
    { name: FILES_AGENT_UNIT, text: `${await read(FILES_AGENT_UNIT)}\n${hardening}` },
    ...(await readModules(builder, prefix)).filter((unit) => unit.name.includes("undo")),
  ];
}

function settle(text: string, { url, listen }: Place): string {
  return text
    .replaceAll("https://deploy.example.org", url)
    .replaceAll("127.0.0.1:8470", listen)
    .replace(/^(ExecStart=\S+ serve )(?!--listen)/m, `$1--listen ${listen} `);
}

/** Closure, profile, boot loader, and a coordinator that has run once, for the token of the first contact. */
async function install(options: {
  readonly builder: Builder;
  readonly directory: string;
  readonly system: string;
  readonly tokenFile: string;
}): Promise<void> {
  const { builder, directory, system } = options;
  await using device = await createDevice({ name: OWN_HOST, directory });
  await device.importFrom(builder, system);
  await device.run(["nix-env", "--profile", SYSTEM_PROFILE, "--set", system]);
  await device.run([`${system}/bin/switch-to-configuration`, "boot"]);
  const state = join(directory, "var-lib-private");
  await mkdir(state, { mode: 0o700 });
  const place = ["--data-dir", join(state, "nixdeploy/server")];
  const serve = spawnProcess([BINARY, "serve", "--listen", "127.0.0.1:0", ...place]);
  await serve.waitForLine(/^coordinator ready/, { timeoutMs: 20_000 });
  await serve.stop();
  const command = [BINARY, "token", "create", "--kind", "agent", ...place];
  const token = checkResult(command, await runProcess(command));
  await writeFile(options.tokenFile, `${token}\n`, { mode: 0o600 });
}

async function readEnd(process: SpawnedProcess): Promise<OwnRollout> {
  const { exitCode } = await process.exited;
  const text = process.lines.filter(({ stream }) => stream === "stdout").map((line) => line.text);
  const output = process.output();
  try {
    const [deployment] = rolloutResultSchema.parse(JSON.parse(text.join("\n"))).deployments;
    if (deployment === undefined) throw new Error("there is no deployment");
    return { exitCode, deployment, output };
  } catch (cause) {
    throw new Error(`activate printed no result:\n${output}`, { cause });
  }
}

/** The first column. */
async function queryDatabase(file: string, query: string): Promise<string[]> {
  const { Database } = await import("bun:sqlite");
  using database = new Database(file, { readonly: true });
  return database
    .query<Record<string, string>, []>(query)
    .all()
    .map((row) => Object.values(row)[0] ?? "");
}
