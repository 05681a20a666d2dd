/**
 * A NixOS system on a host that has no nixdeploy: its own `switch-to-configuration`, in the order that strands nobody.
 *
 *   switch   `test`, apart from the ssh session → a new ssh connection confirms → profile → `boot`
 *   test     the same without profile and `boot`
 *   boot     profile → `boot`; a failure puts both back
 *   dry-activate   nothing but that
 *   reboot   as boot, then a reboot, and the machine must come back with it; no way back by itself, so only when asked for
 *
 * Until the confirmation comes, a small script over there holds the way back: it needs neither us nor the network, but a
 * reboot or its own death ends it. The engine (`--send-binary`) has none of these holes.
 */
import { NixdeployError } from "../../errors.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Clock } from "../../runtime.ts";
import { lastLine } from "../ssh/ssh-failure.ts";
import type { Side } from "./side.ts";
import { type JudgedSwitch, judgeCommit, judgeSwitch, type SystemEnd, type SystemMethod } from "./system-end.ts";

export type PlainSwitchOptions = {
  readonly side: Side;
  readonly storePath: StorePath;
  readonly method: SystemMethod;
  /** Absolute. */
  readonly profilePath: string;
  readonly asRoot: boolean;
  readonly onUnitFailure: "rollback" | "keep";
  readonly confirmWindowMs: number;
  readonly activationTimeoutMs: number;
  readonly onLine: (text: string) => void;
  readonly clock: Clock;
  readonly signal: AbortSignal;
};

const BY = "switch-to-configuration";
const VISIT_PAUSE_MS = 1_000;
const REBOOT_MAX_MS = 15 * 60_000;
/** For the foreground script beyond what the steps themselves may take. */
const GRACE_MS = 60_000;

/** $1 its folder, $2 new, $3 old, $4 window in seconds, $5 policy, $6 time limit in seconds. Outlives the ssh session. */
const KEEPER = `run=$1 new=$2 old=$3 window=$4 policy=$5 limit=$6
code=0
timeout -k 10 "$limit" "$new/bin/switch-to-configuration" test || code=$?
wanted=yes
case $code in 0) ;; 4) [ "$policy" = keep ] || wanted=no ;; *) wanted=no ;; esac
[ $wanted = yes ] || mv "$run/armed" "$run/unwanted"
echo "$code" > "$run/code.new"; mv "$run/code.new" "$run/code"
while [ "$window" -gt 0 ] && [ -d "$run/armed" ]; do sleep 1; window=$((window - 1)); done
[ -d "$run/confirmed" ] && exit
mv "$run/armed" "$run/late" 2>/dev/null || [ $wanted = no ] || exit
back=none
if [ "$code" != 11 ]; then
  back=0
  timeout -k 10 "$limit" "$old/bin/switch-to-configuration" test || back=$?
fi
echo "$back" > "$run/back.new"; mv "$run/back.new" "$run/back"
`;

/** $1 to $5 as KEEPER's from $2 on, $6 KEEPER itself. Says where the folder is, and how the test ended. */
const BEGIN_SCRIPT = `set -eu
old=$(readlink -f "$2")
run=$(mktemp -d /run/nixdeploy-copy.XXXXXX)
mkdir "$run/armed"
: > "$run/log"
printf 'nixdeploy-old=%s\\nnixdeploy-run=%s\\n' "$old" "$run"
setsid sh -c "$6" nixdeploy "$run" "$1" "$old" "$3" "$4" "$5" </dev/null >> "$run/log" 2>&1 &
tail -n +1 -f "$run/log" >&2 &
tail=$!
while ! [ -e "$run/code" ]; do sleep 0.2; done
code=$(cat "$run/code")
if [ -d "$run/unwanted" ]; then while ! [ -e "$run/back" ]; do sleep 0.2; done; fi
sleep 0.3
kill "$tail" 2>/dev/null || :
printf 'nixdeploy-code=%s\\n' "$code"
`;

/** $1 the folder. By a connection that is made for it. */
const VISIT_SCRIPT = `run=$1
[ -e "$run/code" ] || { echo nixdeploy-visit=early; exit; }
mv "$run/armed" "$run/confirmed" 2>/dev/null || :
if [ -d "$run/confirmed" ]; then echo nixdeploy-visit=confirmed
elif [ -e "$run/back" ]; then echo nixdeploy-visit=back; echo "nixdeploy-back=$(cat "$run/back")"
else echo nixdeploy-visit=late; fi
echo "nixdeploy-code=$(cat "$run/code")"
`;

