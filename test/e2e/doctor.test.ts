/** `nixdeploy doctor` with the compiled binary: on a device, in CI, on the coordinator's host, and where things are wrong. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { makeCertificate } from "../support/certificates.ts";
import type { Device } from "../support/device.ts";
import { BINARY, type CliOptions, createFleet, type Fleet } from "../support/fleet.ts";
import type { RunResult } from "../support/processes.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";

const reportSchema = z.object({
  ok: z.boolean(),
  findings: z.array(
    z.object({
      group: z.string(),
      check: z.string(),
      verdict: z.enum(["ok", "warning", "fault", "skipped"]),
      message: z.string(),
      hint: z.string().nullable(),
    }),
  ),
});

let fleet: Fleet;
let nuc: Device;

beforeAll(async () => {
  fleet = await createFleet("doctor");
  nuc = await fleet.addDevice("nuc", await fleet.builder.build("system", { name: "nuc", version: "0" }));
  await fleet.startAgent(nuc);
}, 60_000);
afterAll(async () => await fleet[Symbol.asyncDispose](), 30_000);

/** The findings, `group.check verdict` with all messages and hints of the check behind it. */
async function examine(words: readonly string[], options: CliOptions = {}) {
  return read(await fleet.run(["doctor", ...words, "--json"], options));
}

function read({ exitCode, stdout }: RunResult) {
  const report = reportSchema.parse(JSON.parse(stdout));
  expect([exitCode, report.ok]).toEqual(report.ok ? [0, true] : [1, false]);
  for (const { verdict, hint } of report.findings) {
    expect(hint !== null).toBe(verdict === "warning" || verdict === "fault");
  }
  const of = (name: string) => report.findings.filter(({ group, check }) => `${group}.${check}` === name);
  return {
    bad: report.findings.filter(({ verdict }) => verdict === "fault").map(({ group, check }) => `${group}.${check}`),
    verdict: (name: string) =>
      of(name)
        .map(({ verdict }) => verdict)
        .join(" "),
    text: (name: string) =>
      of(name)
        .map(({ message, hint }) => `${message} ${hint ?? ""}`)
        .join("\n"),
  };
}

test("a CI machine that can do its job", async () => {
  const system = await fleet.builder.build("system", { name: "nuc", version: "1" });
  await fleet.expectRun(["push", system]);
  await fleet.expectRun(["activate", `nuc=${system}`]);
  const tokens = {
    NIXDEPLOY_PUSH_TOKEN: await fleet.makeToken("push"),
    NIXDEPLOY_ACTIVATE_TOKEN: await fleet.makeToken("activate"),
  };
  const found = await examine([], { env: { CI: "true", ...tokens } });
  expect(found.bad).toEqual([]);
  expect(found.text("coordinator.token")).toContain("NIXDEPLOY_PUSH_TOKEN: kind push, workspace default");
  expect(found.text("coordinator.token")).toContain("whoever can change the CI");
  expect(found.text("coordinator.signature")).toContain(`${system} is signed by default-`);
  expect(found.verdict("coordinator.clock")).toBe("ok");
  expect(found.verdict("nix.daemon")).toBe("ok");
  expect(found.verdict("ci.variables")).toBe("ok ok ok");

  const wrong = await examine([], { env: { CI: "true", NIXDEPLOY_PUSH_TOKEN: tokens.NIXDEPLOY_ACTIVATE_TOKEN } });
  expect(wrong.bad).toEqual(["coordinator.token"]);
  expect(wrong.text("coordinator.token")).toContain("it takes one of kind push");
});

describe("a device", () => {
  test("its agent, key, pins and journals, without a token or an address of its own", async () => {
    const words = [BINARY, "doctor", "--json"];
    const found = read(await nuc.exec(words));
    expect(found.bad).toEqual([]);
    expect(found.text("coordinator.url")).toContain("(the agent nuc)");
    expect(found.text("agent.nuc enrolment")).toContain("admitted to the workspace default");
    expect(found.text("agent.nuc enrolment")).toContain("pinned: default-");
    expect(found.verdict("agent.nuc key")).toBe("ok");
    expect(found.verdict("agent.nuc journals")).toBe("ok");
  });

  test("a key that others may read, and an agent that is not there", async () => {
    const key = nuc.hostPath("/var/lib/nixdeploy/agents/nuc/key");
    await chmod(key, 0o644);
    const found = await examine(["--only", "agent"], { machine: nuc });
    expect(found.bad).toEqual(["agent.nuc key"]);
    expect(found.text("agent.nuc key")).toContain("chmod 600");
    expect(((await stat(key)).mode & 0o777).toString(8)).toBe("644");
    await chmod(key, 0o600);
    const none = await fleet.run(["doctor", "--name", "nobody"], { machine: nuc });
    expect([none.exitCode, none.stderr]).toEqual([1, expect.stringContaining("there is none")]);
  });
});

