/**
 * Why the ssh program did not get through, from what it said, with things to try in the order in which they help most
 * often. Pure.
 */
import { stripVTControlCharacters } from "node:util";
import { type ErrorKind, NixdeployError } from "../../errors.ts";

/** The exit code of ssh for its own failures; anything else is the remote program's. */
export const SSH_FAILED = 255;

type Case = {
  readonly sign: RegExp;
  readonly kind: ErrorKind;
  readonly why: string;
  readonly tries: readonly string[];
};

/** In this order: the first that fits counts. `HOST` stands for the host with its user, `BARE` for it alone. */
const CASES: readonly Case[] = [
  {
    sign: /REMOTE HOST IDENTIFICATION HAS CHANGED/,
    kind: "refused",
    why: "its host key is another one than before",
    tries: [
      "Find out why: a reinstalled machine has a new key, and so has somebody in between.",
      "If it is right, forget the old key: ssh-keygen -R BARE",
      "Then connect once by hand and compare the fingerprint: ssh HOST",
    ],
  },
  {
    sign: /Host key verification failed|host key is known for/,
    kind: "refused",
    why: "its host key is not known here",
    tries: [
      "Connect once by hand and compare the fingerprint: ssh HOST",
      "In CI, put the key into known_hosts before: ssh-keyscan BARE, compared with the machine's own /etc/ssh/*.pub",
    ],
  },
  {
    sign: /Permission denied|Too many authentication failures|No supported authentication methods/,
    kind: "denied",
    why: "it refuses the login",
    tries: [
      "Does the same user get in by hand? ssh HOST",
      "Is the key loaded (ssh-add -l), or named by IdentityFile in ~/.ssh/config?",
      "Is the public key in ~/.ssh/authorized_keys of that user on the host?",
      "Logins of root may be off there (PermitRootLogin): use another user, who may use sudo",
    ],
  },
  {
    sign: /Could not resolve hostname|Name or service not known/,
    kind: "unreachable",
    why: "its name is unknown (DNS)",
    tries: ["Correct the name, or add it as a Host to ~/.ssh/config", "Try its address instead of its name"],
  },
  {
    sign: /Connection refused/,
    kind: "unreachable",
    why: "the connection was refused",
    tries: ["Does sshd run there?", "Does it listen on another port? Then ssh://HOST:PORT"],
  },
  {
    sign: /timed out|No route to host|unreachable|Connection (?:closed|reset)|Broken pipe|kex_exchange|not responding/i,
    kind: "unreachable",
    why: "the connection broke or was never made",
    tries: [
      "Is the machine on and in the network? ping BARE",
      "Does a firewall or fail2ban shut us out?",
      "Try by hand: ssh -v HOST",
    ],
  },
  {
    sign: /Bad configuration option|Bad owner or permissions|no argument after keyword|Can't open user config file/,
    kind: "host",
    why: "the ssh configuration of this machine is wrong",
    tries: ["Try by hand: ssh -v HOST", "Look at NIX_SSHOPTS, if it is set"],
  },
];

/** @param stderr all that ssh printed */
export function explainSshFailure(name: string, stderr: string): NixdeployError {
  const text = stripVTControlCharacters(stderr);
  const found = CASES.find(({ sign }) => sign.test(text));
  const said = lastLine(text);
  const why = found?.why ?? (said === "" ? "it ended without a word" : said);
  const tries = found?.tries ?? ["Try by hand: ssh -v HOST"];
  const host = name.replace(/:\d+$/, "");
  return new NixdeployError(found?.kind ?? "unreachable", `cannot reach ${name} by ssh: ${why}`, {
    details: numbered([
      ...tries.map((line) => line.replaceAll("HOST", host).replaceAll("BARE", host.replace(/^.*@/, ""))),
    ]),
    ...(found !== undefined && said !== "" ? { hint: `ssh said: ${said}` } : {}),
  });
}

/** Things to try, for the details of an error: "1. …", "2. …". */
export function numbered(tries: readonly string[]): readonly string[] {
  return tries.map((line, index) => `${index + 1}. ${line}`);
}

/** Without control characters and without ssh's trailing dot. */
export function lastLine(text: string): string {
  const lines = stripVTControlCharacters(text)
    .split(/[\r\n]+/)
    .map((line) => line.replace(/\p{Cc}/gu, " ").trim())
    .filter((line) => line !== "" && !/^@+$/.test(line));
  return (lines.at(-1) ?? "").slice(0, 300).replace(/\.$/, "");
}