/** $1 the folder. */
const FORGET_SCRIPT = `case $1 in /run/nixdeploy-copy.*) rm -rf -- "$1" ;; esac`;

/** $1 profile, $2 new, $3 what ran before the new one was made live; "" where it is not. Says how the way back ended, too. */
const COMMIT_SCRIPT = `before=
if [ -e "$1" ]; then before=$(readlink -f "$1"); fi
code=0
mkdir -p "$(dirname "$1")"
nix-env --profile "$1" --set "$2" >&2 && "$2/bin/switch-to-configuration" boot >&2 || code=$?
if [ "$code" != 0 ]; then
  back=0
  if [ -n "$before" ]; then
    nix-env --profile "$1" --set "$before" >&2 && "$before/bin/switch-to-configuration" boot >&2 || back=$?
  else
    back=1
  fi
  if [ -n "$3" ]; then "$3/bin/switch-to-configuration" test >&2 || back=$?; fi
  echo "nixdeploy-back=$back"
fi
echo "nixdeploy-code=$code"
`;

/** @throws NixdeployError when nothing was touched · the signal's reason */
export async function switchPlainly(options: PlainSwitchOptions): Promise<SystemEnd> {
  const { method } = options;
  await checkSystem(options);
  switch (method) {
    case "dry-activate":
      return await dryActivate(options);
    case "boot":
      return await commit(options, null);
    case "reboot": {
      const end = await commit(options, null);
      return end.outcome === "succeeded" ? await reboot(options) : end;
    }
    case "test":
    case "switch": {
      const { end, isLive, old } = await testAndConfirm(options);
      if (method === "test" || !isLive) return end;
      const committed = await commit(options, old);
      return committed.outcome === "succeeded" ? end : committed;
    }
    default:
      return method satisfies never;
  }
}

const CHECK_SCRIPT = `[ -x "$1/bin/switch-to-configuration" ] && [ -e "$1/nixos-version" ] || exit 64
[ -e /run/current-system/bin/switch-to-configuration ] || exit 65
`;

async function checkSystem({ side, storePath, method, signal }: PlainSwitchOptions): Promise<void> {
  const { code } = await side.run({ text: CHECK_SCRIPT, words: [storePath] }, signal);
  if (code === 64) {
    throw new NixdeployError("refused", `cannot activate ${storePath} on ${side.name}: it is no NixOS system`, {
      hint: "Anything else takes nixdeploy over there (--send-binary), or only a profile (--profile NAME).",
    });
  }
  if (code === 65 && method !== "boot" && method !== "reboot") {
    const message = `cannot activate ${storePath} on ${side.name}: it runs no NixOS system that it could go back to`;
    throw new NixdeployError("refused", message);
  }
}

async function dryActivate({ side, storePath, asRoot, activationTimeoutMs, onLine, signal }: PlainSwitchOptions) {
  const result = await side.run(
    {
      ...{ text: `exec "$1/bin/switch-to-configuration" dry-activate`, words: [storePath], asRoot },
      ...{ deadlineMs: activationTimeoutMs, onLine: (_stream: unknown, line: string) => onLine(line) },
    },
    signal,
  );
  const isGood = result.code === 0;
  const reason = isGood ? "nothing was touched" : `${BY} dry-activate ended with code ${result.code ?? "none"}`;
  return { by: BY, outcome: isGood ? "succeeded" : "failed", reason } as const;
}

/** @returns besides: whether the new one is live now, and what ran before it */
async function testAndConfirm(options: PlainSwitchOptions): Promise<JudgedSwitch & { readonly old: string | null }> {
  const { side, storePath, asRoot, activationTimeoutMs, confirmWindowMs, onUnitFailure, signal } = options;
  const windowSeconds = Math.ceil(confirmWindowMs / 1_000);
  let folder: string | null = null;
  let old: string | null = null;
  const words = [storePath, "/run/current-system", String(windowSeconds), onUnitFailure];
  const limit = String(Math.ceil(activationTimeoutMs / 1_000));
  try {
    const result = await side.run(
      {
        ...{
          text: BEGIN_SCRIPT,
          words: [...words, limit, KEEPER],
          asRoot,
          deadlineMs: 2 * activationTimeoutMs + GRACE_MS,
        },
        onLine: (stream, line) => {
          const [, found] = /^nixdeploy-run=(\/run\/nixdeploy-copy\.\w+)$/.exec(line) ?? [];
          old ??= /^nixdeploy-old=(\/nix\/store\/\S+)$/.exec(line)?.[1] ?? null;
          if (found !== undefined) folder = found;
          else if (stream === "err") options.onLine(line);
        },
      },
      signal,
    );
    if (folder === null) {
      throw new NixdeployError("host", `cannot activate ${storePath} on ${side.name}: ${lastLine(result.stderr)}`);
    }
  } catch (error) {
    // The session may have died of the very change: a new connection tells.
    if (folder === null || signal.aborted) throw error;
  }
  const visit = await visitUntilTold(folder, options);
  return { ...judgeSwitch({ ...visit, onUnitFailure, windowSeconds }), old };
}

