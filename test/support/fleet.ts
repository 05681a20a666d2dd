/**
 * A whole fleet with the compiled binary: a coordinator on loopback, a CI machine that builds with real Nix, and devices
 * with stores of their own. Used by the end-to-end tests and by the demo.
 *
 * Nothing here waits a fixed time, and nothing survives `await using`.
 */
import { join } from "node:path";
import { type Builder, createBuilder } from "./builder.ts";
import { createDevice, type Device } from "./device.ts";
import type { Machine } from "./machine.ts";
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
  /** Port of the coordinator; default: any free one. */
  readonly port?: number;
};

export type AgentOptions = {
  /** Default: the device's name. */
  readonly name?: string;
  readonly profile?: string;
  readonly stateDirectory?: string;
  readonly trustedPublicKeys?: readonly string[];
  /** Default: the coordinator's URL. */
  readonly url?: string;
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
  /** @param installed a NixOS-like system that the device was installed with and has booted */
  addDevice(name: string, installed?: string): Promise<Device>;
  startAgent(device: Device, options?: AgentOptions): Promise<SpawnedProcess>;
};

export type CliOptions = Omit<RunOptions, "cwd"> & {
  /** Default: an admin token. */
  readonly token?: string;
  readonly url?: string;
  readonly machine?: Machine;
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
  const builder = stack.use(await createBuilder({ directory: join(directory, "builder") }));
  const coordinator = await startCoordinator(join(directory, "coordinator"), options.port ?? 0);
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
    async addDevice(deviceName, installed) {
      const device = owned.use(await createDevice({ name: deviceName, directory: join(directory, deviceName) }));
      if (installed !== undefined) await device.install(builder, installed);
      await device.startDaemon();
      return device;
    },
    async startAgent(device, agent = {}) {
      const token = agent.token === undefined ? await makeToken("agent") : agent.token;
      const flags = [
        ...["--name", agent.name ?? device.name, "--url", agent.url ?? coordinator.url],
        ...(agent.profile === undefined ? [] : ["--profile", agent.profile]),
        ...(agent.stateDirectory === undefined ? [] : ["--state-dir", agent.stateDirectory]),
        ...(agent.trustedPublicKeys ?? []).flatMap((key) => ["--trusted-public-key", key]),
      ];
      const env: Record<string, string> = token === null ? {} : { NIXDEPLOY_AGENT_TOKEN: token };
      const process = device.spawn([BINARY, "agent", ...flags], { env });
      if (agent.awaitConnection !== false) await process.waitForLine(/connected/, { timeoutMs: 30_000 });
      return process;
    },
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

async function startCoordinator(dataDirectory: string, wantedPort: number): Promise<CoordinatorProcess> {
  let port = wantedPort;
  const launch = async () => {
    const command = [BINARY, "serve", "--listen", `127.0.0.1:${port}`, "--data-dir", dataDirectory];
    const process = spawnProcess(command);
    const [, url] = await process.waitForLine(/^coordinator ready: (\S+)$/, { timeoutMs: 20_000 });
    if (url === undefined) throw new Error(`the coordinator names no URL:\n${process.output()}`);
    port = Number(new URL(url).port);
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
