/**
 * flake.nix and its template as flakes, by real Nix, with stand-ins for their inputs: what users write after
 * `nixdeploy.` is there, a flake for Cachix Deploy works with another input, and the homelab's spec is one that `nixdeploy activate` reads.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { cp, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseSpec } from "../../src/client/spec/spec.ts";
import { NIXDEPLOY_VERSION } from "../../src/version.ts";
import { type Builder, createBuilder } from "../support/builder.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";

const ROOT = join(import.meta.dir, "../..");
const FLAKE_PARTS = ["flake.nix", "nix", "package.json", "bun.lock"];

let directory: TemporaryDirectory;
let machine: Builder;

beforeAll(async () => {
  directory = await createTemporaryDirectory("nix-flake");
  const copy = (from: string, to: string) => cp(join(ROOT, from), join(directory.path, to), { recursive: true });
  for (const part of FLAKE_PARTS) await copy(part, `nixdeploy/${part}`);
  await copy("nix/templates/homelab", "homelab");
  for (const input of ["nixpkgs", "darwin", "home-manager"]) {
    await mkdir(join(directory.path, input));
    await copy(`test/nix-language/inputs/${input}.nix`, `${input}/flake.nix`);
  }
  for (const part of ["nix-language", "fixtures/nix"]) await copy(`test/${part}`, `nixpkgs/test/${part}`);
  machine = await createBuilder({ directory: join(directory.path, "builder") });
}, 60_000);
afterAll(async () => {
  await machine[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

/** @param prefix of the inputs' names, where nixdeploy is an input itself */
async function evaluate(flake: string, attribute: string, prefix = ""): Promise<unknown> {
  const override = (input: string, folder = input) => ["--override-input", input, `path:${directory.path}/${folder}`];
  const inputs = [
    ...(prefix === "" ? [] : override(prefix.slice(0, -1), "nixdeploy")),
    ...override("nixpkgs"),
    ...["darwin", "home-manager"].flatMap((name) => override(`${prefix}${name}`, name)),
  ];
  const flags = ["--json", "--no-write-lock-file", ...inputs];
  return JSON.parse(await machine.run(["nix", "eval", ...flags, `path:${directory.path}/${flake}#${attribute}`]));
}

test("all systems have the package and a shell", async () => {
  for (const system of ["x86_64-linux", "aarch64-linux", "x86_64-darwin", "aarch64-darwin"]) {
    expect(await evaluate("nixdeploy", `packages.${system}.default.version`)).toBe(NIXDEPLOY_VERSION);
    expect(await evaluate("nixdeploy", `devShells.${system}.default.name`)).toBe("shell");
  }
}, 60_000);

test("what was written for cachix-deploy-flake works with another address of one input, and nothing else", async () => {
  const folder = join(directory.path, "moved");
  await mkdir(folder);
  await writeFile(join(folder, "nuc.nix"), `{ networking.hostName = "nuc"; }`);
  // As its documentation has it, with all that it lets follow (disko and nixos-anywhere are inputs of its own alone).
  const follows = ["nixpkgs", "darwin", "home-manager", "disko", "nixos-anywhere"];
  const flake = `{
    inputs.nixpkgs.url = "github:NixOS/nixpkgs";
    inputs.darwin.url = "github:LnL7/nix-darwin";
    inputs.home-manager.url = "github:nix-community/home-manager";
    inputs.disko.url = "github:nix-community/disko";
    inputs.nixos-anywhere.url = "github:numtide/nixos-anywhere";
    inputs.cachix-deploy-flake.url = "github:cachix/cachix-deploy-flake";
    ${follows.map((name) => `inputs.cachix-deploy-flake.inputs.${name}.follows = "${name}";`).join("\n")}
    outputs = { self, nixpkgs, cachix-deploy-flake, ... }:
      let
        pkgs = nixpkgs.legacyPackages.x86_64-linux;
        cachix-deploy-lib = cachix-deploy-flake.lib pkgs;
      in {
        packages.x86_64-linux.default = cachix-deploy-lib.spec {
          agents = {
            nuc = cachix-deploy-lib.nixos ./nuc.nix;
            tv = cachix-deploy-lib.nixos ({ pkgs, ... }: { networking.hostName = "tv"; });
            vps = cachix-deploy-lib.nixos [ ./nuc.nix { services.openssh.enable = true; } ];
            mac = cachix-deploy-lib.darwin ({ pkgs, ... }: { });
            me = cachix-deploy-lib.homeManager { extraSpecialArgs = { }; } ({ config, ... }: { });
            you = cachix-deploy-lib.homeManager { } { };
            tools = pkgs.writeText "tools" "";
          };
          rollbackScript.x86_64-linux = pkgs.writeShellScript "rollback" "true";
        };
      };
  }`;
  await writeFile(join(folder, "flake.nix"), flake);
  const places = { ...Object.fromEntries(follows.map((name) => [name, name])), "cachix-deploy-flake": "nixdeploy" };
  for (const name of ["disko", "nixos-anywhere"]) {
    await mkdir(join(directory.path, name));
    await writeFile(join(directory.path, name, "flake.nix"), "{ outputs = { self }: { }; }");
  }
  const overrides = Object.entries(places).flatMap(([input, at]) => [
    ...["--override-input", input, `path:${directory.path}/${at}`],
  ]);
  const attribute = `path:${folder}#packages.x86_64-linux.default.text`;
  const text = await machine.run(["nix", "eval", "--raw", "--no-write-lock-file", ...overrides, attribute]);
  const { spec } = parseSpec(text, "deploy.json");
  expect([...spec.agents.keys()] as string[]).toEqual(["mac", "me", "nuc", "tools", "tv", "vps", "you"]);
  expect([...spec.rollbackScript.keys()] as string[]).toEqual(["x86_64-linux"]);
}, 60_000);

test("the template's machines are agents of a spec, with units of ours", async () => {
  const text = await evaluate("homelab", "packages.x86_64-linux.spec.text", "nixdeploy/");
  const { spec, warnings } = parseSpec(String(text), "nixdeploy.json");
  expect(warnings).toEqual([]);
  expect([...spec.agents.keys()] as string[]).toEqual(["nuc", "vps"]);
  expect(spec.healthChecks.forAll.map(({ name }) => name)).toEqual(["ssh"]);
  const services = "nixosConfigurations.vps.config.systemd.services";
  const unit = `${services}.nixdeploy-agent-vps.environment`;
  expect(await evaluate("homelab", unit, "nixdeploy/")).toEqual({ NIXDEPLOY_URL: "https://deploy.example.org" });
  expect(await evaluate("homelab", `${services}.nixdeploy.serviceConfig.DynamicUser`, "nixdeploy/")).toBe(true);
}, 60_000);
