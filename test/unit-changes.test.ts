/** What a dry activation says, as nixpkgs' switch-to-configuration-ng prints it (src/main.rs), with whatever else comes. */
import { describe, expect, test } from "bun:test";
import { isUnitChangeLine, parseUnitChanges, unitChangesSchema } from "../src/unit-changes.ts";

const NOTHING = {
  ...{ stop: [], skip: [], reload: [], restart: [], start: [], swapOff: [] },
  ...{ restartsSystemd: false, omitted: 0 },
};

describe("what a dry activation says", () => {
  test("is told by its kinds, and nothing else of the output is", () => {
    const output = [
      "Not checking switch inhibitors (action = dry-activate)",
      "would stop swap device: /dev/disk/by-label/swap",
      "would stop the following units: accounts-daemon.service, home-old.mount",
      "would NOT stop the following changed units: display-manager.service",
      "would activate the configuration...",
      "would set up /etc for 2",
      "would add secret: /run/secrets/would stop the following units: x.service",
      "would restart systemd",
      "would reload the following units: dbus.service, firewall.service",
      "would restart the following units: polkit.service",
      "would start the following units: accounts-daemon.service, getty@tty1.service",
    ];
    expect(parseUnitChanges(output)).toEqual({
      stop: ["accounts-daemon.service", "home-old.mount"],
      skip: ["display-manager.service"],
      reload: ["dbus.service", "firewall.service"],
      restart: ["polkit.service"],
      start: ["accounts-daemon.service", "getty@tty1.service"],
      swapOff: ["/dev/disk/by-label/swap"],
      restartsSystemd: true,
      omitted: 0,
    });
    expect(output.filter(isUnitChangeLine)).toHaveLength(7);
  });

  const CASES: readonly (readonly [what: string, lines: readonly string[], changes: object])[] = [
    ["nothing", [], {}],
    ["nothing of ours", ["stopping the following units: a.service", " would restart systemd", "would restart"], {}],
    ["an empty list", ["would stop the following units: "], {}],
    ["the same twice", Array(2).fill("would start the following units: a.service"), { start: ["a.service"] }],
    [
      "a list with holes",
      ["would start the following units: , a.service, , b.service,"],
      { start: ["a.service", "b.service,"] },
    ],
    ["what is no unit's name", [`would start the following units: ${"x".repeat(256)}`], { omitted: 1 }],
    [
      "a line that was cut",
      ["would start the following units: a.service, b.ser […123 more characters cut off]"],
      { start: ["a.service", "b.ser"] },
    ],
  ];
  test.each(CASES)("from %s", (_what, lines, changes) => {
    expect(parseUnitChanges(lines)).toEqual({ ...NOTHING, ...changes });
  });

  test("has an end: what is beyond is counted, and what comes out fits the contract", () => {
    const line = (kind: string) =>
      `would ${kind} the following units: ${Array.from({ length: 900 }, (_, n) => `${kind}${n}.a`).join(", ")}`;
    const changes = parseUnitChanges(["stop", "reload", "restart"].map(line));
    expect([changes.stop.length, changes.reload.length, changes.restart.length, changes.omitted]).toEqual([
      900, 900, 200, 700,
    ]);
    expect(unitChangesSchema.parse(JSON.parse(JSON.stringify(changes)))).toEqual(changes);
  });
});
