/** Each judgement of the doctor, as a table: what is seen, the verdict, and that what is wrong says what to do. */
import { describe, expect, test } from "bun:test";
import type { Identity } from "../../src/api/tokens.ts";
import { detectCi, judgeVariables } from "../../src/doctor/ci-checks.ts";
import type { Finding, Verdict } from "../../src/doctor/finding.ts";
import {
  judgeCertificate,
  judgeClock,
  judgeToken,
  judgeUrl,
  type TokenUse,
} from "../../src/doctor/judge-coordinator.ts";
import {
  judgeBackup,
  judgeOpenFiles,
  judgePins,
  judgeRoom,
  judgeSecrecy,
  judgeTrust,
  judgeTrustedKeys,
} from "../../src/doctor/judge-machine.ts";
import {
  judgeAgentUnit,
  judgeServerUnit,
  judgeUndoUnit,
  parseUnit,
  type SeenUnit,
  type UnitAnswer,
} from "../../src/doctor/judge-units.ts";
import { parseTrustedKeys } from "../../src/doctor/nix-checks.ts";
import type { SeenCertificate } from "../../src/http/certificate.ts";
import type { TokenKind } from "../../src/token.ts";

const NOW_MS = Date.parse("2026-11-22T12:00:00Z");
const DAY_MS = 86_400_000;

function expectVerdict(finding: Finding | undefined, verdict: Verdict, text: string): void {
  expect(finding).toMatchObject({ verdict, message: expect.stringContaining(text) });
  const isBad = verdict === "warning" || verdict === "fault";
  expect(finding?.hint ?? "").toMatch(isBad ? /\w{3}/ : /^$/);
}

test.each<[string, Verdict]>([
  ["https://deploy.example.org", "ok"],
  ["http://127.0.0.1:8470", "ok"],
  ["http://localhost:8470", "ok"],
  ["http://[::1]:8470", "ok"],
  ["http://deploy.example.org", "warning"],
  ["http://localhost.example.org", "warning"],
])("address %s", (url, verdict) => expectVerdict(judgeUrl({ url, source: "--url" }), verdict, `${url} (--url)`));

test.each<[number, Verdict, string]>([
  [0, "ok", "agrees"],
  [31_000, "ok", "agrees"],
  [33_000, "warning", "31 s ahead of"],
  [-62_000, "warning", "60 s behind"],
  [302_000, "fault", "5 min ahead of"],
  [-400 * DAY_MS, "fault", "400 days behind"],
])("clock %d ms ahead, seen to 2 s", (aheadMs, verdict, text) => {
  expectVerdict(judgeClock({ hereMs: NOW_MS + aheadMs, thereMs: NOW_MS, errorMs: 2_000 }), verdict, text);
});

describe("certificates", () => {
  const good: SeenCertificate = {
    notBeforeMs: NOW_MS - 30 * DAY_MS,
    notAfterMs: NOW_MS + 60 * DAY_MS,
    issuer: "Example CA",
    nameFault: null,
    chainFault: null,
  };
  test.each<[string, Partial<SeenCertificate>, Verdict, string]>([
    ["good", {}, "ok", "good until 2027-01-21, by Example CA"],
    ["ends soon", { notAfterMs: NOW_MS + 13 * DAY_MS }, "warning", "good until 2026-12-05"],
    ["has ended", { notAfterMs: NOW_MS, chainFault: "CERT_HAS_EXPIRED" }, "fault", "ended on 2026-11-22"],
    ["not begun", { notBeforeMs: NOW_MS + DAY_MS, chainFault: "CERT_NOT_YET_VALID" }, "fault", "begins on 2026-11-23"],
    [
      "another name",
      { nameFault: "it names DNS:x", chainFault: "ERR_TLS_CERT_ALTNAME_INVALID" },
      "fault",
      "not for host",
    ],
    ["own authority", { chainFault: "SELF_SIGNED_CERT_IN_CHAIN" }, "fault", "(Example CA) is not trusted here"],
  ])("%s", (_, change, verdict, text) => {
    const findings = judgeCertificate({ ...good, ...change }, { host: "host", nowMs: NOW_MS });
    expect(findings).toHaveLength(1);
    expectVerdict(findings[0], verdict, text);
  });

  test("all that is wrong is said at once", () => {
    const bad = { ...good, notAfterMs: 0, nameFault: "it names DNS:x", chainFault: "DEPTH_ZERO_SELF_SIGNED_CERT" };
    expect(judgeCertificate(bad, { host: "host", nowMs: NOW_MS })).toHaveLength(3);
  });
});

