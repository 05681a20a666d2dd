/**
 * `spec` and `healthChecks` of nix/lib, by real Nix: what it makes is what `nixdeploy activate` reads, and what that
 * would refuse is refused at evaluation, all faults at once.
 */
import { beforeAll, describe, expect, test } from "bun:test";
import { parseSpec } from "../../src/client/spec/spec.ts";
import { evaluate, libExpression, NIX_LIBS } from "../support/nix-modules.ts";
import { ensureNixOf, NIX_SUITES, type NixSuite } from "../support/nix-versions.ts";
import { type RunResult, runProcess } from "../support/processes.ts";

const A = "/nix/store/9sda6dwcnjrg3v8sfl1q4gk7dn0hz3xm-nixos-system-nuc-1";
const B = "/nix/store/1rz4g4znpzjwh1xymhjpm42vipw92pr7-tools-2";
const bins = new Map<NixSuite, string>();

beforeAll(async () => {
  for (const suite of NIX_SUITES) bins.set(suite, (await ensureNixOf(suite)).binDirectory);
}, 300_000);

type Where = { readonly suite?: NixSuite; readonly libPath?: string };

/** Nothing is written: what is evaluated is not built. */
async function run(expression: string, { suite = "trixie", ...options }: Where = {}): Promise<RunResult> {
  const env = { NIX_REMOTE: "dummy://", PATH: `${bins.get(suite)}:/usr/bin:/bin` };
  return await runProcess(evaluate(libExpression(expression, options)), { env });
}

/** The text of the file that `spec` would write. */
async function textOf(options: string, where: Where = {}): Promise<string> {
  const { exitCode, stdout, stderr } = await run(`(lib.spec ${options}).text`, where);
  if (exitCode !== 0) throw new Error(stderr);
  return String(JSON.parse(stdout));
}

async function faultsOf(options: string, where: Where = {}): Promise<string> {
  const { exitCode, stderr } = await run(`(lib.spec ${options}).text`, where);
  expect(exitCode).toBe(1);
  return stderr.replaceAll("\u001b[31;1m", "").replaceAll("\u001b[0m", "");
}

/** As `nixosSystem` and its like return them, as far as a spec looks. */
const CONFIGURATIONS = `rec {
  nixos = path: name: { _type = "configuration"; class = "nixos"; options = { }; config = {
    system.build.toplevel = { type = "derivation"; outPath = path; name = "nixos-system"; };
    systemd.services."nixdeploy-agent-\${name}" = { };
  }; };
  darwin = path: { _type = "configuration"; class = "darwin"; options = { }; config.system.build.toplevel = path; system = path; };
  home = path: { activationPackage = { type = "derivation"; outPath = path; name = "home"; }; config = { }; options = { }; };
}`;

/** Every kind of value, every kind of check. */
const WHOLE = `(with ${CONFIGURATIONS}; {
  agents = { tools = "${B}"; nuc2 = nixos "${A}" "nuc2"; me = home "${A}"; };
  nixosConfigurations.nuc = nixos "${A}" "nuc";
  darwinConfigurations.mac = darwin "${A}";
  rollbackScript.x86_64-linux = "${B}";
  nixdeploy = {
    healthChecks = [ (lib.healthChecks.tcp { name = "ssh"; port = 22; }) ];
    agents.nuc.healthChecks = with lib.healthChecks; [
      (units { name = "nginx"; units = [ "nginx.service" "getty@tty1.service" "a\\\\x2db.mount" ]; })
      (http { name = "web"; url = "http://[::1]:8080/healthz?a=b@c"; status = [ 200 204 ]; timeoutSeconds = 0.5; attempts = 3; })
      (command { name = "smoke"; command = [ "${B}/bin/smoke" "--fast" "" ]; periodSeconds = 1; })
      (script { name = "text"; text = "true"; })
      { name = "v6"; kind = "tcp"; host = "fe80::1"; port = 65535; }
    ];
  };
})`;

describe("a spec of everything", () => {
  for (const suite of NIX_SUITES) {
    test(`is what activate reads (Nix of ${suite})`, async () => {
      const { spec, warnings } = parseSpec(await textOf(WHOLE, { suite }), "nixdeploy.json");
      expect(warnings).toEqual([]);
      expect(Object.fromEntries(spec.agents)).toEqual(
        Object.fromEntries([...["nuc", "nuc2", "mac", "me"].map((name) => [name, A]), ["tools", B]]) as never,
      );
      expect([...spec.rollbackScript]).toEqual([["x86_64-linux", B as never]]);
      expect(spec.healthChecks.forAll.map(({ name }) => name)).toEqual(["ssh"]);
      expect([...spec.healthChecks.byAgent.values()].flat().map(({ name }) => name)).toEqual(
        ["nginx", "web", "smoke", "text", "v6"], // In the order in which they are written.
      );
    });
  }

  test("is the same with every lib", async () => {
    const texts = await Promise.all(NIX_LIBS.map(({ path }) => textOf(WHOLE, { libPath: path })));
    expect(new Set(texts).size).toBe(1);
  });
});

test("a Cachix user's spec is the file that Cachix would have made", async () => {
  expect(JSON.parse(await textOf(`{ agents = { a = "${A}"; b = "${B}"; }; }`))).toEqual({ agents: { a: A, b: B } });
});

test("a configuration without its agent's unit is warned of, by the name that is missing", async () => {
  const { exitCode, stderr } = await run(`(lib.spec { agents.tv = (${CONFIGURATIONS}).nixos "${A}" "nuc"; }).text`);
  expect(exitCode).toBe(0);
  expect(stderr).toContain("no unit nixdeploy-agent-tv.service");
});

