/**
 * A whole fleet with the compiled binary: a coordinator on loopback, a CI machine that builds with real Nix, and devices
 * with stores of their own. Used by the end-to-end tests and by the demo.
 *
 * Nothing here waits a fixed time, and nothing survives `await using`.
 */
import { join } from "node:path";
import { type Builder, createBuilder } from "./builder.ts";
import { createDevice, type Device } from "./device.ts";
import type { Machine, MachineOptions } from "./machine.ts";
import type { Nix } from "./nix.ts";
import {
  checkResult,
  type RunOptions,
  type RunResult,
  runProcess,
  type SpawnedProcess,
  spawnProcess,
} from "./processes.ts";
import { createTemporaryDirectory } from "./temporary-directory.ts";

export const BINARY = join(import.meta.dir, "../../dist/nixdeploy");

export type TokenKind = "admin" | "activate" | "push" | "read" | "agent";

export type FleetOptions = {
  /** The folder for everything; default: a temporary one that goes with the fleet. */
  readonly directory?: string;
  /** What the CI machine builds with; default: `ensureNix()`. */
  readonly builderNix?: Nix;
  /** Where the coordinator listens; default 127.0.0.1, an IPv6 address in brackets. */
  readonly host?: string;
  /** Port of the coordinator; default: any free one. Needed with `--public-url`, which hides it. */
  readonly port?: number;
  /** More flags for `serve`. */
  readonly serveFlags?: readonly string[];
};

export type DeviceOptions = Pick<MachineOptions, "nix" | "nixConf" | "users"> & {
  /** A NixOS-like system that the device was installed with and has booted. */
  readonly installed?: string;
  /** Start a nix-daemon, which nobody but `powerOff` can end. Default true. */
  readonly withDaemon?: boolean;
};

export type AgentOptions = {
  /** Default: the device's name. */
  readonly name?: string;
  readonly profile?: string;
  /** One of the device's users, by whom it is run; default: root. */
  readonly user?: string;
  readonly stateDirectory?: string;
  readonly trustedPublicKeys?: readonly string[];
  /** Its own health checks. */
  readonly healthChecksFile?: string;
  /** Default: the coordinator's URL. */
  readonly url?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Default: a new agent token; null gives none. */
  readonly token?: string | null;
  /** Wait until it says that it is connected. Default true. */
  readonly awaitConnection?: boolean;
};

export type Fleet = AsyncDisposable & {
  readonly directory: string;
  readonly builder: Builder;
  readonly coordinator: CoordinatorProcess;
  /** Makes a token as the coordinator's own user: through the control socket, or offline while it does not run. */
  makeToken(kind: TokenKind): Promise<string>;
  /** Runs the binary on the CI machine with the URL and an admin token in its environment. */
  run(args: readonly string[], options?: CliOptions): Promise<RunResult>;
  /** Like `run`, but throws with the output unless it ends with 0; returns stdout without the last newline. */
  expectRun(args: readonly string[], options?: CliOptions): Promise<string>;
  /** Starts the binary on the CI machine and returns at once. */
  start(args: readonly string[], options?: CliOptions): Promise<SpawnedProcess>;
  /** @param options or else only the installed system */
  addDevice(name: string, options?: string | DeviceOptions): Promise<Device>;
  startAgent(device: Device, options?: AgentOptions): Promise<SpawnedProcess>;
};

export type CliOptions = Omit<RunOptions, "cwd"> & {
  /** Default: an admin token. */
  readonly token?: string;
  readonly url?: string;
  readonly machine?: Machine;
  /** One of the machine's users; default: root. */
  readonly user?: string;
};

export type CoordinatorProcess = {
  readonly url: string;
  readonly dataDirectory: string;
  readonly process: SpawnedProcess;
  /** SIGKILL, and wait until it is gone. */
  killHard(): Promise<void>;
  /** SIGTERM, and wait; returns its exit code. */
  stop(): Promise<number | null>;
  /** Starts it again on the same data directory and port. */
  restart(): Promise<void>;
};

