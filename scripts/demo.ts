/**
 * `npm run demo [-- --keep]`: the main job, for real, on this machine alone.
 *
 * A coordinator on loopback, a "CI machine" that builds with real Nix, two "devices" with stores of their own: versions
 * 1 and 2 of a plain profile and of a NixOS-like system are built, pushed and activated. Version 3 of the system takes
 * the device's network away, and the device comes back by itself. Nothing outside a temporary directory is changed;
 * `--keep` leaves everything running until Ctrl-C.
 */
import { join } from "node:path";
import type { FixtureUnit } from "../test/support/builder.ts";
import { type Device, SYSTEM_PROFILE } from "../test/support/device.ts";
import { createDeviceNetwork, type DeviceNetwork } from "../test/support/device-network.ts";
import { BINARY, createFleet, type Fleet } from "../test/support/fleet.ts";
import { ensureNix } from "../test/support/nix.ts";

const ROOT = join(import.meta.dir, "..");
const HELLO_PROFILE = "/nix/var/nix/profiles/hello";

async function main(words: readonly string[]): Promise<number> {
  const keep = words.includes("--keep");
  const unknown = words.filter((word) => word !== "--keep");
  if (unknown.length > 0) {
    console.error(`demo: unknown argument ${unknown.join(" ")}; it knows --keep`);
    return 2;
  }
  const startedMs = performance.now();
  say("Nix: look for it, install it if need be");
  const nix = await ensureNix();
  console.log(`  Nix ${nix.version}`);
  say("Build the binary");
  await build();
  const seconds = () => `${((performance.now() - startedMs) / 1000).toFixed(0)} s`;

  await using fleet = await createFleet("demo");
  say(`Coordinator: ${fleet.coordinator.url}`);
  console.log(`  nixdeploy serve --listen 127.0.0.1:0 --data-dir ${fleet.coordinator.dataDirectory}`);
  const laptop = await fleet.addDevice("laptop");
  // The nuc reaches the coordinator through a unit of its own system, so a system can cut it off.
  const network = await createDeviceNetwork(fleet.coordinator.url);
  const nuc = await fleet.addDevice("nuc", await buildSystem(fleet, { version: "0", network: network.unit }));
  say("Agents: each with a key of its own, admitted by a token, on a device with its own Nix store");
  await fleet.startAgent(laptop, { profile: "hello" });
  console.log("  laptop$ nixdeploy agent --name laptop --profile hello");
  await fleet.startAgent(nuc, { url: network.url });
  console.log("  nuc$ nixdeploy agent --name nuc");

  for (const version of ["1", "2"]) await deploy(fleet, { version, laptop, nuc, network });
  await deployWithoutNetwork(fleet, { nuc, network });

  say("What the coordinator knows now");
  await show(fleet, ["status"]);
  say(`Done in ${seconds()}.`);
  console.log(`  Both devices run version 2, from stores that have never seen a build; version 3 is not to be seen.`);
  console.log(`  Coordinator: ${fleet.coordinator.url}`);
  if (keep) await waitForInterrupt(fleet);
  else console.log("  Everything is taken down now; `npm run demo -- --keep` leaves it running.");
  return 0;
}

async function deploy(
  fleet: Fleet,
  release: {
    readonly version: string;
    readonly laptop: Device;
    readonly nuc: Device;
    readonly network: DeviceNetwork;
  },
): Promise<void> {
  const { version, laptop, nuc, network } = release;
  say(`Version ${version}: build with Nix, push, activate`);
  const profile = await fleet.builder.build("profile", { name: "hello", version });
  const system = await buildSystem(fleet, { version, network: network.unit });
  const spec = await fleet.builder.build("spec", { agents: { laptop: profile, nuc: system } });
  await show(fleet, ["push", spec]);
  await show(fleet, ["activate", spec]);
  console.log(`  laptop$ ${HELLO_PROFILE}/bin/hello`);
  console.log(`  ${await laptop.run([`${HELLO_PROFILE}/bin/hello`])}`);
  await expectLink(laptop, HELLO_PROFILE, profile);
  await expectLink(nuc, SYSTEM_PROFILE, system);
  await expectLink(nuc, "/run/current-system", system);
}

/** Version 3 of the system leaves the nuc without a network: nobody can tell it to go back, so it must do so by itself. */
async function deployWithoutNetwork(
  fleet: Fleet,
  { nuc, network }: { readonly nuc: Device; readonly network: DeviceNetwork },
): Promise<void> {
  say("Version 3: a mistake in its network configuration cuts the nuc off from everybody");
  const good = await nuc.link(SYSTEM_PROFILE);
  const system = await buildSystem(fleet, { version: "3", network: network.brokenUnit });
  await show(fleet, ["push", system]);
  console.log("  It is given 5 seconds to prove itself (the default is 60), which takes a login to the coordinator:");
  await show(fleet, ["activate", `nuc=${system}`, "--confirm-window", "5s"], 1);
  console.log("  Nobody helped. The nuc undid version 3, got its network back, and told what had happened:");
  await expectLink(nuc, SYSTEM_PROFILE, good ?? "nothing");
  await expectLink(nuc, "/run/current-system", good ?? "nothing");
  console.log(`  nuc: would boot ${await nuc.bootDefault()}`);
}

function buildSystem(
  fleet: Fleet,
  { version, network }: { readonly version: string; readonly network: FixtureUnit },
): Promise<string> {
  const units = [{ name: "nuc.service", version }, network];
  return fleet.builder.build("system", { name: "nuc", version, units });
}

/** Runs a command of the CI machine with its output in sight. */
async function show(fleet: Fleet, args: readonly string[], expectedCode = 0): Promise<void> {
  console.log(`  ci$ nixdeploy ${args.join(" ")}`);
  const child = await fleet.start(args);
  let shown = 0;
  const print = () => {
    for (; shown < child.lines.length; shown += 1) console.log(`  ${child.lines[shown]?.text ?? ""}`);
  };
  const timer = setInterval(print, 50);
  const { exitCode } = await child.exited;
  clearInterval(timer);
  print();
  if (exitCode !== expectedCode) throw new Error(`nixdeploy ${args[0]} ended with code ${exitCode}`);
  if (exitCode !== 0) console.log(`  (exit code ${exitCode})`);
}

async function expectLink(device: Device, link: string, target: string): Promise<void> {
  const found = await device.link(link);
  if (found !== target) throw new Error(`${device.name}: ${link} names ${found}, not ${target}`);
  console.log(`  ${device.name}: ${link} -> ${target}`);
}

async function build(): Promise<void> {
  const child = Bun.spawn({
    cmd: [process.execPath, "build.ts"],
    cwd: ROOT,
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
  });
  if ((await child.exited) !== 0) throw new Error("the build failed");
}

async function waitForInterrupt(fleet: Fleet): Promise<void> {
  console.log("\nEverything keeps running until Ctrl-C. To try it from another terminal:");
  console.log(`  export NIXDEPLOY_URL=${fleet.coordinator.url}`);
  console.log(`  export NIXDEPLOY_TOKEN_FILE=${join(fleet.coordinator.dataDirectory, "admin-token")}`);
  console.log(`  ${BINARY} status`);
  await new Promise<void>((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => resolve());
  });
}

function say(sentence: string): void {
  console.log(`\n== ${sentence}`);
}

process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(`\ndemo: ${error instanceof Error ? error.message : String(error)}`);
  return 1;
});
