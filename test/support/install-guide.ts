/**
 * The units of docs/install.md, as units of a test's system: what is documented is what runs. Unit files are taken as
 * they stand; what is written for NixOS is evaluated by real Nix and rendered as NixOS does (nixos/lib/systemd-lib.nix),
 * as far as the document goes: whatever it uses beyond that is an error.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { FixtureUnit } from "./builder.ts";
import type { Machine } from "./machine.ts";

const GUIDE = join(import.meta.dir, "../../docs/install.md");

const scalar = z.union([z.string(), z.number(), z.boolean()]);
const settings = z.record(z.string(), z.union([scalar, z.array(scalar)]));
const servicesSchema = z.record(
  z.string(),
  z.strictObject({
    wantedBy: z.tuple([z.literal("multi-user.target")]),
    wants: z.array(z.string()).default([]),
    after: z.array(z.string()).default([]),
    path: z.array(z.string()).default([]),
    environment: z.record(z.string(), z.string()).default({}),
    restartIfChanged: z.boolean().default(true),
    stopIfChanged: z.boolean().default(true),
    unitConfig: settings.default({}),
    serviceConfig: settings,
  }),
);
type Service = z.output<typeof servicesSchema>[string];

/** The file that the document shows under this name. */
export async function readGuideFile(path: string): Promise<string> {
  const guide = await readFile(GUIDE, "utf8");
  const at = guide.indexOf(`\`${path}\``);
  const [, text] = /\n```\n([^`]*)```\n/.exec(guide.slice(at)) ?? [];
  if (at < 0 || text === undefined) throw new Error(`docs/install.md shows no file ${path}`);
  return text;
}

/** The services of the NixOS module under this heading; `prefix`/bin/nixdeploy is the program. */
export async function readGuideServices(
  machine: Machine,
  { heading, prefix }: { readonly heading: string; readonly prefix: string },
): Promise<FixtureUnit[]> {
  const guide = await readFile(GUIDE, "utf8");
  const at = guide.indexOf(`\n## ${heading}\n`);
  const [, module] = /\n```nix\n([^`]*)```\n/.exec(guide.slice(at)) ?? [];
  if (at < 0 || module === undefined) throw new Error(`docs/install.md has no module under ${heading}`);
  const file = join(machine.directory, "module.nix");
  await writeFile(file, module);
  const system = `{ config.nix.package = "/usr"; pkgs.callPackage = file: arguments: ${JSON.stringify(prefix)}; }`;
  const expression = `(import ${file} ${system}).systemd.services`;
  const json = await machine.run(["nix-instantiate", "--eval", "--strict", "--json", "--expr", expression]);
  const services = servicesSchema.parse(JSON.parse(json));
  return Object.entries(services).map(([name, service]) => ({
    name: `${name}.service`,
    text: renderService(service),
  }));
}

function renderService(service: Service): string {
  const list = (key: string, values: readonly string[]) => (values.length === 0 ? [] : [`${key}=${values.join(" ")}`]);
  const path = service.path.flatMap((directory) => [`${directory}/bin`, `${directory}/sbin`]);
  // NixOS gives every service coreutils and the like.
  const environment = { PATH: [...path, "/usr/bin", "/usr/sbin"].join(":"), ...service.environment };
  return [
    "[Unit]",
    ...list("Wants", service.wants),
    ...list("After", service.after),
    ...renderSettings(service.unitConfig),
    "[Service]",
    ...Object.entries(environment).map(([name, value]) => `Environment="${name}=${value}"`),
    ...(service.restartIfChanged ? [] : ["X-RestartIfChanged=false"]),
    ...(service.stopIfChanged ? [] : ["X-StopIfChanged=false"]),
    ...renderSettings(service.serviceConfig),
    "",
  ].join("\n");
}

function renderSettings(given: z.output<typeof settings>): string[] {
  return Object.entries(given).flatMap(([key, value]) =>
    (Array.isArray(value) ? value : [value]).map((one) => `${key}=${one}`),
  );
}