describe("tokens", () => {
  const identityOf = (kind: TokenKind, expiresAtMs: number | null): Pick<Identity, "token"> => ({
    token: {
      ...{ id: "0123456789abcdef" as never, kind, workspace: "default" as never, description: "", createdAt: "" },
      ...{ lastUsedAt: null, revokedAt: null, agent: null, usesMax: null, uses: 0 },
      expiresAt: expiresAtMs === null ? null : new Date(expiresAtMs).toISOString(),
    },
  });
  test.each<[TokenUse, TokenKind, boolean, number | null, Verdict, string]>([
    ["push", "push", true, null, "ok", "kind push, workspace default, does not expire"],
    ["push", "activate", true, null, "fault", "it takes one of kind push"],
    ["push", "admin", false, null, "ok", "kind admin"],
    ["push", "admin", true, null, "warning", "whoever can change the CI"],
    ["activate", "read", false, null, "fault", "it takes one of kind activate"],
    ["agent", "agent", false, null, "ok", "kind agent"],
    ["agent", "admin", false, null, "fault", "it takes one of kind agent"],
    ["general", "agent", false, null, "fault", "for devices only"],
    ["general", "read", false, NOW_MS + 90 * DAY_MS, "ok", "expires on 2027-02-20"],
    ["general", "read", false, NOW_MS + 3 * DAY_MS, "warning", "expires on 2026-11-25"],
  ])("%s: of kind %s, CI %p, until %p", (use, kind, isCi, expiresAtMs, verdict, text) => {
    const about = { use, source: "HERE", isCi, nowMs: NOW_MS };
    expectVerdict(judgeToken(identityOf(kind, expiresAtMs), about), verdict, text);
  });
});

const KEY = "cache-1:AAAA";
const OTHER = "cache.nixos.org-1:BBBB";

test.each<[string, Finding, Verdict, string]>([
  ["room", judgeRoom("/x", { freeBytes: 5e9, totalBytes: 9e9 }, limits()), "ok", "/x: 5.0 GB of 9.0 GB free"],
  ["little room", judgeRoom("/x", { freeBytes: 99, totalBytes: 9e9 }, limits()), "warning", "99 B of"],
  ["no room", judgeRoom("/x", { freeBytes: 9, totalBytes: 9e9 }, limits()), "fault", "too little"],
  ["trusted", judgeTrust("trusted", who([], null)), "ok", "me is a trusted user"],
  ["old Nix", judgeTrust("unknown", who([], null)), "ok", "does not say"],
  ["not trusted", judgeTrust("not-trusted", who([KEY], [OTHER])), "warning", "me is no trusted user"],
  ["not trusted, nix.conf unknown", judgeTrust("not-trusted", who([KEY], null)), "warning", "me is no trusted user"],
  ["not trusted, key is", judgeTrust("not-trusted", who([KEY], [KEY])), "ok", "need not be"],
  ["key trusted", judgeTrustedKeys([KEY], [OTHER, KEY]), "ok", "trusts the cache's key cache-1"],
  ["key not trusted", judgeTrustedKeys([KEY], [OTHER]), "ok", "does not have the cache's key"],
  [
    "another key of that name",
    judgeTrustedKeys([KEY], ["cache-1:CCCC"]),
    "warning",
    "another key by the name of cache-1",
  ],
  ["no cache known", judgeTrustedKeys([], [OTHER]), "ok", "trusts cache.nixos.org-1"],
  ["pins", judgePins([KEY], [KEY]), "ok", KEY],
  ["pins, cache unknown", judgePins([KEY], []), "ok", KEY],
  ["other pins", judgePins([KEY], [OTHER]), "fault", "is not what the cache signs with"],
  ["no pins", judgePins([], [KEY]), "warning", "no cache key is pinned"],
  ["no backup", judgeBackup(null, NOW_MS), "warning", "no backup was ever made"],
  ["new backup", judgeBackup(backup(1), NOW_MS), "ok", "24 h old (/b)"],
  ["old backup", judgeBackup(backup(3), NOW_MS), "warning", "3 days old"],
  ["backup moved", judgeBackup({ ...backup(1), isThere: false }, NOW_MS), "warning", "not there any more"],
  ["files", judgeOpenFiles(65_536, 10_000), "ok", "65536 files"],
  ["few files", judgeOpenFiles(1_024, 3), "warning", "1024 files"],
  ["fewer files than agents", judgeOpenFiles(1_024, 2_000), "fault", "1024 files"],
  ["secret", judgeSecrecy("/k", 0o100600), "ok", "owner alone"],
  ["open to the group", judgeSecrecy("/k", 0o040750), "fault", "mode 750"],
])("%s", (_, finding, verdict, text) => expectVerdict(finding, verdict, text));

