/**
 * Brings this very program to a host that has none: where it lies in the Nix store, as a store path with all it needs;
 * else as a file, into a folder that only its owner may write to, under a name that says which contents it has. What is
 * there already is not sent again; what nobody has used for a month is removed.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { NixdeployError } from "../../errors.ts";
import { type StorePath, storePathBaseName } from "../../nix/store-path.ts";
import { lastLine, numbered } from "../ssh/ssh-failure.ts";
import type { Probe } from "./probe.ts";
import type { Side } from "./side.ts";

const SEND_MAX_MS = 30 * 60_000;

/** `uname -s` and `uname -m` of what this program is built for. */
const KERNELS: Readonly<Record<string, string>> = { linux: "Linux", darwin: "Darwin" };
const MACHINES: Readonly<Record<string, readonly string[]>> = { x64: ["x86_64"], arm64: ["aarch64", "arm64"] };

/** The file, once it is there whole: $1 its name. Root's folder is root's, everybody else's is his own. */
const PLACE = `if [ "$(id -u)" = 0 ]; then dir=/var/lib/nixdeploy/bin; else dir="\${XDG_STATE_HOME:-$HOME/.local/state}/nixdeploy/bin"; fi
umask 022
mkdir -p "$dir"
if [ -L "$dir" ] || [ "$(stat -c %u "$dir" 2>/dev/null || stat -f %u "$dir")" != "$(id -u)" ]; then echo "$dir belongs to somebody else" >&2; exit 1; fi
chmod 755 "$dir"
file="$dir/$1"
`;
const FIND_SCRIPT = `${PLACE}[ -x "$file" ] && touch -c "$file" && printf 'nixdeploy-file=%s\\n' "$file"; exit 0`;
const TIDY = `find "$dir" -maxdepth 1 -name 'nixdeploy-*' ! -name "$1" -mtime +30 -exec rm -f -- {} + || :
`;
const SEND_SCRIPT = `set -eu
${PLACE}${TIDY}new="$file.new.$$"
trap 'rm -f "$new"' EXIT
cat > "$new"
sum=$( { sha256sum "$new" 2>/dev/null || shasum -a 256 "$new"; } | cut -d ' ' -f 1)
if [ "$sum" != "$2" ]; then echo "it did not arrive whole" >&2; exit 1; fi
chmod 755 "$new"
sync "$new" 2>/dev/null || :
mv "$new" "$file"
printf 'nixdeploy-file=%s\\n' "$file"
`;

/** $1 the name of the link, $2 the store path. */
const ROOT_SCRIPT = `set -eu
${PLACE}${TIDY}nix-store --realise "$2" --add-root "$file" --indirect >/dev/null
touch -h "$file" 2>/dev/null || :
`;

/** Whether this program could run there at all. Pure. */
export function fitsPlatform(
  { kernel, machine }: Pick<Probe, "kernel" | "machine">,
  own: { readonly platform: string; readonly arch: string },
): boolean {
  return KERNELS[own.platform] === kernel && (MACHINES[own.arch] ?? []).includes(machine);
}

/** Keeps a program that came as a store path: what is begun with it may need it after a reboot. @throws NixdeployError */
export async function keepSentPath(options: {
  readonly side: Side;
  readonly storePath: StorePath;
  readonly asRoot: boolean;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { side, storePath, asRoot, signal } = options;
  const words = [`nixdeploy-${storePathBaseName(storePath)}`, storePath];
  const result = await side.run({ text: ROOT_SCRIPT, words, asRoot }, signal);
  if (result.code === 0) return;
  const why = lastLine(result.stderr) || `the script ended with ${result.code ?? "a signal"}`;
  throw new NixdeployError("host", `cannot keep ${storePath} on ${side.name}: ${why}`);
}

/** @returns the path over there @throws NixdeployError */
export async function sendBinaryFile(options: {
  readonly side: Side;
  readonly executable: string;
  readonly version: string;
  readonly asRoot: boolean;
  readonly onSending: () => void;
  readonly signal: AbortSignal;
}): Promise<string> {
  const { side, executable, version, asRoot, signal } = options;
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(executable)) hash.update(chunk);
  const digest = hash.digest("hex");
  const name = `nixdeploy-${version}-${digest.slice(0, 16)}`;
  const found = fileIn((await side.run({ text: FIND_SCRIPT, words: [name], asRoot }, signal)).stdout);
  if (found !== null) return found;
  options.onSending();
  const result = await side.run(
    {
      ...{ text: SEND_SCRIPT, words: [name, digest], asRoot, deadlineMs: SEND_MAX_MS },
      input: createReadStream(executable, { highWaterMark: 256 * 1024 }),
    },
    signal,
  );
  const sent = fileIn(result.stdout);
  if (result.code === 0 && sent !== null) return sent;
  const why = lastLine(result.stderr) || `the script ended with ${result.code ?? "a signal"}`;
  throw new NixdeployError("host", `cannot send nixdeploy to ${side.name}: ${why}`, {
    details: numbered([
      "Is there room for 130 MB in /var/lib/nixdeploy (root) or ~/.local/state (others)?",
      "Install nixdeploy there by other means, or leave --send-binary out",
    ]),
  });
}

function fileIn(stdout: string): string | null {
  return /^nixdeploy-file=(\/\S+)$/m.exec(stdout)?.[1] ?? null;
}
