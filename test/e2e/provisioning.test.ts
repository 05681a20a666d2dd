/**
 * docs/provisioning.md as it stands: each way by which a machine gets its first agent ends with that agent at the
 * coordinator. nixos-anywhere is played by a few lines that copy its extra files.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmod, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { isLocked } from "../../src/agent/machine/flock.ts";
import { ensureDebianPackages } from "../support/debian.ts";
import type { Device } from "../support/device.ts";
import { BINARY, createFleet, type Fleet } from "../support/fleet.ts";
import { readGuideBlock } from "../support/guide-block.ts";
import { evaluationOf } from "../support/nix-modules.ts";
import { waitFor } from "../support/wait-for.ts";

const NAME = "nuc";
const TOKEN_FILE = "/etc/nixdeploy/agent-token";

let fleet: Fleet;
/** Where the commands are typed: nixdeploy and what plays nixos-anywhere are in its PATH. */
let programs: string;
let env: Readonly<Record<string, string>>;

beforeAll(async () => {
  await ensureDebianPackages(["curl", "jq"]);
  fleet = await createFleet("provisioning");
  programs = join(fleet.directory, "programs");
  await mkdir(programs);
  await fleet.builder.run(["ln", "-s", BINARY, join(programs, "nixdeploy")]);
  env = {
    NIXDEPLOY_URL: fleet.coordinator.url,
    NIXDEPLOY_TOKEN: await fleet.makeToken("admin"),
    PATH: `${programs}:${fleet.builder.environment["PATH"]}`,
  };
}, 60_000);
afterAll(() => fleet[Symbol.asyncDispose]());

const block = (heading: string, language: string) => readGuideBlock({ document: "provisioning.md", heading, language });

async function waitUntilAdmitted(name: string, describe: () => string): Promise<void> {
  await waitFor(`${name} to be admitted`, () => fleet.expectRun(["agents", "--json"]), {
    ...{
      timeoutMs: 30_000,
      until: (text) => text.includes(`"name":"${name}"`) || text.includes(`"name": "${name}"`),
      describe,
    },
  });
}

/** A new device where `nixdeploy agent` is started as the page says, with its token. */
async function startWith(device: Device, token: string, name: string) {
  return device.spawn([BINARY, "agent", "--name", name, "--profile", "tools"], {
    env: { NIXDEPLOY_URL: fleet.coordinator.url, NIXDEPLOY_AGENT_TOKEN: token },
  });
}

test("nixos-anywhere: the token goes along, to where the module looks for it, and is good once", async () => {
  const installed = join(fleet.directory, "installed");
  const player = `#!/bin/sh\nset -eu\n[ "$*" = "--flake .#nuc --extra-files $4 root@192.0.2.10" ]\ncp -rp "$4" ${installed}\n`;
  await writeFile(join(programs, "nixos-anywhere"), player);
  await chmod(join(programs, "nixos-anywhere"), 0o755);
  const commands = (await block("nixos-anywhere", "sh")).replace("nixdeploy agents nuc\n", "");
  await fleet.builder.run(["sh", "-euc", commands], { env });
  const token = (await readFile(join(installed, TOKEN_FILE), "utf8")).trim();

  const file = join(fleet.directory, "module.nix");
  await writeFile(file, await block("nixos-anywhere", "nix"));
  const attribute = `systemd.services.nixdeploy-agent-${NAME}.serviceConfig.LoadCredential`;
  const json = await fleet.builder.run(evaluationOf({ modules: `[ ${file} ]`, attribute }));
  expect(JSON.parse(json)).toEqual([`nixdeploy-agent-token:${TOKEN_FILE}`]);

  const device = await fleet.addDevice(NAME);
  const agent = await startWith(device, token, NAME);
  await waitUntilAdmitted(NAME, agent.output);
  const other = await startWith(await fleet.addDevice("thief"), token, "thief");
  expect((await other.exited).exitCode).toBe(77);
}, 90_000);

const userDataSchema = z.strictObject({
  write_files: z.array(z.strictObject({ path: z.string(), permissions: z.literal("0600"), content: z.string() })),
  runcmd: z.array(z.array(z.string())),
});

test("cloud-init: the machine enrolls itself at its first boot", async () => {
  const name = "cloud";
  const token = await fleet.expectRun(["token", "create", "--kind", "agent", "--agent", name, "--uses", "1"]);
  const text = (await block("cloud-init", "yaml"))
    .replaceAll("nd_agent_TOKEN", token)
    .replaceAll("https://deploy.example.org", fleet.coordinator.url)
    .replaceAll("--name=nuc", `--name=${name}`);
  expect(text).toStartWith("#cloud-config\n");
  const { write_files: files, runcmd } = userDataSchema.parse(Bun.YAML.parse(text));
  const device = await fleet.addDevice(name);
  const place = join(fleet.directory, "cloud-files");
  const moved = (word: string) => word.replaceAll("/etc/nixdeploy", `${place}/etc/nixdeploy`);
  for (const { path, content } of files) {
    await mkdir(dirname(moved(path)), { recursive: true });
    await writeFile(moved(path), content, { mode: 0o600 });
  }
  const [command = []] = runcmd;
  const PATH = `${programs}:${device.environment["PATH"]}`;
  const bootstrap = device.spawn(command.map(moved), { env: { PATH } });
  await waitUntilAdmitted(name, bootstrap.output);
  await bootstrap.stop();
  // Its agent, a process of its own, ends with it.
  const lock = device.hostPath(`/var/lib/nixdeploy/agents/${name}/lock`);
  await waitFor("the agent to be gone", async () => !isLocked(lock));
}, 60_000);

test("Terraform: the script makes one token for each machine, and says it again", async () => {
  const script = await block("Terraform, OpenTofu", "sh");
  const directory = join(fleet.directory, "terraform");
  await mkdir(directory);
  const ask = async (name: string) => {
    const json = await fleet.builder.run(["sh", "-c", script], {
      env,
      cwd: directory,
      input: JSON.stringify({ name }),
    });
    return z.strictObject({ token: z.string().regex(/^nd_agent_\S+$/) }).parse(JSON.parse(json)).token;
  };
  const token = await ask("web-1");
  expect(await ask("web-1")).toBe(token);
  expect(await ask("web-2")).not.toBe(token);
  expect(await readdir(join(directory, ".nixdeploy-tokens"))).toEqual(["web-1", "web-2"]);
  const refused = await startWith(await fleet.addDevice("web-2"), token, "web-2");
  expect((await refused.exited).exitCode).toBe(77);
  const agent = await startWith(await fleet.addDevice("web-1"), token, "web-1");
  await waitUntilAdmitted("web-1", agent.output);
}, 90_000);
