/**
 * Where `copy` goes: `ssh://[USER@]HOST[:PORT]`, or `[USER@]HOST` as the ssh program takes it. HOST may be a name from
 * the user's ssh configuration. Pure.
 *
 * Strict about characters, because the words end up on a command line: none may look like an option.
 */

export type SshAddress = {
  /** Null: the ssh configuration's, else the local user's name. */
  readonly user: string | null;
  /** Without brackets. */
  readonly host: string;
  /** Null: the ssh configuration's, else 22. */
  readonly port: number | null;
};

const ADDRESS = /^(?:ssh(?:-ng)?:\/\/)?(?:([^@]*)@)?(\[[^\]]*\]|[^@:/[\]]*)(?::(\d{1,5}))?\/?$/;
const USER = /^[A-Za-z0-9_][A-Za-z0-9_.+\\-]{0,127}$/;
const HOST = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}$/;
const IPV6 = /^[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,32})?$/;
const PORT_MAX = 65_535;

/** Whether a word means a host and not a path. */
export function isSshUrl(word: string): boolean {
  return /^ssh(?:-ng)?:\/\//.test(word);
}

/** @throws Error that says what is wrong, without the beginning of the sentence */
export function parseSshAddress(text: string): SshAddress {
  const [, user, host = "", portText] = ADDRESS.exec(text) ?? [];
  if (user?.includes(":") === true) throw new Error("a password does not belong into an address");
  if (user !== undefined && !USER.test(user)) throw new Error("expected ssh://USER@HOST, with a plain user name");
  const bare = host.startsWith("[") ? host.slice(1, -1) : host;
  if (!(host.startsWith("[") ? IPV6 : HOST).test(bare)) throw new Error("expected ssh://USER@HOST[:PORT] or USER@HOST");
  const port = portText === undefined ? null : Number(portText);
  if (port !== null && (port < 1 || port > PORT_MAX)) throw new Error(`a port is a number from 1 to ${PORT_MAX}`);
  return { user: user ?? null, host: bare, port };
}

/** As people write it: `root@nuc`, `root@[::1]:2222`. */
export function formatSshAddress({ user, host, port }: SshAddress): string {
  const shown = host.includes(":") ? `[${host}]` : host;
  return `${user === null ? "" : `${user}@`}${shown}${port === null ? "" : `:${port}`}`;
}

/** For the ssh program: options first, the host last. */
export function sshDestination({ user, host, port }: SshAddress): readonly string[] {
  return [...(port === null ? [] : ["-p", String(port)]), ...(user === null ? [] : ["-l", user]), "--", host];
}
