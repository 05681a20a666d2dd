/** What `copy` decides without doing anything: what a machine said about itself, trust, ends of a switch, several hosts. */
import { describe, expect, test } from "bun:test";
import { summarizeFailures } from "../../../src/client/copy/copy-hosts.ts";
import { type Probe, parseProbe } from "../../../src/client/copy/probe.ts";
import { isProfileOfRoot, resolveFarProfile } from "../../../src/client/copy/profile.ts";
import { fitsPlatform } from "../../../src/client/copy/send-binary.ts";
import { signingKeyName } from "../../../src/client/copy/signing.ts";
import { judgeCommit, judgePlain, judgeSwitch, type SwitchFacts } from "../../../src/client/copy/system-end.ts";
import { isTrusted, listUnsigned, planKeyEntry } from "../../../src/client/copy/trust.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { narHashFromDigest } from "../../../src/nix/hash.ts";
import type { PathInfo } from "../../../src/nix/path-info.ts";
import { signPathInfo } from "../../../src/nix/signature.ts";
import { formatPublicKey, publicKeyOf, secretKeyFromSeed } from "../../../src/nix/signing-key.ts";
import { parseStorePath } from "../../../src/nix/store-path.ts";

const SAID = `Welcome to the machine
nixdeploy-probe uid=1000
nixdeploy-probe user=alice
nixdeploy-probe hostName=nuc
nixdeploy-probe home=/home/alice
nixdeploy-probe stateHome=
nixdeploy-probe kernel=Linux
nixdeploy-probe machine=x86_64
nixdeploy-probe hasDaemon=yes
nixdeploy-probe sudo=asks
nixdeploy-probe isNixos=
nixdeploy-probe nixdeploy=
nixdeploy-probe conf=/etc/nix/nix.conf
nixdeploy-probe confIsManaged=
nixdeploy-probe confIsWritable=
nixdeploy-probe confExists=yes
nixdeploy-probe trustedKeys=a-1:AAAA
nixdeploy-probe freeKilobytes=1024
nixdeploy-probe end=yes
`;

function probeOf(changes: Partial<Probe> = {}): Probe {
  const probe = parseProbe(SAID);
  if (probe === null) throw new Error("the example is no probe");
  return { ...probe, ...changes };
}

describe("what a machine says about itself", () => {
  test("is read among other lines", () => {
    expect(probeOf()).toMatchObject({ uid: 1000, user: "alice", hasDaemon: true, sudo: "asks", freeKilobytes: 1024 });
  });

  test("is nothing when it ends early, anywhere", () => {
    const lines = SAID.split("\n");
    for (let count = 0; count < lines.length - 1; count += 1) {
      expect(parseProbe(lines.slice(0, count).join("\n"))).toBeNull();
    }
  });

  test.each(["uid=", "uid=root", "uid=-1", "sudo=maybe"])("is nothing with %s", (line) => {
    const [key] = line.split("=");
    expect(parseProbe(SAID.replace(new RegExp(`${key}=.*`), line))).toBeNull();
  });
});

describe("trust", () => {
  const key = secretKeyFromSeed("k-1", new Uint8Array(32).fill(7));
  const info: PathInfo = {
    storePath: parseStorePath("/nix/store/00000000000000000000000000000000-x"),
    narHash: narHashFromDigest(new Uint8Array(32)),
    ...{ narSizeBytes: 1, references: [], deriver: null, signatures: [], contentAddress: null },
  };
  const signed = { ...info, signatures: [signPathInfo(info, key)] };

  test("is needed for what nobody has signed whom the machine trusts", () => {
    const trustedKeys = `other-1:nonsense ${formatPublicKey(publicKeyOf(key))}`;
    expect(listUnsigned([info, signed], { trustedKeys })).toEqual([info]);
    expect(listUnsigned([signed], { trustedKeys: "" })).toEqual([signed]);
    expect(listUnsigned([{ ...info, contentAddress: "text:sha256:x" }], { trustedKeys: "" })).toEqual([]);
  });

  test("of whom: who is trusted, or root where the daemon does not tell", () => {
    expect(isTrusted("trusted", { uid: 5 })).toBe(true);
    expect(isTrusted("not-trusted", { uid: 0 })).toBe(false);
    expect(isTrusted("unknown", { uid: 0 })).toBe(true);
    expect(isTrusted("unknown", { uid: 5 })).toBe(false);
  });

  test.each([
    [{ uid: 0 }, { asRoot: false }],
    [{ uid: 0, confIsManaged: true }, null],
    [{ confIsWritable: true, sudo: "none" }, { asRoot: false }],
    [{ sudo: "free" }, { asRoot: true }],
    [{ sudo: "asks" }, { asRoot: true }],
    [{ sudo: "none" }, null],
    [{ sudo: "free", confIsManaged: true }, null],
    [{ uid: 0, isNixos: true }, null],
  ] as const)("a key gets into nix.conf of %j by %j", (changes, entry) => {
    expect(planKeyEntry(probeOf(changes))).toEqual(entry);
  });
});