function limits() {
  return { warningBytes: 100, faultBytes: 10, hint: "Make room." };
}
function who(cacheKeys: readonly string[], trustedKeys: readonly string[] | null) {
  return { user: "me", cacheKeys, trustedKeys };
}
function backup(days: number) {
  return { file: "/b", atMs: NOW_MS - days * DAY_MS, isThere: true };
}

describe("units", () => {
  const seen = (change: Partial<SeenUnit>): UnitAnswer => ({
    kind: "found",
    unit: {
      ...{ name: "u", isUsers: false, load: "loaded", active: "active", sub: "running", command: "" },
      startedBy: ["multi-user.target"],
      ...change,
    },
  });
  const inactive = { active: "inactive", sub: "dead" };
  const none: UnitAnswer = { kind: "none" };
  const unknown: UnitAnswer = { kind: "unknown", why: "no systemd here" };
  const agent = (answer: UnitAnswer, runs = true) => judgeAgentUnit(answer, { name: "u", runs });
  const server = (answer: UnitAnswer, runs = true) => judgeServerUnit(answer, { name: "u", runs });
  test.each<[string, Finding, Verdict, string]>([
    ["it runs", agent(seen({})), "ok", "u runs, and is started at boot"],
    ["it runs, today", agent(seen({ startedBy: [] })), "warning", "nothing starts it at boot"],
    ["it failed", agent(seen({ active: "failed", sub: "failed" }), false), "fault", "u is failed"],
    ["it was stopped", agent(seen(inactive), false), "fault", "u is inactive"],
    ["it runs by something else", agent(seen(inactive)), "warning", "the agent runs, but not by u, which is inactive"],
    [
      "it is started again and again",
      agent(seen({ active: "activating", sub: "auto-restart" }), false),
      "fault",
      "u ends soon after each start",
    ],
    ["it is masked", agent(seen({ ...inactive, load: "masked" }), false), "fault", "u is masked"],
    [
      "its file is wrong",
      agent(seen({ ...inactive, load: "bad-setting" }), false),
      "fault",
      "cannot load u (bad-setting)",
    ],
    ["there is none, and it does not run", agent(none, false), "warning", "there is no unit u"],
    ["there is none, and it runs", agent(none), "ok", "runs, by another unit or by hand"],
    ["nobody says", agent(unknown, false), "skipped", "no systemd here; the agent does not run"],
    ["the coordinator runs", server(seen({})), "ok", "u runs, and is started at boot"],
    ["the coordinator failed", server(seen({ active: "failed" }), false), "fault", "u is failed"],
    ["the coordinator has none", server(none, false), "warning", "the coordinator does not run"],
    ["the way back", judgeUndoUnit(seen(inactive), "u"), "ok", "u is there for each boot"],
    [
      "no way back at boot",
      judgeUndoUnit(seen({ ...inactive, startedBy: [] }), "u"),
      "fault",
      "nothing starts u at boot",
    ],
    ["a masked way back", judgeUndoUnit(seen({ load: "masked" }), "u"), "fault", "u is masked"],
    ["no way back", judgeUndoUnit(none, "u"), "fault", "activations are refused"],
  ])("%s", (_, finding, verdict, text) => expectVerdict(finding, verdict, text));

  test("a user's own are asked for with --user", () => {
    expect(agent(seen({ active: "failed", isUsers: true }), false).hint).toBe(
      "See why: journalctl --user -u u -e; then: systemctl --user restart u",
    );
  });

  test("as systemd prints them", () => {
    const show = ["ExecStart={ path=/n ; argv[]=/n agent --name nuc ; }", "RequiredBy=", "WantedBy=a.target b.target"];
    const states = ["LoadState=loaded", "ActiveState=active", "SubState=running"];
    expect(parseUnit([...show, ...states, ""], { name: "u", isUsers: false })).toEqual({
      ...{ name: "u", isUsers: false, load: "loaded", active: "active", sub: "running" },
      ...{ startedBy: ["a.target", "b.target"], command: "{ path=/n ; argv[]=/n agent --name nuc ; }" },
    });
    expect(parseUnit(["LoadState=not-found"], { name: "u", isUsers: false })).toBeNull();
  });
});

