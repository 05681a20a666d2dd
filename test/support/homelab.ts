/**
 * The homelab of docs/getting-started.md: its commands and files as they stand there, run on a laptop, a VPS and a machine
 * at home. Stand-ins: nixpkgs (test/nix-language/inputs), GitHub (the workflow's steps, run here), systemd on the machines.
 */
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { z } from "zod";
import { readRepository } from "../../scripts/repository.ts";
import { type ActionRun, runAction } from "./action-runner.ts";
import type { Device } from "./device.ts";
import { type CodeBlock, listCodeBlocks } from "./documents.ts";
import { BINARY, createFleet, type Fleet } from "./fleet.ts";

const ROOT = join(import.meta.dir, "../..");
const GUIDE = "docs/getting-started.md";
const FLAKE_PARTS = ["flake.nix", "nix", "package.json", "bun.lock"];
const SSH_PORT = 22;

const workflowSchema = z.looseObject({
  jobs: z.looseObject({
    deploy: z.looseObject({
      steps: z.array(z.strictObject({ uses: z.string(), with: z.record(z.string(), z.coerce.string()).default({}) })),
    }),
  }),
});

export type Homelab = AsyncDisposable & {
  readonly fleet: Fleet;
  /** Runs the guide's next block with this first line of its fence; what it printed. */
  next(info: string): Promise<string>;
  /** The machine is installed from the repository, and its agent started as its unit says. */
  install(name: string, agentToken: string): Promise<Device>;
  /** What `name`'s configuration in the repository builds. */
  toplevel(name: string): Promise<string>;
  /** What GitHub does after a push: the workflow of the repository. */
  runWorkflow(secrets: Readonly<Record<string, string>>): Promise<ActionRun>;
};