export async function createFleet(name: string, options: FleetOptions = {}): Promise<Fleet> {
  await using stack = new AsyncDisposableStack();
  const directory = options.directory ?? stack.use(await createTemporaryDirectory(name)).path;
  const builder = stack.use(
    await createBuilder({
      directory: join(directory, "builder"),
      ...(options.builderNix === undefined ? {} : { nix: options.builderNix }),
    }),
  );
  const coordinator = await startCoordinator(join(directory, "coordinator"), options);
  stack.defer(() => coordinator.process.stop().then(() => {}));
  const adminToken = (await Bun.file(join(coordinator.dataDirectory, "admin-token")).text()).trim();

  const environment = (cli: CliOptions) => ({
    NIXDEPLOY_URL: cli.url ?? coordinator.url,
    NIXDEPLOY_TOKEN: cli.token ?? adminToken,
    ...cli.env,
  });
  const run: Fleet["run"] = async (args, cli = {}) => {
    const { machine = builder, token: _token, url: _url, env: _env, ...rest } = cli;
    return await machine.exec([BINARY, ...args], { timeoutMs: 120_000, ...rest, env: environment(cli) });
  };
  const makeToken = async (kind: TokenKind) => {
    const command = [BINARY, "token", "create", "--kind", kind, "--data-dir", coordinator.dataDirectory];
    return checkResult(command, await runProcess(command));
  };
  const owned = stack.move();
  return {
    directory,
    builder,
    coordinator,
    makeToken,
    run,
    expectRun: async (args, cli) => checkResult(["nixdeploy", ...args], await run(args, cli)),
    start: async (args, cli = {}) => (cli.machine ?? builder).spawn([BINARY, ...args], { env: environment(cli) }),
    async addDevice(deviceName, how = {}) {
      const { installed, withDaemon = true, ...machine } = typeof how === "string" ? { installed: how } : how;
      const options = { ...machine, name: deviceName, directory: join(directory, deviceName) };
      const device = owned.use(await createDevice(options));
      if (installed !== undefined) await device.install(builder, installed);
      if (withDaemon) await device.startDaemon();
      return device;
    },
    async startAgent(device, agent = {}) {
      const token = agent.token === undefined ? await makeToken("agent") : agent.token;
      const flags = [
        ...["--name", agent.name ?? device.name, "--url", agent.url ?? coordinator.url],
        ...(agent.profile === undefined ? [] : ["--profile", agent.profile]),
        ...(agent.stateDirectory === undefined ? [] : ["--state-dir", agent.stateDirectory]),
        ...(agent.healthChecksFile === undefined ? [] : ["--health-checks", agent.healthChecksFile]),
        ...(agent.trustedPublicKeys ?? []).flatMap((key) => ["--trusted-public-key", key]),
      ];
      const env = { ...agent.env, ...(token === null ? {} : { NIXDEPLOY_AGENT_TOKEN: token }) };
      const process = device.spawn([BINARY, "agent", ...flags], {
        env,
        ...(agent.user === undefined ? {} : { user: agent.user }),
      });
      if (agent.awaitConnection !== false) await process.waitForLine(/connected/, { timeoutMs: 30_000 });
      return process;
    },
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

/** A coordinator alone; whoever starts it stops it. */
export async function startCoordinator(dataDirectory: string, options: FleetOptions): Promise<CoordinatorProcess> {
  const { host = "127.0.0.1", serveFlags = [] } = options;
  let port = options.port ?? 0;
  const launch = async () => {
    const flags = ["--listen", `${host}:${port}`, "--data-dir", dataDirectory, ...serveFlags];
    const process = spawnProcess([BINARY, "serve", ...flags]);
    const [, url] = await process.waitForLine(/^coordinator ready: (\S+)$/, { timeoutMs: 20_000 });
    if (url === undefined) throw new Error(`the coordinator names no URL:\n${process.output()}`);
    port ||= Number(new URL(url).port);
    return { process, url };
  };
  let { process, url } = await launch();
  return {
    get url() {
      return url;
    },
    dataDirectory,
    get process() {
      return process;
    },
    async killHard() {
      process.kill("SIGKILL");
      await process.exited;
    },
    stop: async () => (await process.stop()).exitCode,
    async restart() {
      ({ process, url } = await launch());
    },
  };
}
