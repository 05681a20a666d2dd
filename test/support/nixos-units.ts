/**
 * Services of NixOS' `systemd.services` as unit files, rendered as NixOS does (nixos/lib/systemd-lib.nix), as far as our
 * modules go: whatever they use beyond that is an error. nix-rendered.test.ts compares the two.
 */
import { z } from "zod";
import type { FixtureUnit } from "./builder.ts";

const scalar = z.union([z.string(), z.number(), z.boolean()]);
const settings = z.record(z.string(), z.union([scalar, z.array(scalar)]));
const servicesSchema = z.record(
  z.string(),
  z.strictObject({
    description: z.string().default(""),
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

/** @param value `config.systemd.services`, from JSON */
export function renderServices(value: unknown): FixtureUnit[] {
  return Object.entries(servicesSchema.parse(value)).map(([name, service]) => ({
    name: `${name}.service`,
    text: renderService(service),
  }));
}

/** NixOS gives every service coreutils, findutils, grep, sed and systemd. */
const COMMON_PROGRAMS = Array.from({ length: 5 }, () => "/usr");

function renderService(service: Service): string {
  const list = (key: string, values: readonly string[]) => (values.length === 0 ? [] : [`${key}=${values.join(" ")}`]);
  const programs = [...service.path, ...COMMON_PROGRAMS];
  const path = ["bin", "sbin"].flatMap((directory) => programs.map((program) => `${program}/${directory}`));
  const environment = { ...service.environment, PATH: path.join(":") };
  return [
    "[Unit]",
    ...(service.description === "" ? [] : [`Description=${service.description}`]),
    ...list("Wants", service.wants),
    ...list("After", service.after),
    ...renderSettings(service.unitConfig),
    "[Service]",
    ...Object.entries(environment).map(([name, value]) => `Environment=${JSON.stringify(`${name}=${value}`)}`),
    ...(service.restartIfChanged ? [] : ["X-RestartIfChanged=false"]),
    ...(service.stopIfChanged ? [] : ["X-StopIfChanged=false"]),
    ...renderSettings(service.serviceConfig),
    "[Install]",
    ...list("WantedBy", service.wantedBy),
    "",
  ].join("\n");
}

function renderSettings(given: z.output<typeof settings>): string[] {
  return Object.entries(given).flatMap(([key, value]) =>
    (Array.isArray(value) ? value : [value]).map((one) => `${key}=${one}`),
  );
}
