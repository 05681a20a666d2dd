/**
 * What is asked of a machine before anything is done on it: who we are there, which Nix, who it trusts, whether nixdeploy
 * is there. One script, whose lines are marked, because a shell's startup files may print their own.
 */
import { z } from "zod";
import { NixdeployError } from "../../errors.ts";
import { numbered } from "../ssh/ssh-failure.ts";
import type { Side } from "./side.ts";

const PROBE_SCRIPT = `say() { printf 'nixdeploy-probe %s=%s\\n' "$1" "$2"; }
say uid "$(id -u)"
say user "$(id -un 2>/dev/null)"
say hostName "$(uname -n)"
say home "\${HOME:-}"
say stateHome "\${XDG_STATE_HOME:-}"
say kernel "$(uname -s)"
say machine "$(uname -m)"
say hasDaemon "$(command -v nix-daemon >/dev/null 2>&1 && echo yes)"
say sudo "$(command -v sudo >/dev/null 2>&1 && { sudo -n true >/dev/null 2>&1 && echo free || echo asks; } || echo none)"
say isNixos "$([ -e /etc/NIXOS ] && echo yes)"
say nixdeploy "$(nixdeploy --version 2>/dev/null | head -n 1)"
conf="\${NIX_CONF_DIR:-/etc/nix}/nix.conf"
# Where nix.conf belongs to an installer, this one is its user's.
if grep -qs '^!include nix\\.custom\\.conf' "$conf"; then conf="$(dirname "$conf")/nix.custom.conf"; fi
say conf "$conf"
say confIsManaged "$([ -L "$conf" ] && echo yes)"
say confIsWritable "$([ -w "$conf" ] && echo yes)"
say confExists "$([ -e "$conf" ] && echo yes)"
show() { nix --extra-experimental-features nix-command "$@" 2>/dev/null; }
keys="$(show config show trusted-public-keys || show show-config | sed -n 's/^trusted-public-keys = //p')"
say trustedKeys "$keys"
say freeKilobytes "$(df -Pk /nix/store 2>/dev/null | awk 'NR == 2 { print $4 }')"
say end yes
`;

const yes = z
  .string()
  .optional()
  .transform((text) => text === "yes");
const probeSchema = z.object({
  // Nothing is no number, and must not become root's.
  uid: z
    .string()
    .regex(/^\d{1,10}$/)
    .transform(Number),
  user: z.string(),
  hostName: z.string(),
  home: z.string(),
  stateHome: z.string(),
  /** As `uname` says: "Linux", "Darwin"; "x86_64", "aarch64", "arm64". */
  kernel: z.string(),
  machine: z.string(),
  hasDaemon: yes,
  /** "asks": for a password, if this user may use it at all. */
  sudo: z.enum(["none", "free", "asks"]),
  isNixos: yes,
  /** "nixdeploy 0.1.0"; "" when it is not there. */
  nixdeploy: z.string(),
  /** Where its nix.conf is. */
  conf: z.string(),
  /** A link, as NixOS and nix-darwin make it: nobody writes to it. */
  confIsManaged: yes,
  confIsWritable: yes,
  confExists: yes,
  trustedKeys: z.string(),
  freeKilobytes: z.string().transform((text) => (/^\d+$/.test(text) ? Number(text) : null)),
  end: z.literal("yes"),
});
export type Probe = z.output<typeof probeSchema>;

const TEXT_MAX = 64 * 1024;

/** @throws NixdeployError("host") when it has no Nix, or is no machine that we know · as `Side.run` */
export async function probeSide(side: Side, signal: AbortSignal): Promise<Probe> {
  const result = await side.run({ text: PROBE_SCRIPT }, signal);
  const probe = parseProbe(result.stdout);
  if (probe === null) {
    throw new NixdeployError("host", `cannot look at ${side.name}: its shell does not do what it is told`, {
      details: numbered([
        `Try by hand: ssh ${side.name} sh -c true`,
        "A forced command, a restricted shell or a login that only moves files will not do",
      ]),
    });
  }
  if (!probe.hasDaemon) {
    throw new NixdeployError("host", `cannot use Nix on ${side.name}: there is no nix-daemon`, {
      details: numbered([
        "Install Nix 2.8 or newer there: https://nixos.org/download",
        `Is it found by a login without a terminal? ssh ${side.name} nix-daemon --version`,
        "Installed for one user alone? Its folder is ~/.nix-profile/bin of that user: log in as that one",
      ]),
    });
  }
  return probe;
}

/** Null for what is not the output of our script. Pure. */
export function parseProbe(output: string): Probe | null {
  const values: Record<string, string> = {};
  for (const line of output.slice(0, TEXT_MAX).split("\n")) {
    const [, key, value] = /^nixdeploy-probe (\w+)=(.*)$/.exec(line) ?? [];
    if (key !== undefined && value !== undefined && !/\p{Cc}/u.test(value)) values[key] = value;
  }
  const parsed = probeSchema.safeParse(values);
  return parsed.success ? parsed.data : null;
}
