/**
 * A machine that `copy` works on: this one, or one at the end of ssh. Either runs small scripts and opens sessions with its Nix
 * daemon, as the user who logged in or as root; nothing above this file knows which it is.
 *
 * As root means: the user is, or `sudo` lets him without asking, or he typed its password.
 */
import { NixdeployError } from "../../errors.ts";
import { connectDaemon, connectDaemonOver } from "../../nix/daemon/connect.ts";
import type { DaemonConnection } from "../../nix/daemon/connection.ts";
import { openProgramTransport } from "../../nix/daemon/open-transport.ts";
import type { Transport } from "../../nix/daemon/transport.ts";
import type { Clock } from "../../runtime.ts";
import { type ChildResult, type RunChildOptions, runChild } from "../ssh/run-child.ts";
import { SCRIPT_START } from "../ssh/shell-words.ts";
import { numbered } from "../ssh/ssh-failure.ts";
import type { SshSession } from "../ssh/ssh-session.ts";

export type Script = Pick<RunChildOptions, "input" | "onLine"> & {
  /** For `sh`; fixed text: whatever varies is in `words`. */
  readonly text: string;
  /** `$1`, `$2`, … */
  readonly words?: readonly string[];
  readonly asRoot?: boolean;
  readonly deadlineMs?: number;
  /** By an ssh connection made for this alone. */
  readonly fresh?: boolean;
};

export type Side = {
  /** "root@nuc", "this machine". */
  readonly name: string;
  readonly isLocal: boolean;
  /** What sudo is given; null: it asks nothing (`root.ts`). */
  readonly sudo: { password: string | null };
  run(script: Script, signal: AbortSignal): Promise<ChildResult>;
  openDaemon(options: { readonly signal: AbortSignal; readonly asRoot: boolean }): Promise<DaemonConnection>;
};

const SCRIPT_MAX_MS = 2 * 60_000;

/**
 * Becomes the daemon's other end. Where no daemon listens it is the local store or nothing (newer Nix would make a store in
 * the user's home). The `cat`s are for Nix 2.8, which relays to its daemon only between pipes, and sshd gives sockets; the
 * shell lets go of the streams, so that the end of one of them is seen on the other side.
 */
const DAEMON_SCRIPT = `command -v nix-daemon >/dev/null 2>&1 || { echo "there is no nix-daemon" >&2; exit 127; }
if [ -z "\${NIX_REMOTE:-}" ] && ! [ -S "\${NIX_DAEMON_SOCKET_PATH:-\${NIX_STATE_DIR:-/nix/var/nix}/daemon-socket/socket}" ]; then
  NIX_REMOTE=local; export NIX_REMOTE
fi
if [ "$(id -u)" = 0 ]; then exec nix-daemon --stdio; fi
exec 3<&0
cat <&3 | nix-daemon --stdio | cat &
exec 3<&- >&-
wait $!
`;

export function createFarSide(session: SshSession): Side {
  const sudo: Side["sudo"] = { password: null };
  return {
    name: session.name,
    isLocal: false,
    sudo,
    run: async (script, signal) =>
      await session.run(wordsOf(script, sudo), {
        ...{ deadlineMs: script.deadlineMs ?? SCRIPT_MAX_MS, signal, fresh: script.fresh ?? false },
        ...inputOf(script, sudo),
        ...(script.onLine === undefined ? {} : { onLine: script.onLine }),
      }),
    openDaemon: async ({ signal, asRoot }) => {
      const transport = await session.open(wordsOf({ text: DAEMON_SCRIPT, asRoot }, sudo), signal);
      const lostHint = `Try by hand: ssh ${session.name.replace(/:\d+$/, "")} nix-daemon --stdio`;
      try {
        return await connectThrough(transport, { signal, lostHint, password: asRoot ? sudo.password : null });
      } catch (error) {
        throw explainNoDaemon(session.name, error);
      }
    },
  };
}

export function createLocalSide(options: { readonly environment: NodeJS.ProcessEnv; readonly clock: Clock }): Side {
  const { environment, clock } = options;
  const sudo: Side["sudo"] = { password: null };
  return {
    name: "this machine",
    isLocal: true,
    sudo,
    run: async (script, signal) =>
      await runChild({
        ...{ command: wordsOf(script, sudo), environment, clock, signal },
        deadlineMs: script.deadlineMs ?? SCRIPT_MAX_MS,
        ...inputOf(script, sudo),
        ...(script.onLine === undefined ? {} : { onLine: script.onLine }),
      }),
    openDaemon: async ({ signal, asRoot }) => {
      if (!asRoot) return await connectDaemon({ signal, environment });
      const command = wordsOf({ text: DAEMON_SCRIPT, asRoot }, sudo);
      const transport = await openProgramTransport({ peer: "the daemon that sudo started", command, environment });
      const lostHint = "Try by hand: sudo nix-daemon --stdio";
      return await connectThrough(transport, { signal, lostHint, password: sudo.password });
    },
  };
}

async function connectThrough(
  transport: Transport,
  { password, ...options }: Parameters<typeof connectDaemonOver>[1] & { readonly password: string | null },
): Promise<DaemonConnection> {
  if (password !== null) await transport.write(Buffer.from(`${password}\n`));
  return await connectDaemonOver(transport, options);
}

function wordsOf(
  { text, words = [], asRoot = false }: Pick<Script, "text" | "words" | "asRoot">,
  { password }: Side["sudo"],
): readonly string[] {
  const shell = ["sh", "-c", `${SCRIPT_START}${text}`, "nixdeploy", ...words];
  if (!asRoot) return shell;
  // With -k it asks in any case, so that the line it reads is always the password and never our first bytes.
  return password === null ? ["sudo", "-n", "--", ...shell] : ["sudo", "-k", "-S", "-p", "", "--", ...shell];
}

function inputOf({ input, asRoot = false }: Script, { password }: Side["sudo"]): Pick<RunChildOptions, "input"> {
  if (!asRoot || password === null) return input === undefined ? {} : { input };
  return { input: withFirstLine(password, input) };
}

async function* withFirstLine(line: string, rest: RunChildOptions["input"]): AsyncIterable<Uint8Array> {
  yield Buffer.from(`${line}\n`);
  if (typeof rest === "string") yield Buffer.from(rest);
  else if (rest !== undefined) yield* rest;
}

function explainNoDaemon(name: string, error: unknown): unknown {
  if (!(error instanceof NixdeployError) || error.kind !== "host") return error;
  return new NixdeployError("host", `cannot use Nix on ${name}: ${error.message.replace(/^cannot [^:]*: /, "")}`, {
    details: numbered([
      `Is Nix 2.8 or newer there, and does its daemon run? ssh ${name} nix-daemon --version`,
      "May this user use it (`allowed-users` in its nix.conf)?",
      "Do the shell's startup files print something? They must not for a login by ssh",
    ]),
    cause: error,
  });
}