export async function createHomelab(): Promise<Homelab> {
  await using stack = new AsyncDisposableStack();
  const fleet = stack.use(await createFleet("homelab"));
  stack.use(await listenForSsh());
  await prepareInputs(fleet.directory);
  const blocks = listCodeBlocks({ path: GUIDE, text: await readFile(join(ROOT, GUIDE), "utf8") }).filter(
    ({ info }) => info !== "",
  );
  const ours = await readRepository();
  const adapt = (text: string) =>
    text
      .replaceAll(`github:${ours.name}`, `path:${fleet.directory}/nixdeploy`)
      .replaceAll("github:NixOS/nixpkgs/nixos-unstable", `path:${fleet.directory}/nixpkgs`)
      .replaceAll("https://deploy.example.org", fleet.coordinator.url)
      .replaceAll("/var/lib/nixdeploy/server", fleet.coordinator.dataDirectory);
  const repository = join(fleet.directory, "homelab");

  const runBlock = async ({ info, text }: CodeBlock): Promise<string> => {
    const [, file] = /^nix (\S+)$/.exec(info) ?? [];
    if (file !== undefined) {
      await writeFile(join(repository, file), text);
      return "";
    }
    const isFirst = text.includes("mkdir homelab");
    const output = await fleet.builder.run(["bash", "-euc", `nixdeploy() { ${BINARY} "$@"; }\n${adapt(text)}`], {
      cwd: isFirst ? fleet.directory : repository,
      env: GIT_ENVIRONMENT,
    });
    if (isFirst) await adaptFiles(repository, adapt);
    return output;
  };

  const evaluate = async (attribute: string): Promise<unknown> =>
    JSON.parse(
      await fleet.builder.run(["nix", "eval", "--json", `.#nixosConfigurations.${attribute}`], { cwd: repository }),
    );
  const toplevel = async (name: string) => {
    const attribute = `.#nixosConfigurations.${name}.config.system.build.toplevel`;
    const built = await fleet.builder.run(["nix", "build", "--no-link", "--json", attribute], { cwd: repository });
    return z.tuple([z.looseObject({ outputs: z.object({ out: z.string() }) })]).parse(JSON.parse(built))[0].outputs.out;
  };
  const owned = stack.move();
  return {
    fleet,
    toplevel,
    async next(info) {
      const index = blocks.findIndex((block) => block.info === info);
      const [block] = index < 0 ? [] : blocks.splice(index, 1);
      if (block === undefined) throw new Error(`${GUIDE} has no further block \`${info}\``);
      return await runBlock(block);
    },
    async install(name, agentToken) {
      const device = await fleet.addDevice(name, await toplevel(name));
      const unit = z
        .looseObject({
          environment: z.record(z.string(), z.string()),
          serviceConfig: z.looseObject({ ExecStart: z.string() }),
        })
        .parse(await evaluate(`${name}.config.systemd.services.nixdeploy-agent-${name}`));
      const [, ...words] = unit.serviceConfig.ExecStart.split(" ").map((word) => word.replaceAll('"', ""));
      const env = { ...unit.environment, NIXDEPLOY_AGENT_TOKEN: agentToken };
      await device.spawn([BINARY, ...words], { env }).waitForLine(/connected/, { timeoutMs: 30_000 });
      return device;
    },
    async runWorkflow(secrets) {
      const text = await readFile(join(repository, ".github/workflows/deploy.yml"), "utf8");
      const { steps } = workflowSchema.parse(Bun.YAML.parse(text)).jobs.deploy;
      const [checkout, installNix, deploy, ...others] = steps;
      // The first two are GitHub's and others': the repository is here, and so is Nix.
      const names = [checkout?.uses, installNix?.uses, deploy?.uses].map((uses) => uses?.split("@")[0]);
      if (names.join(" ") !== `actions/checkout cachix/install-nix-action ${ours.name}` || others.length > 0) {
        throw new Error(`the workflow has other steps than this knows: ${names.join(", ")}`);
      }
      const fill = (value: string) =>
        value.replaceAll(/\$\{\{ secrets\.(\w+) \}\}/g, (_, name: string) => secrets[name] ?? `no secret ${name}`);
      const inputs = Object.entries(deploy?.with ?? {}).map(([name, value]) => [name, fill(value)]);
      return await runAction({
        ...{ file: join(ROOT, "action.yml"), machine: fleet.builder, directory: fleet.directory, checkout: repository },
        // Releases are installed in action.test.ts.
        inputs: { ...Object.fromEntries(inputs), program: BINARY },
      });
    },
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

const GIT_ENVIRONMENT = {
  ...{ GIT_AUTHOR_NAME: "me", GIT_AUTHOR_EMAIL: "me@example.org" },
  ...{ GIT_COMMITTER_NAME: "me", GIT_COMMITTER_EMAIL: "me@example.org" },
};

/** The flakes that the repository names, in folders: ours, and stand-ins for the others. */
async function prepareInputs(directory: string): Promise<void> {
  const copy = (from: string, to: string) => cp(join(ROOT, from), join(directory, to), { recursive: true });
  for (const part of FLAKE_PARTS) await copy(part, `nixdeploy/${part}`);
  for (const input of ["nixpkgs", "darwin", "home-manager"]) {
    await mkdir(join(directory, input));
    await copy(`test/nix-language/inputs/${input}.nix`, `${input}/flake.nix`);
  }
  for (const part of ["nix-language", "fixtures/nix"]) await copy(`test/${part}`, `nixpkgs/test/${part}`);
  const file = join(directory, "nixdeploy/flake.nix");
  const text = await readFile(file, "utf8");
  const local = text
    .replaceAll("github:NixOS/nixpkgs/nixos-unstable", `path:${directory}/nixpkgs`)
    .replaceAll("github:nix-darwin/nix-darwin", `path:${directory}/darwin`)
    .replaceAll("github:nix-community/home-manager", `path:${directory}/home-manager`);
  // The stand-ins have no inputs of their own.
  await writeFile(file, local.replaceAll(/^ *inputs\.nixpkgs\.follows = "nixpkgs";\n/gm, ""));
}

/** What the guide asks for: the user's own address and owner wherever they stand. */
async function adaptFiles(repository: string, adapt: (text: string) => string): Promise<void> {
  for (const name of ["flake.nix", "machines/common.nix", "machines/vps.nix", ".github/workflows/deploy.yml"]) {
    const file = join(repository, name);
    await writeFile(file, adapt(await readFile(file, "utf8")));
  }
}

/** Someone on port 22, for the template's health check; where this machine has an sshd of its own, that is it. */
async function listenForSsh(): Promise<AsyncDisposable> {
  const server: Server = createServer((socket) => socket.end());
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => (error.code === "EADDRINUSE" ? resolve() : reject(error)));
    server.listen(SSH_PORT, "127.0.0.1", resolve);
  });
  return {
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => (server.listening ? server.close(() => resolve()) : resolve())),
  };
}