test.each<[string, Record<string, string>, string | null, readonly (readonly [Verdict, string])[]]>([
  ["no CI", {}, null, []],
  ["CI=false", { CI: "false" }, null, []],
  [
    "all there",
    {
      GITHUB_ACTIONS: "true",
      CI: "true",
      NIXDEPLOY_URL: "x",
      NIXDEPLOY_PUSH_TOKEN: "x",
      NIXDEPLOY_ACTIVATE_TOKEN_FILE: "x",
    },
    "GitHub Actions",
    [
      ["ok", "GitHub Actions"],
      ["ok", "NIXDEPLOY_PUSH_TOKEN"],
      ["ok", "NIXDEPLOY_ACTIVATE_TOKEN"],
    ],
  ],
  [
    "a job that only pushes",
    { GITLAB_CI: "true", NIXDEPLOY_URL: "x", NIXDEPLOY_PUSH_TOKEN: "x" },
    "GitLab CI",
    [
      ["ok", "GitLab"],
      ["ok", "push"],
      ["skipped", "`activate` has no token here"],
    ],
  ],
  [
    "a pull request from a fork",
    { FORGEJO_ACTIONS: "true", GITHUB_ACTIONS: "true", NIXDEPLOY_URL: "x", NIXDEPLOY_TOKEN: "" },
    "Forgejo Actions",
    [
      ["ok", "Forgejo"],
      ["fault", "NIXDEPLOY_TOKEN: set, but empty"],
      ["ok", "push"],
      ["ok", "activate"],
    ],
  ],
  [
    "nothing there",
    { CI: "1" },
    "a CI",
    [
      ...([
        ["ok", "a CI"],
        ["fault", "NIXDEPLOY_URL is not set"],
        ["skipped", "push"],
        ["skipped", "activate"],
      ] as const),
      ["fault", "no token at all"],
    ],
  ],
])("CI variables: %s", (_, environment, system, expected) => {
  expect(detectCi(environment)).toBe(system);
  const found = system === null ? [] : judgeVariables(environment, system);
  expect(found).toHaveLength(expected.length);
  for (const [index, [verdict, text]] of expected.entries()) expectVerdict(found[index], verdict, text);
});

test("what programs print", () => {
  const config = ["substituters = a b", `trusted-public-keys = ${OTHER}  ${KEY}`, "trusted-users = root"];
  expect(parseTrustedKeys(config)).toEqual([OTHER, KEY]);
  expect(parseTrustedKeys(["trusted-public-keys = "])).toEqual([]);
  expect(parseTrustedKeys([])).toEqual([]);
});