describe("the coordinator's host", () => {
  test("backups, open files and the database, while it serves and when it does not", async () => {
    const words = ["--data-dir", fleet.coordinator.dataDirectory, "--only", "server"];
    const before = await examine(words);
    expect(before.bad).toEqual([]);
    expect(before.text("server.backup")).toContain("no backup was ever made");
    expect(before.verdict("server.database")).toBe("ok");
    expect(before.text("server.files")).toContain("for 1 agent and");
    const file = join(fleet.directory, "backup.db");
    await fleet.expectRun(["backup", file, "--data-dir", fleet.coordinator.dataDirectory]);
    expect((await examine(words)).text("server.backup")).toContain(`(${file})`);
    await fleet.coordinator.stop();
    const stopped = await examine(words);
    expect(stopped.bad).toEqual([]);
    expect(stopped.text("server.ready")).toContain("does not run");
    await fleet.coordinator.restart();
  });

  test("a damaged database, open to others", async () => {
    await using directory = await createTemporaryDirectory("doctor");
    const database = directory.join("coordinator.db");
    await fleet.expectRun(["backup", database, "--data-dir", fleet.coordinator.dataDirectory]);
    const bytes = await readFile(database);
    bytes.fill(0xa5, 3 * 4096, 6 * 4096);
    await Bun.write(database, bytes);
    await chmod(directory.path, 0o755);
    const found = await examine(["--data-dir", directory.path, "--only", "server"]);
    expect(found.bad.sort()).toEqual(["server.database", "server.directory"]);
    expect(found.text("server.database")).toContain("nixdeploy restore");
    expect((await readFile(database)).equals(bytes)).toBe(true);
  });
});

describe("the way there", () => {
  test("nobody there: said once", async () => {
    const found = await examine(["--only", "coordinator"], { url: "http://127.0.0.1:9" });
    expect(found.bad).toEqual(["coordinator.answer"]);
    expect(found.text("coordinator.answer")).toContain("the connection was refused");
  });

  test("a port that takes connections and says nothing does not hide the others", async () => {
    using silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const found = await examine(["--only", "coordinator", "--only", "nix"], { url: `http://127.0.0.1:${silent.port}` });
    expect(found.bad).toContain("coordinator.answer");
    expect(found.verdict("nix.daemon")).toBe("ok");
  });

  test("a certificate of an authority that is not known here, which ends soon", async () => {
    await using directory = await createTemporaryDirectory("doctor-tls");
    const { certificateFile, keyFile, authorityFile } = await makeCertificate(directory.path);
    await using server = Bun.serve({
      port: 0,
      tls: { cert: Bun.file(certificateFile), key: Bun.file(keyFile) },
      fetch: () => new Response("ok\n"),
    });
    const url = `https://localhost:${server.port}`;
    const strange = await examine(["--only", "coordinator.tls", "--only", "coordinator.answer"], { url });
    expect(strange.bad).toEqual(["coordinator.tls", "coordinator.answer"]);
    expect(strange.text("coordinator.tls")).toContain("SSL_CERT_FILE");
    const known = await examine(["--only", "coordinator.tls"], { url, env: { SSL_CERT_FILE: authorityFile } });
    expect(known.bad).toEqual([]);
    expect(known.text("coordinator.tls")).toContain("the certificate of localhost is good until");
  });

  test("a clock that is an hour off", async () => {
    await using server = Bun.serve({
      port: 0,
      fetch: () => new Response("ok\n", { headers: { date: new Date(Date.now() - 3_600_000).toUTCString() } }),
    });
    const found = await examine(["--only", "coordinator.clock"], { url: `http://127.0.0.1:${server.port}` });
    expect(found.bad).toEqual(["coordinator.clock"]);
    expect(found.text("coordinator.clock")).toContain("60 min ahead of");
  });
});

test("for people: a line each, what to do below, and the sum", async () => {
  const { stdout, stderr, exitCode } = await fleet.run(["doctor", "--only", "coordinator"], {
    token: await fleet.makeToken("agent"),
  });
  expect(exitCode).toBe(1);
  expect(stdout).toMatch(/^coordinator\n {2}ok +url +http:/);
  expect(stdout).toMatch(/\n {2}FAULT +token +NIXDEPLOY_TOKEN: kind agent.*\n +do: Make one there: /);
  expect(stderr).toContain("cannot call this sound: 1 fault, 0 warnings");
});

test("--only looks once at what is named twice, in the order of the names", async () => {
  const words = ["--only", "coordinator.answer", "--only", "coordinator.url", "--only", "coordinator.answer"];
  const { stdout } = await fleet.run(["doctor", ...words, "--json"]);
  expect(reportSchema.parse(JSON.parse(stdout)).findings.map(({ check }) => check)).toEqual(["answer", "url"]);
});

test.each([
  ["frobnicate", "The groups are"],
  ["nix.frob", "There are coordinator.url"],
])("--only %s", async (what, hint) => {
  const { exitCode, stderr } = await fleet.run(["doctor", "--only", what]);
  expect([exitCode, stderr]).toEqual([2, expect.stringContaining(hint)]);
});