async function visitUntilTold(folder: string, options: PlainSwitchOptions) {
  const { side, asRoot, clock, signal, confirmWindowMs, activationTimeoutMs } = options;
  const untilMs = clock.monotonicMs() + confirmWindowMs + activationTimeoutMs + GRACE_MS;
  let code: number | null = null;
  while (clock.monotonicMs() < untilMs) {
    const answer = await side
      .run({ text: VISIT_SCRIPT, words: [folder], asRoot, fresh: true, deadlineMs: GRACE_MS }, signal)
      .catch((error: unknown) => {
        if (signal.aborted) throw error;
        return null;
      });
    const [, kind] = /^nixdeploy-visit=(\w+)$/m.exec(answer?.stdout ?? "") ?? [];
    code = numberOf(answer?.stdout, "code") ?? code;
    if (kind === "confirmed" || kind === "back") {
      await side.run({ text: FORGET_SCRIPT, words: [folder], asRoot }, signal);
      return { code, back: numberOf(answer?.stdout, "back"), isConfirmed: kind === "confirmed" };
    }
    await clock.sleep(VISIT_PAUSE_MS, signal);
  }
  return { code, back: null, isConfirmed: false };
}

function numberOf(text: string | undefined, key: "code" | "back"): number | null {
  const [, digits] = new RegExp(`^nixdeploy-${key}=(\\d+)$`, "m").exec(text ?? "") ?? [];
  return digits === undefined ? null : Number(digits);
}

/** Profile and boot loader. @param old what ran before, where the new one is live already */
async function commit(options: PlainSwitchOptions, old: string | null): Promise<SystemEnd> {
  const { side, profilePath, storePath, asRoot, activationTimeoutMs, onLine, signal } = options;
  const words = [profilePath, storePath, old ?? ""];
  const result = await side.run(
    {
      ...{ text: COMMIT_SCRIPT, words, asRoot, deadlineMs: 3 * activationTimeoutMs },
      onLine: (stream, line) => {
        if (stream === "err") onLine(line);
      },
    },
    signal,
  );
  const { stdout } = result;
  return judgeCommit({ code: numberOf(stdout, "code"), back: numberOf(stdout, "back"), isLive: old !== null });
}

const BOOT_ID_SCRIPT = `echo "nixdeploy-boot=$(cat /proc/sys/kernel/random/boot_id)"; readlink -f /run/current-system | sed 's/^/nixdeploy-system=/'`;
const REBOOT_SCRIPT = `systemctl reboot || reboot`;

async function reboot(options: PlainSwitchOptions): Promise<SystemEnd> {
  const { side, asRoot, clock, signal, storePath } = options;
  const look = async (fresh: boolean) => {
    const { stdout } = await side.run({ text: BOOT_ID_SCRIPT, fresh, deadlineMs: GRACE_MS }, signal);
    const [, boot = ""] = /^nixdeploy-boot=(\S+)$/m.exec(stdout) ?? [];
    const [, system = ""] = /^nixdeploy-system=(\S+)$/m.exec(stdout) ?? [];
    return { boot, system };
  };
  const before = await look(false);
  const ignore = (error: unknown) => {
    // The connection dies of what was asked for.
    if (signal.aborted) throw error;
    return null;
  };
  await side.run({ text: REBOOT_SCRIPT, asRoot, deadlineMs: GRACE_MS }, signal).catch(ignore);
  const untilMs = clock.monotonicMs() + REBOOT_MAX_MS;
  while (clock.monotonicMs() < untilMs) {
    const now = await look(true).catch(ignore);
    if (now !== null && now.boot !== "" && now.boot !== before.boot) {
      if (now.system === storePath) return { by: BY, outcome: "succeeded", reason: "it has booted" };
      return { by: BY, outcome: "degraded", reason: `it came back with ${now.system} instead` };
    }
    await clock.sleep(VISIT_PAUSE_MS, signal);
  }
  return { by: BY, outcome: "degraded", reason: "it was told to reboot, and did not come back within 15 minutes" };
}