describe("what activate would refuse is refused at evaluation", () => {
  const check = (text: string) => `{ agents.nuc = "${A}"; nixdeploy.healthChecks = [ (${text}) ]; }`;
  const bad: readonly (readonly [what: string, options: string, said: string])[] = [
    ["no agents", "{ }", "it names no agent"],
    ["no set", "[ ]", "the spec is a list instead of a set"],
    ["agents is a list", `{ agents = [ "${A}" ]; }`, "agents is a list instead of a set"],
    ["a name with @", `{ agents."me@host" = "${A}"; }`, 'agents → "me@host": a name has'],
    ["a name that begins with a dot", `{ agents.".a" = "${A}"; }`, "a name has"],
    ["a name of 65", `{ agents."${"a".repeat(65)}" = "${A}"; }`, "a name has"],
    ["a file in a store path", `{ agents.nuc = "${A}/bin/x"; }`, "is no store path"],
    ["another folder", `{ agents.nuc = "/tmp/x"; }`, '"/tmp/x" is no store path'],
    ["a number", "{ agents.nuc = 1; }", "it is a number; expected a configuration"],
    ["a path of the source", "{ agents.nuc = ./.; }", "it is a path of the source"],
    [
      "all configurations in the place of one",
      `{ agents.nuc = { a = (${CONFIGURATIONS}).nixos "${A}" "a"; }; }`,
      "it is a set of configurations (a)",
    ],
    ["a name twice", `{ agents.a = "${A}"; darwinConfigurations.a = "${B}"; }`, '"a" is named twice'],
    ["a misspelt key", `{ agents.a = "${A}"; healthChecks = [ ]; }`, '"healthChecks" is not known'],
    ["a system that is none", `{ agents.a = "${A}"; rollbackScript.linux = "${B}"; }`, "it is no system"],
    ["a script that is none", `{ agents.a = "${A}"; rollbackScript.x86_64-linux = "x"; }`, '"x" is no store path'],
    ["an unknown agent", `{ agents.a = "${A}"; nixdeploy.agents.b = { }; }`, "there is no such agent"],
    ["an unknown setting", `{ agents.a = "${A}"; nixdeploy.agents.a.x = 1; }`, '"x" is not known'],
    ["an unknown key of ours", `{ agents.a = "${A}"; nixdeploy.x = 1; }`, '"x" is not known'],
    ["checks that are a set", `{ agents.a = "${A}"; nixdeploy.healthChecks = { }; }`, "it is a set instead of a list"],
    ["a check without a kind", check(`{ name = "a"; }`), 'healthChecks → 1 ("a") → kind: it is missing'],
    ["a check of no kind", check(`{ name = "a"; kind = "ping"; }`), "expected units, tcp, http or command"],
    ["a check without a name", check(`{ kind = "tcp"; port = 1; }`), "→ name: it is missing"],
    ["a misspelt check", check(`{ name = "a"; kind = "tcp"; port = 1; prot = 2; }`), "→ prot is not known here"],
    ["a port too large", check(`{ name = "a"; kind = "tcp"; port = 65536; }`), "expected a port"],
    ["a port of text", check(`{ name = "a"; kind = "tcp"; port = "22"; }`), "expected a port"],
    ["a host with a space", check(`{ name = "a"; kind = "tcp"; port = 2; host = "a b"; }`), "expected a host"],
    ["a URL with a login", check(`{ name = "a"; kind = "http"; url = "http://u:p@h/"; }`), "without a login"],
    ["a URL of a file", check(`{ name = "a"; kind = "http"; url = "file:///x"; }`), "expected an http: or https: URL"],
    ["a status of 99", check(`{ name = "a"; kind = "http"; url = "http://h/"; status = [ 99 ]; }`), "100 to 599"],
    ["no units", check(`{ name = "a"; kind = "units"; units = [ ]; }`), "a list of 1 to 100 units"],
    ["a unit without its kind", check(`{ name = "a"; kind = "units"; units = [ "nginx" ]; }`), "nginx.service"],
    [
      "a command of the device",
      check(`{ name = "a"; kind = "command"; command = [ "/bin/sh" ]; }`),
      "store path first",
    ],
    [
      "a command that leads out",
      check(`{ name = "a"; kind = "command"; command = [ "${A}/../x" ]; }`),
      "store path first",
    ],
    ["too slow", check(`{ name = "a"; kind = "tcp"; port = 2; timeoutSeconds = 3601; }`), "0.1 to 3600"],
    ["half a try", check(`{ name = "a"; kind = "tcp"; port = 2; attempts = 1.5; }`), "a whole number"],
    [
      "two of one name",
      `{ agents.a = "${A}"; nixdeploy = { healthChecks = [ { name = "x"; kind = "tcp"; port = 2; } ]; agents.a.healthChecks = [ { name = "x"; kind = "tcp"; port = 3; } ]; }; }`,
      'with those for all, two health checks are called "x"',
    ],
  ];
  for (const [what, options, said] of bad) {
    test(what, async () => {
      expect(await faultsOf(options)).toContain(said);
    });
  }

  test("all faults at once", async () => {
    const said = await faultsOf(`{ agents = { "@" = "${A}"; b = 1; }; x = 1; nixdeploy.y = 2; }`);
    expect(said.match(/^ *- /gm)).toHaveLength(4);
  });

  test("a helper says what is wrong where it stands", async () => {
    const { exitCode, stderr } = await run(`lib.healthChecks.http { name = "web"; }`);
    expect(exitCode).toBe(1);
    expect(stderr).toContain("healthChecks.http → 1 (");
    expect(stderr).toContain("url: it is missing");
  });
});