describe("the end of a switch without the engine", () => {
  const facts = (changes: Partial<SwitchFacts>): SwitchFacts => ({
    ...{ code: 0, back: null, isConfirmed: false, onUnitFailure: "rollback", windowSeconds: 60 },
    ...changes,
  });
  test.each([
    [{ isConfirmed: true }, "succeeded", "it is live"],
    [{ code: 4, isConfirmed: true, onUnitFailure: "keep" }, "degraded", "code 4"],
    [{ code: 4, back: 0 }, "rolled-back", "code 4"],
    [{ code: 4, back: 4 }, "rolled-back", "some units of the old system fail now"],
    [{ code: 4, back: 1 }, "degraded", "the way back ended with code 1"],
    [{ code: 11 }, "failed", "another activation"],
    [{ code: 100, back: 0 }, "rolled-back", "needs a reboot"],
    [{ code: 1, back: 0 }, "rolled-back", "ended with code 1"],
    [{ code: 124, back: 0 }, "rolled-back", "took too long"],
    [{ back: 0 }, "rolled-back", "no new connection by ssh was possible within 60 s"],
    [{ code: null }, "degraded", "was not heard of any more; the way back was not heard of"],
  ] as const)("%j is %s", (changes, outcome, words) => {
    const { end, isLive } = judgeSwitch(facts(changes));
    expect(end.outcome).toBe(outcome);
    expect(end.reason).toContain(words);
    expect(isLive).toBe(end.reason.startsWith("it is live"));
  });
});

describe("making a system the default", () => {
  test.each([
    [{ code: 0, back: null, isLive: true }, "succeeded", "it is live"],
    [{ code: 0, back: null, isLive: false }, "succeeded", "at the next reboot"],
    [{ code: 1, back: 0, isLive: true }, "rolled-back", "ended with code 1"],
    [{ code: 1, back: 4, isLive: true }, "rolled-back", "some units of the old system fail now"],
    // Nobody may say that it is back when it is not.
    [{ code: 1, back: 1, isLive: false }, "degraded", "the way back ended with code 1"],
    [{ code: null, back: null, isLive: true }, "degraded", "the way back was not heard of"],
  ] as const)("%j is %s", (facts, outcome, words) => {
    const end = judgeCommit(facts);
    expect(end.outcome).toBe(outcome);
    expect(end.reason).toContain(words);
  });
});

describe("the whole of it without the engine", () => {
  const wish = { onUnitFailure: "rollback", windowSeconds: 60, storePath: "/nix/store/new" } as const;
  const facts = { code: null, commit: null, back: null, isConfirmed: false, rebootedInto: null };
  test.each([
    ["switch", { code: 0, isConfirmed: true, commit: 0 }, "succeeded", "it is live"],
    [
      "switch",
      { code: 0, isConfirmed: true, commit: 1, back: 0 },
      "rolled-back",
      "making it the default ended with code 1",
    ],
    // Confirmed, and then the way to the default was lost.
    ["switch", { code: 0, isConfirmed: true }, "degraded", "was not heard of any more"],
    ["test", { code: 0, isConfirmed: true }, "succeeded", "it is live"],
    ["test", { back: 0 }, "rolled-back", "was not heard of any more"],
    ["boot", { commit: 0 }, "succeeded", "at the next reboot"],
    ["boot", { commit: 1, back: 1 }, "degraded", "the way back ended with code 1"],
    ["switch", { rebootedInto: "/nix/store/old" }, "rolled-back", "booted anew meanwhile; it runs /nix/store/old"],
    ["switch", { rebootedInto: "/nix/store/new" }, "degraded", "it runs /nix/store/new"],
    ["boot", { rebootedInto: "/nix/store/old" }, "degraded", "it runs /nix/store/old"],
  ] as const)("%s with %j is %s", (method, changes, outcome, words) => {
    const end = judgePlain({ ...facts, ...changes }, { ...wish, method });
    expect(end.outcome).toBe(outcome);
    expect(end.reason).toContain(words);
  });
});

test("profiles of others are theirs", () => {
  expect(resolveFarProfile("tools", probeOf())).toBe("/home/alice/.local/state/nix/profiles/tools");
  expect(resolveFarProfile("tools", probeOf({ uid: 0 }))).toBe("/nix/var/nix/profiles/tools");
  expect(isProfileOfRoot("/nix/var/nix/profiles/system", probeOf())).toBe(true);
  expect(isProfileOfRoot("/nix/var/nix/profiles/per-user/alice/x", probeOf())).toBe(false);
  expect(isProfileOfRoot("/nix/var/nix/profiles/per-user/bob/x", probeOf())).toBe(true);
  expect(isProfileOfRoot("/home/alice/x", probeOf())).toBe(false);
});

test("a program goes only where it can run", () => {
  expect(fitsPlatform(probeOf(), { platform: "linux", arch: "x64" })).toBe(true);
  expect(fitsPlatform(probeOf({ machine: "aarch64" }), { platform: "linux", arch: "x64" })).toBe(false);
  expect(fitsPlatform(probeOf({ kernel: "Darwin", machine: "arm64" }), { platform: "darwin", arch: "arm64" })).toBe(
    true,
  );
});

test("keys are called after their machine", () => {
  expect(signingKeyName("nuc.example.org")).toBe("nuc.example.org-copy-1");
  expect(signingKeyName("ñ :x\n")).toBe("x-copy-1");
  expect(signingKeyName("::")).toBe("nixdeploy-copy-1");
});

test("the failures of several hosts become one, which is as bad as they all are", () => {
  const failed = (host: string, kind: "unreachable" | "denied") =>
    ({ kind: "failed", host, error: new NixdeployError(kind, `cannot reach ${host}: why`) }) as const;
  const done = { kind: "done", host: "c", result: null } as const;
  expect(summarizeFailures("copy to", [done])).toBeNull();
  const only = failed("a", "denied");
  expect(summarizeFailures("copy to", [only])).toBe(only.error);
  const some = summarizeFailures("copy to", [failed("a", "unreachable"), failed("b", "unreachable"), done]);
  expect(some).toMatchObject({ kind: "unreachable", message: "cannot copy to 2 of 3 hosts: the others are done" });
  const mixed = summarizeFailures("copy to", [failed("a", "unreachable"), failed("b", "denied")]);
  expect(mixed).toMatchObject({ kind: "refused", details: ["a: cannot reach a: why", "b: cannot reach b: why"] });
});
