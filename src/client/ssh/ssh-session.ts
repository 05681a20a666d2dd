/**
 * One host by the real `ssh` program, so that the user's configuration, agent, jump hosts and known hosts count. All
 * commands share one connection: the user's own ControlMaster where the configuration has one, else a master of ours
 * that ends with us. `fresh` is a new connection of its own, for whoever must know that one can be made.
 *
 * NIX_SSHOPTS holds options for ssh, as Nix has it. Knows nothing of Nix otherwise.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { NixdeployError } from "../../errors.ts";
import { openProgramTransport } from "../../nix/daemon/open-transport.ts";
import type { Transport } from "../../nix/daemon/transport.ts";
import type { Clock } from "../../runtime.ts";
import { type ChildResult, type RunChildOptions, runChild } from "./run-child.ts";
import { remoteCommand } from "./shell-words.ts";
import { openSocketFolder } from "./socket-folder.ts";
import { formatSshAddress, type SshAddress, sshDestination } from "./ssh-address.ts";
import { explainSshFailure, SSH_FAILED } from "./ssh-failure.ts";

export type SshSession = AsyncDisposable & {
  /** For messages. */
  readonly name: string;
  /** Runs to the end. @throws NixdeployError as `explainSshFailure` when the host is not reached */
  run(words: readonly string[], options: SshRunOptions): Promise<ChildResult>;
  /** The streams of a program over there. @throws as `run`, as far as it shows at once */
  open(words: readonly string[], signal: AbortSignal): Promise<Transport>;
};

export type SshRunOptions = Pick<RunChildOptions, "input" | "onLine" | "deadlineMs" | "signal"> & {
  /** By a connection made for this alone. */
  readonly fresh?: boolean;
};

export type SshSessionOptions = {
  readonly address: SshAddress;
  /** Of ssh; what is sent is compressed on the way. */
  readonly compress: boolean;
  readonly environment: NodeJS.ProcessEnv;
  readonly clock: Clock;
  readonly signal: AbortSignal;
};

/** People may have to type a password, or look up a fingerprint. */
const LOGIN_MAX_MS = 5 * 60_000;
const FRESH_LOGIN_MAX_S = 15;
const SOCKET_LOOK_MS = 25;

export async function openSshSession(options: SshSessionOptions): Promise<SshSession> {
  const { environment, clock, address } = options;
  const name = formatSshAddress(address);
  const base = ["ssh", ...(environment["NIX_SSHOPTS"] ?? "").split(/\s+/).filter((word) => word !== "")];
  const settings = await readSettings({ ...options, base });
  const shared = [
    ...(options.compress ? ["-C"] : []),
    // A peer that is silent for a minute is gone, unless the user's configuration has an opinion.
    ...(settings.serveraliveinterval === "0" ? ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"] : []),
    // Made for a terminal: another command, and forwards, which a second connection cannot have again.
    ...["-o", "RemoteCommand=none", "-o", "ClearAllForwardings=yes", "-T"],
  ];
  const master = settings.hasControlPath ? null : await createMaster({ ...options, base: [...base, ...shared], name });
  const line = (words: readonly string[], extra: readonly string[]) => [
    ...[...base, ...extra, ...shared, ...sshDestination(address)],
    remoteCommand(words),
  ];
  const alone = ["-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", `ConnectTimeout=${FRESH_LOGIN_MAX_S}`];
  return {
    name,
    async run(words, { fresh = false, ...rest }) {
      const extra = fresh ? alone : ((await master?.ensure(rest.signal)) ?? []);
      const result = await runChild({ ...rest, command: line(words, extra), environment, clock });
      if (result.code === SSH_FAILED) throw explainSshFailure(name, result.stderr);
      return result;
    },
    async open(words, signal) {
      const extra = (await master?.ensure(signal)) ?? [];
      return await openProgramTransport({ peer: name, command: line(words, extra), environment });
    },
    [Symbol.asyncDispose]: async () => {
      await master?.[Symbol.asyncDispose]();
    },
  };
}

type Based = { readonly base: readonly string[] };

/** What ssh makes of the user's configuration for this host. */
async function readSettings(options: SshSessionOptions & Based) {
  const { base, address, environment, clock, signal } = options;
  const command = [...base, "-G", ...sshDestination(address)];
  const result = await runChild({ command, environment, clock, signal, deadlineMs: LOGIN_MAX_MS });
  if (result.code !== 0) throw explainSshFailure(formatSshAddress(address), result.stderr);
  const readValue = (key: string) => new RegExp(`^${key} (.*)$`, "mi").exec(result.stdout)?.[1] ?? "";
  const controlPath = readValue("controlpath");
  const isNamed = controlPath !== "" && controlPath !== "none";
  return {
    // One that nobody makes, and that is not there, would be a login for each command.
    hasControlPath: isNamed && (readValue("controlmaster") !== "false" || existsSync(controlPath)),
    serveraliveinterval: readValue("serveraliveinterval"),
  };
}

type Master = AsyncDisposable & {
  /** A connection that lives. @returns the options that use it. @throws as `SshSession.run` */
  ensure(signal: AbortSignal): Promise<readonly string[]>;
};

async function createMaster(options: SshSessionOptions & Based & { readonly name: string }): Promise<Master> {
  const path = join(await openSocketFolder(), randomUUID().slice(0, 13));
  let connection: ChildProcess | null = null;
  let opening: Promise<void> | null = null;
  const open = async (signal: AbortSignal) => {
    await rm(path, { force: true });
    connection = await startMaster(path, { ...options, signal });
  };
  return {
    async ensure(signal) {
      const isAlive = connection !== null && connection.exitCode === null && connection.signalCode === null;
      if (!isAlive) {
        opening ??= open(signal).finally(() => {
          opening = null;
        });
        await opening;
      }
      return ["-o", "ControlMaster=no", "-o", `ControlPath=${path}`];
    },
    [Symbol.asyncDispose]: async () => {
      await opening?.catch(() => {
        // Whoever asked for it has the error.
      });
      connection?.kill("SIGTERM");
      await rm(path, { force: true });
    },
  };
}

/** @returns when the login is done. @throws as `SshSession.run` */
async function startMaster(
  path: string,
  options: SshSessionOptions & Based & { readonly name: string },
): Promise<ChildProcess> {
  const { base, address, environment, clock, name, signal } = options;
  const [program = "", ...args] = base;
  // It runs what ends with its input, and that is ours: so no connection outlives us, however we die.
  const words = [...args, "-M", "-o", "ControlPersist=no", "-S", path, ...sshDestination(address), "exec cat"];
  const child = spawn(program, words, { env: environment, stdio: ["pipe", "ignore", "pipe"] });
  child.stdin.on("error", () => {
    // The connection has ended, which whoever uses it is told.
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    said = `${said}${String(text)}`.slice(-16_384);
  });
  const ended = new Promise<void>((resolve) => {
    child.once("close", () => resolve());
    child.once("error", () => resolve());
  });
  let isEnded = false;
  void ended.then(() => {
    isEnded = true;
  });
  const untilMs = clock.monotonicMs() + LOGIN_MAX_MS;
  try {
    while (!existsSync(path)) {
      if (isEnded) throw explainSshFailure(name, said);
      if (clock.monotonicMs() > untilMs) {
        throw new NixdeployError("unreachable", `cannot reach ${name} by ssh: the login takes too long`);
      }
      await clock.sleep(SOCKET_LOOK_MS, signal);
    }
    return child;
  } catch (error) {
    child.kill("SIGTERM");
    throw error;
  }
}
