/**
 * `npm run demo [-- --keep]`: the main job, for real, on this machine alone.
 *
 * A coordinator on loopback, a "CI machine" that builds with real Nix, two "devices" with stores of their own: versions
 * 1 and 2 of a plain profile and of a NixOS-like system are built, pushed and activated. Nothing outside a temporary
 * directory is changed; `--keep` leaves everything running until Ctrl-C.
 */
import { join } from "node:path";
import { type Device, SYSTEM_PROFILE } from "../test/support/device.ts";
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
  const nuc = await fleet.addDevice("nuc", await fleet.builder.build("system", { name: "nuc", version: "0" }));
  say("Agents: each with a key of its own, admitted by a token, on a device with its own Nix store");
  await startAgent(fleet, laptop, ["--name", "laptop", "--profile", "hello"]);
  await startAgent(fleet, nuc, ["--name", "nuc"]);

  for (const version of ["1", "2"]) await deploy(fleet, { version, laptop, nuc });

  say("What the coordinator knows now");
  await show(fleet, ["status"]);
  say(`Done in ${seconds()}.`);
  console.log(`  Both devices run version 2, from stores that have never seen a build.`);
  console.log(`  Coordinator: ${fleet.coordinator.url}`);
  if (keep) await waitForInterrupt(fleet);
  else console.log("  Everything is taken down now; `npm run demo -- --keep` leaves it running.");
  return 0;
}

async function startAgent(fleet: Fleet, device: Device, flags: readonly string[]): Promise<void> {
  const [name, profile] = [flags[1], flags[3]];
  await fleet.startAgent(device, {
    ...(name === undefined ? {} : { name }),
    ...(profile === undefined ? {} : { profile }),
  });
  console.log(`  ${device.name}$ nixdeploy agent ${flags.join(" ")}`);
}

async function deploy(
  fleet: Fleet,
  release: { readonly version: string; readonly laptop: Device; readonly nuc: Device },
): Promise<void> {
  const { version, laptop, nuc } = release;
  say(`Version ${version}: build with Nix, push, activate`);
  const profile = await fleet.builder.build("profile", { name: "hello", version });
  const system = await fleet.builder.build("system", { name: "nuc", version });
  const spec = await fleet.builder.build("spec", { agents: { laptop: profile, nuc: system } });
  await show(fleet, ["push", spec]);
  await show(fleet, ["activate", spec]);
  console.log(`  laptop$ ${HELLO_PROFILE}/bin/hello`);
  console.log(`  ${await laptop.run([`${HELLO_PROFILE}/bin/hello`])}`);
  await expectLink(laptop, HELLO_PROFILE, profile);
  await expectLink(nuc, SYSTEM_PROFILE, system);
  await expectLink(nuc, "/run/current-system", system);
}

/** Runs a command of the CI machine with its output in sight. */
async function show(fleet: Fleet, args: readonly string[]): Promise<void> {
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
  if (exitCode !== 0) throw new Error(`nixdeploy ${args[0]} ended with code ${exitCode}`);
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
