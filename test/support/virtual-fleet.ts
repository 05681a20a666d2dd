/**
 * A coordinator, and one virtual machine (virtual-machine.ts) with a NixOS-like system and an agent: what the tests of
 * real power cuts stand on. Coordinator and builder are those of any fleet; the machine reaches them at 10.0.2.2.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import type { FixtureOptions } from "./builder.ts";
import { createDevice, SYSTEM_PROFILE } from "./device.ts";
import { BINARY, createFleet, type Fleet } from "./fleet.ts";
import { NIX_CONF } from "./nix.ts";
import { rolloutResultSchema } from "./results.ts";
import { createVirtualMachine, type VirtualMachine } from "./virtual-machine.ts";
import { waitFor } from "./wait-for.ts";

export const NAME = "vm";
export const STATE_DIRECTORY = `/var/lib/nixdeploy/agents/${NAME}`;
/** On the disk from the beginning, and full of the letter a. */
export const FULL_FILE = "/boot/full";
export const FULL_FILE_BYTES = 65_536;
const ENVIRONMENT_FILE = "/var/lib/nixdeploy/environment";
const CONNECTED_MAX_MS = 240_000;
const CLEAN_MAX_MS = 120_000;

export type Deployment = z.output<typeof rolloutResultSchema>["deployments"][number];

/** What the machine itself says. */
export type MachineState = z.output<typeof stateSchema>;
const stateSchema = z.object({
  profile: z.string(),
  current: z.string(),
  bootDefault: z.string(),
  /** Of the unit that runs. */
  unit: z.string(),
});

export type VirtualFleet = AsyncDisposable & {
  readonly fleet: Fleet;
  readonly machine: VirtualMachine;
  /** Builds a system and pushes it. */
  build(options: Omit<FixtureOptions["system"], "name">): Promise<string>;
  /** `activate`, whose end is awaited later. */
  start(system: string, flags?: readonly string[]): Promise<{ end(): Promise<Deployment>; output(): string }>;
  state(): Promise<MachineState>;
  /** Until nothing of a deployment is left: record, proof, journal, temporary file, root, lock, process. @throws Error that says what stays */
  clean(deploymentId: string): Promise<void>;
  /** What `nix-store --verify --check-contents` complains about; empty when the store is whole. */
  verifyStore(): Promise<string>;
};

export async function createVirtualFleet(name: string): Promise<VirtualFleet> {
  await using stack = new AsyncDisposableStack();
  const fleet = stack.use(await createFleet(name));
  const build: VirtualFleet["build"] = async (options) =>
    await fleet.builder.build("system", { name: NAME, units: [{ name: `${NAME}.service` }], ...options });
  const installed = await build({ version: "1" });
  const directory = join(fleet.directory, NAME);
  await install(fleet, directory, installed);
  const machine = stack.use(
    await createVirtualMachine({
      ...{ name: NAME, directory, stateDirectory: STATE_DIRECTORY },
      files: { [BINARY]: "/usr/bin/nixdeploy" },
      // A device that fears power cuts has Nix' default.
      nixConf: NIX_CONF.replace(/^fsync-metadata.*\n/m, ""),
    }),
  );
  await machine.boot();
  const owned = stack.move();
  return {
    fleet,
    machine,
    build: async (options) => {
      const system = await build(options);
      await fleet.expectRun(["push", system]);
      return system;
    },
    async start(system, flags = []) {
      // To one that is offline, `activate` only leaves word.
      await machine.waitForLine(/connected to/, { timeoutMs: CONNECTED_MAX_MS });
      const activation = await fleet.start(["activate", `${NAME}=${system}`, "--json", ...flags]);
      const end = async () => {
        await activation.exited;
        const text = activation.lines.filter(({ stream }) => stream === "stdout").map((line) => line.text);
        const [deployment] = rolloutResultSchema.parse(JSON.parse(text.join("\n"))).deployments;
        if (deployment === undefined) throw new Error(`no deployment:\n${activation.output()}`);
        return deployment;
      };
      return { end, output: activation.output };
    },
    state: async () => stateSchema.parse(JSON.parse(await machine.run(DESCRIBE_STATE))),
    clean: async (deploymentId) => {
      const look = async () =>
        (await machine.run(findLeftovers(deploymentId))).split("\n").filter((line) => line !== "");
      // The agent forgets the last of it after the outcome has gone out.
      await waitFor("nothing to be left over", look, { timeoutMs: CLEAN_MAX_MS, until: (left) => left.length === 0 });
    },
    verifyStore: async () => {
      const { exitCode, stdout } = await machine.exec("nix-store --verify --check-contents");
      return exitCode === 0 && !/modified|disappeared|lacks/.test(stdout) ? "" : stdout;
    },
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

const DESCRIBE_STATE = `
printf '{"profile":"%s","current":"%s","bootDefault":"%s","unit":"%s"}' \\
  "$(readlink -f ${SYSTEM_PROFILE})" "$(readlink -f /run/current-system)" "$(cat /boot/loader/default)" \\
  "$(cat /run/units/${NAME}.service.version)"
`;

function findLeftovers(deploymentId: string): string {
  return `
cd ${STATE_DIRECTORY}
ls -A . | grep -E '^(activation.*|proof.*)$' | grep -vx activation.lock
find deployments -type f 2>/dev/null
find ${STATE_DIRECTORY} /boot /run /nix/var/nix/profiles /nix/var/nix/gcroots -name '*.new' -o -name '*.tmp' -o -name '.tmp*'
ls -A /nix/var/nix/gcroots/nixdeploy | grep -v '^${NAME}-${deploymentId}' | sed 's/^/root /'
for lock in ${STATE_DIRECTORY}/activation.lock /run/nixos/switch-to-configuration.lock; do
  [ ! -e $lock ] || flock --nonblock $lock true || echo "lock $lock"
done
ps -eo args | grep -E 'nixdeploy supervise|switch-to-configuration' | grep -v grep
true
`;
}

/** What an installer does to the disks: closure, profile, boot loader, and the agent's credentials. */
async function install(fleet: Fleet, directory: string, system: string): Promise<void> {
  await using device = await createDevice({ name: NAME, directory });
  await device.importFrom(fleet.builder, system);
  await device.run(["nix-env", "--profile", SYSTEM_PROFILE, "--set", system]);
  await device.run([`${system}/bin/switch-to-configuration`, "boot"]);
  const environmentFile = device.hostPath(ENVIRONMENT_FILE);
  await mkdir(dirname(environmentFile), { recursive: true });
  const url = new URL(fleet.coordinator.url);
  url.hostname = "10.0.2.2";
  const lines = [`NIXDEPLOY_URL=${url.origin}`, `NIXDEPLOY_AGENT_TOKEN=${await fleet.makeToken("agent")}`];
  await writeFile(device.hostPath(FULL_FILE), Buffer.alloc(FULL_FILE_BYTES, "a"));
  await writeFile(environmentFile, `${lines.join("\n")}\n`, { mode: 0o600 });
}
