/**
 * A coordinator, and one box (systemd-box.ts) that runs a NixOS-like system with the agent as a unit of it: what the
 * tests of activations under systemd stand on. Coordinator and builder are those of any fleet.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { z } from "zod";
import type { FixtureOptions, FixtureUnit } from "./builder.ts";
import { createDevice, SYSTEM_PROFILE } from "./device.ts";
import { BINARY, createFleet, type Fleet } from "./fleet.ts";
import { rolloutResultSchema } from "./results.ts";
import { createSystemdBox, type SystemdBox } from "./systemd-box.ts";
import { waitFor } from "./wait-for.ts";

export const NAME = "box";
export const AGENT_UNIT = `nixdeploy-agent-${NAME}.service`;
export const UNDO_UNIT = `nixdeploy-undo-${NAME}.service`;
export const SUPERVISOR_UNIT = `nixdeploy-activation-${NAME}.service`;
export const STATE_DIRECTORY = `/var/lib/nixdeploy/agents/${NAME}`;

export const PROGRAM = "/usr/local/bin/nixdeploy";
/** Another file with the same content: the new system's own program. */
export const OTHER_PROGRAM = "/usr/local/bin/nixdeploy-other";
/** While it is there, no agent starts, and its unit is still starting. */
export const HOLD_AGENT = "/var/lib/nixdeploy/hold-agent";
export const ENVIRONMENT_FILE = "/var/lib/nixdeploy/environment";

export type SystemOptions = Omit<FixtureOptions["system"], "name" | "serviceManager"> & {
  /** What its agent's unit is told otherwise; null: the system has no such unit. */
  readonly agent?: AgentUnitOptions | null;
  /** Default true. */
  readonly hasUndoUnit?: boolean;
  /** Agents of plain profiles of these names, each with a unit of its own, told the same as the system's agent. */
  readonly profiles?: readonly string[];
};

export type AgentUnitOptions = {
  /** Default `PROGRAM`. */
  readonly program?: string;
  readonly flags?: readonly string[];
  /** Lines of its section [Service] besides those that are there. */
  readonly service?: readonly string[];
};

export type Deployment = z.output<typeof rolloutResultSchema>["deployments"][number];

export type SystemdFleet = AsyncDisposable & {
  readonly fleet: Fleet;
  readonly box: SystemdBox;
  /** The system that the box was installed with. */
  readonly installed: string;
  /** Builds a system and pushes it. */
  build(options: SystemOptions): Promise<string>;
  /** `activate`, to its end. */
  deploy(system: string, flags?: readonly string[]): Promise<Deployment>;
  /** `activate`, whose end is awaited later. */
  start(system: string, flags?: readonly string[]): Promise<() => Promise<Deployment>>;
  /** Waits until the activation on record is at this stage. */
  stage(name: string): Promise<void>;
  /** What is there: profile, running system, what would boot. Of a box that is on. */
  state(): Promise<{ readonly profile: string; readonly current: string; readonly bootDefault: string }>;
  /** Until nothing of an activation is left: record, units, timers. @throws Error that says what stays */
  clean(): Promise<void>;
};

