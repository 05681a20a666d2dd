/**
 * Services of NixOS' `systemd.services` as unit files, rendered as NixOS does (nixos/lib/systemd-lib.nix), as far as our
 * modules go: whatever they use beyond that is an error.
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

function renderService(service: Service): string {
  const list = (key: string, values: readonly string[]) => (values.length === 0 ? [] : [`${key}=${values.join(" ")}`]);
  const path = service.path.flatMap((directory) => [`${directory}/bin`, `${directory}/sbin`]);
  // NixOS gives every service coreutils and the like.
  const environment = { PATH: [...path, "/usr/bin", "/usr/sbin"].join(":"), ...service.environment };
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
    "",
  ].join("\n");
}

function renderSettings(given: z.output<typeof settings>): string[] {
  return Object.entries(given).flatMap(([key, value]) =>
    (Array.isArray(value) ? value : [value]).map((one) => `${key}=${one}`),
  );
}
