/**
 * The main job with the Nix of each suite on either side: pushed from a builder that has one, activated on a device that
 * has the same or another, a system and a plain profile; and vanilla Nix of the device's suite reads our cache.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Device, SYSTEM_PROFILE } from "../support/device.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { ensureNixOf, NIX_PAIRS } from "../support/nix-versions.ts";
import { cacheResultSchema, rolloutResultSchema } from "../support/results.ts";

const PROFILE = "/nix/var/nix/profiles/tools";

for (const pair of NIX_PAIRS) {
  describe(`from ${pair.builder}'s Nix to ${pair.device}'s`, () => {
    let fleet: Fleet;
    let nuc: Device;

    beforeAll(async () => {
      const nix = await ensureNixOf(pair.device);
      fleet = await createFleet("every-nix", { builderNix: await ensureNixOf(pair.builder) });
      const installed = await fleet.builder.build("system", { name: "nuc", version: "0" });
      nuc = await fleet.addDevice("nuc", { nix, installed });
      await fleet.startAgent(nuc);
      await fleet.startAgent(nuc, { name: "tools", profile: "tools" });
    }, 60_000);

    afterAll(async () => {
      await fleet[Symbol.asyncDispose]();
    }, 30_000);

    test.each(["1", "2"])(
      "version %s of a system and of a profile",
      async (version) => {
        const profile = await fleet.builder.build("profile", { name: "hello", version });
        const system = await fleet.builder.build("system", { name: "nuc", version });
        const spec = await fleet.builder.build("spec", { agents: { nuc: system, tools: profile } });
        await fleet.expectRun(["push", spec]);
        const rollout = rolloutResultSchema.parse(JSON.parse(await fleet.expectRun(["activate", spec, "--json"])));
        expect(rollout.deployments.map(({ agent, state, storePath }) => ({ agent, state, storePath }))).toEqual([
          { agent: "nuc", state: "succeeded", storePath: system },
          { agent: "tools", state: "succeeded", storePath: profile },
        ]);
        expect(await nuc.link(PROFILE)).toBe(profile);
        expect(await nuc.run([`${PROFILE}/bin/hello`])).toBe(`hello ${version}`);
        expect(await nuc.link(SYSTEM_PROFILE)).toBe(system);
        expect(await nuc.link("/run/current-system")).toBe(system);
        expect(await nuc.bootDefault()).toBe(system);
        await nuc.run(["nix-store", "--gc"]);
        await nuc.run(["nix-store", "--verify", "--check-contents"]);
        expect(await nuc.run(["nix-store", "-qR", system])).toBe(await fleet.builder.run(["nix-store", "-qR", system]));
      },
      60_000,
    );

    test("vanilla nix copy and nix-store -r read the private cache", async () => {
      const shown = cacheResultSchema.parse(JSON.parse(await fleet.expectRun(["cache", "show", "default", "--json"])));
      const system = await fleet.builder.build("system", { name: "nuc", version: "1" });
      const profile = await fleet.builder.build("profile", { name: "hello", version: "1" });
      const vanilla = await fleet.addDevice("vanilla", { nix: nuc.nix });
      const netrc = join(vanilla.directory, "netrc");
      const password = await fleet.makeToken("read");
      await writeFile(netrc, `machine 127.0.0.1\nlogin anyone\npassword ${password}\n`, { mode: 0o600 });
      const options = ["--option", "trusted-public-keys", shown.publicKeys.join(" "), "--option", "netrc-file", netrc];
      await vanilla.run(["nix", "copy", "--from", shown.url, system, ...options]);
      const substitute = ["nix-store", "-r", profile, "--option", "substituters", shown.url, ...options];
      await vanilla.run(substitute, { env: { NIX_REMOTE: "daemon" } });
      await vanilla.run(["nix-store", "--verify", "--check-contents"]);
      expect(await vanilla.run([`${profile}/bin/hello`])).toBe("hello 1");
      const before = await vanilla.run(["nix", "path-info", "--sigs", system]);
      expect(before).toContain(String(shown.publicKeys[0]?.split(":")[0]));
    }, 60_000);
  });
}
