/**
 * A NixOS system on a host that has no nixdeploy: its own `switch-to-configuration`, in the order that strands nobody.
 *
 *   switch   `test` → a new ssh connection confirms → profile → `boot`
 *   test     the same without profile and `boot`
 *   boot     profile → `boot`; a failure puts both back
 *   dry-activate   nothing but that
 *   reboot   as boot, then a reboot (`plain-reboot.ts`)
 *
 * All of it is done over there by a script that needs neither us nor the network (`plain-scripts.ts`). A reboot before the
 * confirmation brings the old system, because the boot default is moved last. What the engine (`--send-binary`) does besides:
 * health checks, units that failed before, boot trials, and power cuts in the midst of moving the default.
 */
import { NixdeployError } from "../../errors.ts";
import { lastLine } from "../ssh/ssh-failure.ts";
import type { FarActivation } from "./far-activation.ts";
import { followFar } from "./follow-far.ts";
import { rebootInto } from "./plain-reboot.ts";
import { BEGIN_SCRIPT, FORGET_SCRIPT, KEEPER, VISIT_SCRIPT } from "./plain-scripts.ts";
import { judgePlain, type PlainFacts, type SystemEnd } from "./system-end.ts";

export type PlainSwitchOptions = FarActivation & { readonly onUnitFailure: "rollback" | "keep" };

const BY = "switch-to-configuration";
/** The new system's `test` and `boot`, and the same of the old one. */
const STEPS_MAX = 4;
/** For the scripts, beyond what the steps themselves may take. */
const GRACE_MS = 60_000;

/** @throws NixdeployError when nothing was touched, or its end is not heard of · the signal's reason */
export async function switchPlainly(options: PlainSwitchOptions): Promise<SystemEnd> {
  const { method } = options;
  await checkSystem(options);
  switch (method) {
    case "dry-activate":
      return await dryActivate(options);
    case "reboot": {
      const end = await keep(options, "boot");
      return end.outcome === "succeeded" ? await rebootInto(options) : end;
    }
    case "boot":
    case "test":
    case "switch":
      return await keep(options, method);
    default:
      return method satisfies never;
  }
}

const CHECK_SCRIPT = `[ -x "$1/bin/switch-to-configuration" ] && [ -e "$1/nixos-version" ] || exit 64
[ -e /run/current-system/bin/switch-to-configuration ] || exit 65
`;

async function checkSystem({ side, storePath, method, signal }: PlainSwitchOptions): Promise<void> {
  const { code, stderr } = await side.run({ text: CHECK_SCRIPT, words: [storePath] }, signal);
  if (code === 0 || (code === 65 && (method === "boot" || method === "reboot"))) return;
  if (code === 64) {
    throw new NixdeployError("refused", `cannot activate ${storePath} on ${side.name}: it is no NixOS system`, {
      hint: "Anything else takes nixdeploy over there (--send-binary), or only a profile (--profile NAME).",
    });
  }
  const why =
    code === 65 ? "it runs no NixOS system that it could go back to" : lastLine(stderr) || "it cannot be looked at";
  throw new NixdeployError("refused", `cannot activate ${storePath} on ${side.name}: ${why}`);
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

async function keep(options: PlainSwitchOptions, method: "switch" | "test" | "boot"): Promise<SystemEnd> {
  const { side, storePath, profilePath, asRoot, onUnitFailure, confirmWindowMs, activationTimeoutMs } = options;
  const { clock, note, signal } = options;
  const windowSeconds = Math.ceil(confirmWindowMs / 1_000);
  const limits = [String(windowSeconds), String(Math.ceil(activationTimeoutMs / 1_000))];
  let folder = "";
  const look = async (stopped: AbortSignal) => {
    const script = { text: VISIT_SCRIPT, words: [folder], asRoot, fresh: true, deadlineMs: GRACE_MS };
    return (await side.run(script, stopped)).stdout;
  };
  const facts = await followFar<PlainFacts>({
    ...{ side, clock, note, signal, what: `the activation of ${storePath}` },
    script: { text: BEGIN_SCRIPT, words: [method, storePath, profilePath, ...limits, onUnitFailure, KEEPER], asRoot },
    maxMs: STEPS_MAX * activationTimeoutMs + confirmWindowMs + GRACE_MS,
    hear: (stream, line) => {
      if (stream === "err") options.onLine(line);
      const [, found] = /^nixdeploy-run=(\/run\/nixdeploy-copy\.\w+)$/.exec(line) ?? [];
      if (stream === "err" || (found === undefined && line !== "nixdeploy-asks=yes")) return null;
      folder = found ?? folder;
      return found === undefined ? "asks" : "begun";
    },
    visit: async (stopped) => /^nixdeploy-(?:visit|end)=/m.test(await look(stopped)),
    readEnd: readFacts,
    askEnd: async (stopped) => readFacts(await look(stopped)),
    refusal: (stderr) =>
      new NixdeployError("host", `cannot activate ${storePath} on ${side.name}: ${lastLine(stderr)}`),
  });
  await side.run({ text: FORGET_SCRIPT, words: [folder], asRoot }, signal).catch(() => {
    // It is gone with the next boot.
  });
  return judgePlain(facts, { method, storePath, onUnitFailure, windowSeconds });
}

/** Null while it is not over. */
function readFacts(stdout: string): PlainFacts | null {
  const read = (key: string) => new RegExp(`^nixdeploy-${key}=(.*)$`, "m").exec(stdout)?.[1] ?? null;
  const readCode = (key: string) => (/^\d+$/.test(read(key) ?? "") ? Number(read(key)) : null);
  if (read("end") === null) return null;
  return {
    ...{ code: readCode("code"), commit: readCode("commit"), back: readCode("back") },
    isConfirmed: read("visit") === "confirmed",
    rebootedInto: read("end") === "gone" ? (read("running") ?? "") : null,
  };
}
