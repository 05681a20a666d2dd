/**
 * Looks at a device with the NixOS-like system from outside: which version is permanent and which one runs, how far an
 * activation is, and what it left behind. Changes nothing.
 */
import { readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { z } from "zod";
import { type Device, SYSTEM_PROFILE } from "./device.ts";

/** What the places that name a system name; "mixed" when they disagree. */
export type SystemSides = {
  /** Profile and boot default. */
  readonly permanent: string;
  /** /run/current-system; with the unit's version it says whether the switch was whole. */
  readonly running: string;
  /** "VERSION", or why it counts as none. */
  readonly unit: string;
};

export type ActivationProbe = {
  /** The stage on record; null when there is no record. */
  stage(): Promise<string | null>;
  supervisors(): number[];
  /** Whether a process has exactly this command line. */
  runs(commandLine: string): boolean;
  sides(): Promise<SystemSides>;
  /** Process id of the unit: it stays the same as long as nobody touches it. */
  unitProcess(): Promise<number | null>;
  /** One line for each thing that should not be there once the deployment has ended. */
  leftovers(latestDeployment: string): Promise<string[]>;
};

const recordSchema = z.object({ stage: z.string() });
const TEMPORARY = /\.(new|tmp)$|^\.tmp|^\.[0-9]+_/;
const LOCKS = ["/run/nixos/switch-to-configuration.lock"];

export function createActivationProbe(
  device: Device,
  options: {
    readonly agent: string;
    readonly unit: string;
    /** Of the agent; default: root's. */
    readonly stateDirectory?: string;
  },
): ActivationProbe {
  const { agent, unit, stateDirectory = `/var/lib/nixdeploy/agents/${agent}` } = options;
  const read = (path: string) => readFile(device.hostPath(path), "utf8").catch(() => null);

  const unitProcess = async () => {
    const id = Number(await read(`/run/units/${unit}.pid`));
    return id > 0 && device.processes().includes(id) ? id : null;
  };
  const supervisors = () => device.processes().filter((id) => commandOf(id).includes("supervise"));

  return {
    async stage() {
      const text = await read(`${stateDirectory}/activation.json`);
      return text === null ? null : recordSchema.parse(JSON.parse(text)).stage;
    },
    supervisors,
    runs: (commandLine) => device.processes().some((id) => commandOf(id).join(" ") === commandLine),
    async sides() {
      const [profile, bootDefault] = [await device.link(SYSTEM_PROFILE), await device.bootDefault()];
      const isRunning = (await unitProcess()) !== null;
      return {
        permanent: profile === bootDefault ? (profile ?? "nothing") : `mixed: ${profile} and ${bootDefault}`,
        running: (await device.link("/run/current-system")) ?? "nothing",
        unit: isRunning ? ((await read(`/run/units/${unit}.version`)) ?? "not ready").trim() : "does not run",
      };
    },
    unitProcess,
    async leftovers(latestDeployment) {
      const found: string[] = [];
      const state = await listFiles(device.hostPath(stateDirectory));
      found.push(
        ...state.filter((file) => /^(activation(-cancel|-program)?(\.json)?$|proof|deployments\/)/.test(file)),
      );
      for (const place of [stateDirectory, "/run", "/boot", "/nix/var/nix/profiles", "/nix/var/nix/gcroots"]) {
        const files = await listFiles(device.hostPath(place));
        found.push(...files.filter((file) => TEMPORARY.test(basename(file))).map((file) => `${place}/${file}`));
      }
      for (const place of ["/nix/var/nix/gcroots/nixdeploy", `${stateDirectory}/gcroots`]) {
        const roots = (await listFiles(device.hostPath(place))).filter((root) => root.startsWith(`${agent}-`));
        found.push(
          ...roots.filter((root) => !root.startsWith(`${agent}-${latestDeployment}`)).map((root) => `root ${root}`),
        );
      }
      for (const id of device.processes()) {
        const command = commandOf(id);
        if (command.length > 0 && !isExpected(id, command)) found.push(`process ${id}: ${command.join(" ")}`);
      }
      for (const lock of [...LOCKS, `${stateDirectory}/activation.lock`]) {
        if ((await read(lock)) === null) continue;
        const { exitCode } = await device.exec(["flock", "--nonblock", lock, "true"]);
        if (exitCode !== 0) found.push(`lock ${lock}`);
      }
      return found;
    },
  };
}

/** The daemon, the agent, and units may run. */
function isExpected(id: number, command: readonly string[]): boolean {
  if (command.some((word) => basename(word) === "nix-daemon")) return true;
  if (command[1] === "agent") return true;
  return environmentOf(id).some((setting) => setting.startsWith("NIXOS_UNIT="));
}

function commandOf(id: number): string[] {
  return readZeroed(`/proc/${id}/cmdline`);
}

function environmentOf(id: number): string[] {
  return readZeroed(`/proc/${id}/environ`);
}

function readZeroed(path: string): string[] {
  try {
    return readFileSync(path, "utf8")
      .split("\0")
      .filter((word) => word !== "");
  } catch {
    return []; // It has ended.
  }
}

/** Files and links below a folder, relative to it; none when it is not there. */
async function listFiles(directory: string): Promise<string[]> {
  const files: string[] = [];
  const visit = async (below: string) => {
    const entries = await readdir(join(directory, below), { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      const path = join(below, entry.name);
      if (entry.isDirectory()) await visit(path);
      else files.push(path);
    }
  };
  await visit("");
  return files;
}
