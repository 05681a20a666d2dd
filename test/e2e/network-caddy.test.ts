/**
 * A coordinator behind real Caddy, with the configurations of docs/caddy.md: TLS, websockets, streams that are not held back,
 * uploads in parts, ranges, a sub-path, and no coordinator behind it.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type Caddy, startCaddy } from "../support/caddy.ts";
import { makeCertificate, type TestCertificate } from "../support/certificates.ts";
import { addBigPath } from "../support/closure.ts";
import type { Device } from "../support/device.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { findFreePorts } from "../support/free-port.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";
import { expectVanillaNixReads } from "../support/vanilla-reader.ts";
import { waitFor } from "../support/wait-for.ts";

const PROFILE = "/nix/var/nix/profiles/hello";
const MEBIBYTE = 1024 * 1024;

let directory: TemporaryDirectory;
let certificate: TestCertificate;
let caddy: Caddy;
let fleet: Fleet;
let device: Device;
let ports: { readonly http: number; readonly https: number; readonly coordinator: number };
let address: { readonly public: string; readonly plain: string };
let trust: Readonly<Record<string, string>>;

beforeAll(async () => {
  directory = await createTemporaryDirectory("network-caddy");
  certificate = await makeCertificate(directory.path);
  trust = { SSL_CERT_FILE: certificate.authorityFile };
  const [http = 0, https = 0, coordinator = 0] = await findFreePorts(3);
  address = { public: `https://localhost:${https}`, plain: `http://localhost:${http}` };
  const serveFlags = ["--public-url", address.public];
  fleet = await createFleet("caddy", { directory: directory.join("fleet"), port: coordinator, serveFlags });
  ports = { http, https, coordinator };
  caddy = await startCaddy({ directory: directory.join("caddy"), certificate, ports, site: "whole host" });
  device = await fleet.addDevice("laptop");
  await fleet.startAgent(device, { profile: "hello", url: address.public, env: trust });
}, 400_000);

afterAll(async () => {
  await caddy[Symbol.asyncDispose]();
  await fleet[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
}, 30_000);

test("push in several parts, activate, log and download", async () => {
  const path = await addBigPath(fleet.builder, { name: "hello", sizeBytes: 20 * MEBIBYTE });
  const ci = { url: address.public, env: trust };
  await fleet.expectRun(["push", path], ci);
  const output = await fleet.expectRun(["activate", `laptop=${path}`, "--json"], ci);
  expect(rolloutResultSchema.parse(JSON.parse(output)).url).toStartWith(`${address.public}/`);
  expect(await device.link(PROFILE)).toBe(path);
  expect(await fleet.expectRun(["logs", "laptop"], ci)).toContain("succeeded");
  const seen = await caddy.requests();
  const parts = seen.filter((line) => line.startsWith("PUT /api/v1/caches/default/nars/"));
  expect(parts.length).toBeGreaterThan(1);
  expect(parts.filter((line) => !line.endsWith(" 200"))).toEqual([]);
  expect(seen.some((line) => /^GET \/cache\/default\/nar\/\S+ 200$/.test(line))).toBeTrue();
}, 90_000);

test("where a request comes from is known behind it", async () => {
  const token = await fleet.makeToken("admin");
  const forged = { authorization: `Bearer ${token}`, "x-forwarded-for": "203.0.113.9" };
  const tls = { ca: await Bun.file(certificate.authorityFile).text() };
  const json = JSON.stringify({ kind: "read", description: "from where?" });
  const init = { method: "POST", body: json, headers: { ...forged, "content-type": "application/json" }, tls };
  expect((await fetch(`${address.public}/api/v1/tokens`, init)).status).toBe(201);
  const audit = await fleet.expectRun(["audit", "--json"], { env: trust });
  expect(audit).toMatch(/127\.0\.0\.1|::1/);
  expect(audit).not.toContain("203.0.113.9");
});

test("a stream is passed on line by line while it goes on", async () => {
  const follower = await fleet.start(["events"], { url: address.public, env: trust });
  let isOver = false;
  void follower.exited.finally(() => {
    isOver = true;
  });
  const path = await fleet.builder.build("profile", { name: "hello", version: "live" });
  await fleet.expectRun(["push", path], { env: trust });
  // The stream never ends, so what is seen was not held back. It may have begun behind the first deployment.
  await waitFor("news of a deployment", async () => {
    await fleet.expectRun(["activate", `laptop=${path}`], { env: trust });
    return follower.output().includes("succeeded");
  });
  expect(isOver).toBeFalse();
  await follower.stop();
}, 60_000);

test("ranges of a file, as a download that is taken up again asks for them", async () => {
  const path = await fleet.builder.build("app", { name: "tool", version: "range" });
  await fleet.expectRun(["push", path], { env: trust });
  const tls = { ca: await Bun.file(certificate.authorityFile).text() };
  const headers = { authorization: `Bearer ${await fleet.makeToken("read")}` };
  const cache = `${address.public}/cache/default`;
  const hashPart = path.slice("/nix/store/".length).split("-")[0];
  const narInfo = await (await fetch(`${cache}/${hashPart}.narinfo`, { headers, tls })).text();
  const url = `${cache}/${/^URL: (.*)$/m.exec(narInfo)?.[1]}`;
  const whole = new Uint8Array(await (await fetch(url, { headers, tls })).arrayBuffer());
  const part = await fetch(url, { headers: { ...headers, range: "bytes=100-" }, tls });
  expect([part.status, part.headers.get("content-range")]).toEqual([
    206,
    `bytes 100-${whole.length - 1}/${whole.length}`,
  ]);
  expect(new Uint8Array(await part.arrayBuffer())).toEqual(whole.subarray(100));
}, 30_000);

test("vanilla Nix reads the cache", async () => {
  const way = { publicUrl: address.public, authorityFile: certificate.authorityFile, env: trust };
  await expectVanillaNixReads(fleet, way);
}, 60_000);

test("http:// where https:// is meant: the redirect says which address it should have been", async () => {
  const refused = await fleet.run(["status"], { url: address.plain, env: trust });
  expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining("Is https://localhost")]);
}, 30_000);

describe("below a path, and without a coordinator", () => {
  test("commands and agents work; without it they say 502, and come back", async () => {
    const [http = 0, https = 0] = await findFreePorts(2);
    const other = { ...ports, http, https };
    await using below = await startCaddy({
      directory: directory.join("below"),
      certificate,
      ports: other,
      site: "path",
    });
    const url = `https://localhost:${https}/deploy`;
    expect((await fleet.run(["status"], { url, env: trust })).exitCode).toBe(0);
    expect(await below.requests()).toContain("GET /deploy/api/v1/status 200");
    const agent = await fleet.startAgent(await fleet.addDevice("below"), { profile: "hello", url, env: trust });
    await fleet.coordinator.stop();
    const refused = await fleet.run(["status"], { url, env: trust });
    expect([refused.exitCode, refused.stderr]).toEqual([75, expect.stringContaining("HTTP 502")]);
    const from = agent.lines.length;
    await fleet.coordinator.restart();
    await agent.waitForLine(/^connected to/, { from, timeoutMs: 60_000 });
  }, 90_000);
});