export async function createSystemdFleet(
  name: string,
  common: Pick<SystemOptions, "bootLoader"> = {},
): Promise<SystemdFleet> {
  await using stack = new AsyncDisposableStack();
  const fleet = stack.use(await createFleet(name));
  const build = async ({ agent = {}, hasUndoUnit = true, profiles = [], units = [], ...options }: SystemOptions) => {
    const ours = [DAEMON, ...(agent === null ? [] : [agentUnit(agent)]), ...(hasUndoUnit ? [UNDO] : [])];
    if (agent !== null) ours.push(...profiles.map((profile) => profileAgentUnit(profile, agent)));
    const system = {
      name: NAME,
      serviceManager: "systemd",
      ...common,
      ...options,
      units: [...ours, ...units],
    } as const;
    return await fleet.builder.build("system", system);
  };
  const installed = await build({ version: "1" });
  const directory = join(fleet.directory, NAME);
  await install(fleet, directory, installed);
  const files = {
    ...{ [BINARY]: PROGRAM, [await copyProgram(fleet)]: OTHER_PROGRAM },
    [join(import.meta.dir, "programs/bootctl")]: "/usr/local/bin/bootctl",
  };
  const box = stack.use(await createSystemdBox({ name: NAME, directory, files }));
  await box.boot();
  await waitFor("the agent to be admitted", () => readFile(box.diskPath(`${STATE_DIRECTORY}/enrolment.json`), "utf8"), {
    timeoutMs: 30_000,
  });
  let output = () => "nothing was started";
  const start: SystemdFleet["start"] = async (system, flags = []) => {
    const activation = await fleet.start(["activate", `${NAME}=${system}`, "--json", ...flags]);
    output = activation.output;
    return async () => {
      await activation.exited;
      const text = activation.lines.filter(({ stream }) => stream === "stdout").map((line) => line.text);
      const [deployment] = rolloutResultSchema.parse(JSON.parse(text.join("\n"))).deployments;
      if (deployment === undefined) throw new Error(`no deployment:\n${activation.output()}`);
      return deployment;
    };
  };
  const owned = stack.move();
  return {
    fleet,
    box,
    installed,
    build: async (options) => {
      const system = await build(options);
      await fleet.expectRun(["push", system]);
      return system;
    },
    start,
    deploy: async (system, flags) => await (await start(system, flags))(),
    stage: async (stage) => {
      const look = async () => JSON.parse(await readFile(box.diskPath(`${STATE_DIRECTORY}/activation.json`), "utf8"));
      const until = (record: unknown) => Object(record).stage === stage;
      await waitFor(`the activation to be ${stage}`, look, {
        timeoutMs: 40_000,
        intervalMs: 3,
        until,
        describe: output,
      });
    },
    state: async () => ({
      profile: await box.run(["readlink", "--canonicalize", SYSTEM_PROFILE]),
      current: await box.run(["readlink", "--canonicalize", "/run/current-system"]),
      bootDefault: await box.bootDefault(),
    }),
    clean: () => waitUntilClean(box),
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

const DAEMON: FixtureUnit = { name: "nix-daemon.service", version: "any", service: ["ExecStart=/usr/bin/nix-daemon"] };

/** As the NixOS module has to write it: `launch.ts` says why. */
const UNDO: FixtureUnit = {
  name: UNDO_UNIT,
  version: "any",
  restartIfChanged: false,
  stopIfChanged: false,
  stopOnRemoval: false,
  service: [
    "Type=exec",
    `ExecStart=${PROGRAM} supervise --state-dir ${STATE_DIRECTORY}`,
    "Restart=on-failure",
    "RestartSec=1",
  ],
};

function agentUnit({ program = PROGRAM, flags = [], service = [] }: AgentUnitOptions): FixtureUnit {
  return {
    name: AGENT_UNIT,
    // What is not its own version changes nothing.
    version: "any",
    service: [
      "Type=exec",
      `EnvironmentFile=${ENVIRONMENT_FILE}`,
      `ExecStartPre=/bin/sh -c "while [ -e ${HOLD_AGENT} ]; do sleep 0.05; done"`,
      `ExecStart=${[program, "agent", "--name", NAME, ...flags].join(" ")}`,
      "Restart=always",
      "RestartSec=1",
      ...service,
    ],
  };
}

/** Name of agent and profile are the same. */
function profileAgentUnit(profile: string, options: AgentUnitOptions): FixtureUnit {
  const { name: _, ...unit } = agentUnit({ ...options, flags: ["--profile", profile, ...(options.flags ?? [])] });
  const service = unit.service?.map((line) => line.replace(`--name ${NAME} `, `--name ${profile} `)) ?? [];
  return { ...unit, name: `nixdeploy-agent-${profile}.service`, service };
}

/** What an installer does to the disk: closure, profile, boot loader, and the agent's credentials. */
async function install(fleet: Fleet, directory: string, system: string): Promise<void> {
  await using device = await createDevice({ name: NAME, directory });
  await device.importFrom(fleet.builder, system);
  await device.run(["nix-env", "--profile", SYSTEM_PROFILE, "--set", system]);
  await device.run([`${system}/bin/switch-to-configuration`, "boot"]);
  const environmentFile = device.hostPath(ENVIRONMENT_FILE);
  await mkdir(dirname(environmentFile), { recursive: true });
  const token = await fleet.makeToken("agent");
  const lines = [`NIXDEPLOY_URL=${fleet.coordinator.url}`, `NIXDEPLOY_AGENT_TOKEN=${token}`];
  await writeFile(environmentFile, `${lines.join("\n")}\n`, { mode: 0o600 });
}

/** A link would do, but is no other file. */
async function copyProgram(fleet: Fleet): Promise<string> {
  const copy = join(fleet.directory, "nixdeploy-other");
  await fleet.builder.run(["cp", "--reflink=auto", BINARY, copy]);
  return copy;
}

async function waitUntilClean(box: SystemdBox): Promise<void> {
  const look = async () => {
    const units = await box.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "nixdeploy-*"]);
    const ours = units.split("\n").filter((line) => /nixdeploy-(activation|deadline)/.test(line));
    const files = (await box.run(["ls", STATE_DIRECTORY])).split("\n").filter((file) => file.startsWith("activation"));
    return [...ours, ...files.filter((file) => file !== "activation.lock")];
  };
  await waitFor("nothing of the activation to be left", look, { until: (left) => left.length === 0 });
}
