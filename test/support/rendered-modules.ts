/**
 * The files that NixOS, nix-darwin and Home Manager make of our modules, and what they say: by the stand-in, and where
 * variables name their trees (nix-modules.ts) by the real ones.
 */
import { z } from "zod";
import { type Evaluation, evaluationOf, type ModuleKind, REAL_SYSTEMS, realEvaluationOf } from "./nix-modules.ts";
import { renderServices } from "./nixos-units.ts";
import { runChecked } from "./processes.ts";

type Variables = Readonly<Record<string, string>>;
/** By name, such as "nixdeploy-agent-nuc.service". A job of launchd is a property list, or from the stand-in JSON. */
export type ServiceFiles = Readonly<Record<string, string>>;
export type Renderer = {
  readonly name: string;
  /** @param env with Nix in its PATH */
  render(evaluation: Evaluation, env: Variables): Promise<ServiceFiles>;
};

const REAL_NAMES = { nixos: "NixOS", darwin: "nix-darwin", home: "Home Manager" } as const;

/** The stand-in first. */
export function renderersOf(kind: ModuleKind): readonly Renderer[] {
  const standIn = { name: "the stand-in", render: renderByStandIn };
  return REAL_SYSTEMS.includes(kind)
    ? [standIn, { name: `the real ${REAL_NAMES[kind]}`, render: renderByReal }]
    : [standIn];
}

/** Of a unit its sections, each key with its values in order; of a job what it says. */
export async function readServiceFile(text: string): Promise<unknown> {
  if (text.startsWith("{")) return JSON.parse(text);
  if (!text.startsWith("<?xml")) return readUnit(text);
  // By somebody else's reader.
  const script = "import json, plistlib, sys; json.dump(plistlib.loads(sys.stdin.buffer.read()), sys.stdout)";
  return JSON.parse(await runChecked(["python3", "-c", script], { input: text }));
}

async function renderByReal(evaluation: Evaluation, env: Variables): Promise<ServiceFiles> {
  return z.record(z.string(), z.string()).parse(await evaluateJson(realEvaluationOf(evaluation), env));
}

async function renderByStandIn(evaluation: Evaluation, env: Variables): Promise<ServiceFiles> {
  const value = await evaluateJson(evaluationOf({ ...evaluation, attribute: "rendered" }), env);
  if ((evaluation.kind ?? "nixos") === "nixos") {
    return Object.fromEntries(renderServices(value).map(({ name, text = "" }) => [name, text]));
  }
  const files = Object.entries(z.record(z.string(), z.unknown()).parse(value));
  return Object.fromEntries(
    files.map(([name, file]) => [name, name.endsWith(".plist") ? JSON.stringify(file) : renderHomeUnit(file)]),
  );
}

async function evaluateJson(command: readonly string[], env: Variables): Promise<unknown> {
  return JSON.parse(await runChecked(command, { env: { NIX_REMOTE: "dummy://", ...env } }));
}

const setting = z.union([z.string(), z.number(), z.boolean()]);
const sectionsSchema = z.record(z.string(), z.record(z.string(), z.union([setting, z.array(setting)])));

/** As Home Manager does (modules/systemd.nix). */
function renderHomeUnit(value: unknown): string {
  const lines = Object.entries(sectionsSchema.parse(value)).map(([section, keys]) => {
    const settings = Object.entries(keys).flatMap(([key, values]) => [values].flat().map((one) => `${key}=${one}`));
    return [`[${section}]`, ...settings, ""].join("\n");
  });
  return lines.join("\n");
}

function readUnit(text: string): Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> {
  const sections: Record<string, Record<string, string[]>> = {};
  let section: Record<string, string[]> = {};
  for (const line of text.split("\n").filter((one) => one !== "")) {
    const [, name] = /^\[(\w+)\]$/.exec(line) ?? [];
    const [, key, value = ""] = /^([\w-]+)=(.*)$/.exec(line) ?? [];
    if (name !== undefined) {
      section = {};
      sections[name] = section;
    } else if (key !== undefined) {
      section[key] = [...(section[key] ?? []), value];
    } else {
      throw new Error(`a line that no unit has: ${line}`);
    }
  }
  // In which order variables stand means nothing.
  sections["Service"]?.["Environment"]?.sort();
  return sections;
}
