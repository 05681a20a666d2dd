/**
 * The pipeline of docs/pipelines.md, taken from that page and run with the compiled program, real Nix and two devices:
 * staging, checks, production. What stops it leaves production untouched.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Device } from "../support/device.ts";
import { listCodeBlocks, readDocuments } from "../support/documents.ts";
import { BINARY, createFleet, type Fleet } from "../support/fleet.ts";

const PROFILE = "/nix/var/nix/profiles/hello";
const PAGE = "docs/pipelines.md";

let fleet: Fleet;
let staging: Device;
let production: Device;
let folder: string;

beforeAll(async () => {
  fleet = await createFleet("pipelines");
  staging = await fleet.addDevice("staging-1");
  production = await fleet.addDevice("prod-1");
  for (const device of [staging, production]) await fleet.startAgent(device, { profile: "hello" });
  folder = join(fleet.directory, "repository");
  await mkdir(folder);
  for (const { words } of labelCommands()) await fleet.expectRun(words);
  await writeFile(join(folder, "pipeline"), readPipeline());
}, 90_000);

afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
}, 30_000);

const page = () => {
  const found = readDocuments(join(import.meta.dir, "../..")).find(({ path }) => path === PAGE);
  if (found === undefined) throw new Error(`there is no ${PAGE}`);
  return found;
};

function readPipeline(): string {
  const [block, ...others] = listCodeBlocks(page()).filter(({ info }) => info === "sh pipeline");
  if (block === undefined || others.length > 0) throw new Error("the page has not exactly one pipeline");
  return block.text;
}

/** As the page has them. */
function labelCommands(): readonly { readonly words: readonly string[] }[] {
  return [...page().text.matchAll(/^nixdeploy (agents label) '([^']+)' (\S+)$/gm)].map(
    ([, command = "", pattern = "", label = ""]) => ({ words: [...command.split(" "), pattern, label] }),
  );
}

async function buildSpec(version: string, broken: readonly string[] = []) {
  const build = (name: string) => {
    const hook = broken.includes(name) ? { faults: [{ stage: "end", kind: "exit", argument: 7 } as const] } : {};
    return fleet.builder.build("profile", { name: "hello", version: `${version}-${name}`, hook });
  };
  const agents = { "staging-1": await build("staging-1"), "prod-1": await build("prod-1") };
  await rm(join(folder, "result"), { force: true });
  await symlink(await fleet.builder.build("spec", { agents }), join(folder, "result"));
  return agents;
}

/** Runs it with checks that end so. */
async function runPipeline(checks: { readonly exitCode: number }, title = "release") {
  const check = join(folder, "check-staging");
  await writeFile(check, `#!/bin/sh\necho "checked staging"\nexit ${checks.exitCode}\n`);
  await chmod(check, 0o755);
  const environment = {
    ...{ NIXDEPLOY_URL: fleet.coordinator.url, PATH: `${dirname(BINARY)}:${process.env["PATH"]}` },
    NIXDEPLOY_PUSH_TOKEN: await fleet.makeToken("push"),
    NIXDEPLOY_ACTIVATE_TOKEN: await fleet.makeToken("activate"),
  };
  return await fleet.builder.exec(["sh", "-c", `cd ${folder} && exec sh ./pipeline '${title}'`], {
    ...{ env: environment, timeoutMs: 120_000 },
  });
}

const running = async () => [await staging.link(PROFILE), await production.link(PROFILE)];

describe("the pipeline", () => {
  test("brings the same spec to staging and then to production", async () => {
    const agents = await buildSpec("1");
    const { exitCode, stdout, stderr } = await runPipeline({ exitCode: 0 });
    expect([exitCode, stderr]).toEqual([0, expect.any(String)]);
    expect(await running()).toEqual([agents["staging-1"], agents["prod-1"]]);
    const order = stdout.split("\n").filter((line) => /^(staging-1|prod-1|checked)/.test(line));
    expect(order.map((line) => line.split(" ")[0])).toEqual(["staging-1", "checked", "prod-1"]);
    expect(await fleet.expectRun(["logs", "prod-1"])).not.toBe("");
  }, 90_000);

  test("stops when the checks do not like staging", async () => {
    const [, before] = await running();
    const agents = await buildSpec("2");
    expect((await runPipeline({ exitCode: 3 })).exitCode).toBe(3);
    expect(await running()).toEqual([agents["staging-1"], before ?? ""]);
  }, 90_000);

  test("stops when staging goes back, and shows why", async () => {
    const before = await running();
    await buildSpec("3", ["staging-1"]);
    const { exitCode, stdout, stderr } = await runPipeline({ exitCode: 0 });
    expect(exitCode).toBe(1);
    expect(stdout).not.toContain("checked staging");
    expect(stderr).toContain("cannot deploy to staging-1");
    expect(await running()).toEqual(before);
  }, 90_000);

  test("stops when staging is offline, before anything is started", async () => {
    const before = await running();
    await buildSpec("4");
    await fleet.expectRun(["agents", "label", "prod-1", "stage=staging"]);
    await production.powerOff();
    const { exitCode, stdout, stderr } = await runPipeline({ exitCode: 0 });
    expect([exitCode, stdout.includes("checked")]).toEqual([1, false]);
    expect(stderr).toContain("agent prod-1: it is not online");
    expect(await staging.link(PROFILE)).toBe(before[0] ?? "");
  }, 90_000);
});
