/**
 * A coordinator behind real nginx, with the configuration of docs/nginx.md: TLS, a sub-path, and what happens where
 * nginx cuts idle connections, or something else answers.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { makeCertificate, type TestCertificate } from "../support/certificates.ts";
import { addBigPath } from "../support/closure.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { findFreePorts } from "../support/free-port.ts";
import { type Nginx, startNginx } from "../support/nginx.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";
import { expectVanillaNixReads } from "../support/vanilla-reader.ts";
import { waitFor } from "../support/wait-for.ts";

const PROFILE = "/nix/var/nix/profiles/hello";
const MEBIBYTE = 1024 * 1024;

let directory: TemporaryDirectory;
let certificate: TestCertificate;
let nginx: Nginx;
let fleet: Fleet;
let address: { readonly public: string; readonly plain: string };
let trust: Readonly<Record<string, string>>;

beforeAll(async () => {
  directory = await createTemporaryDirectory("network-nginx");
  certificate = await makeCertificate(directory.path);
  trust = { SSL_CERT_FILE: certificate.authorityFile };
  const [http = 0, https = 0, coordinator = 0] = await findFreePorts(3);
  address = { public: `https://localhost:${https}/deploy`, plain: `http://localhost:${http}/deploy` };
  const serveFlags = ["--public-url", `${address.public}/`];
  fleet = await createFleet("nginx", { directory: directory.join("fleet"), port: coordinator, serveFlags });
  nginx = await startNginx({ directory: directory.join("nginx"), certificate, ports: { http, https, coordinator } });
}, 120_000);

afterAll(async () => {
  await nginx[Symbol.asyncDispose]();
  await fleet[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
}, 30_000);

describe("under a sub-path, with TLS", () => {
  test("push in several parts, activate, log and download, with and without a slash at the end of the URL", async () => {
    expect(fleet.coordinator.url).toBe(address.public);
    const device = await fleet.addDevice("laptop");
    await fleet.startAgent(device, { profile: "hello", url: address.public, env: trust });
    const path = await addBigPath(fleet.builder, { name: "hello", sizeBytes: 20 * MEBIBYTE });
    const ci = { url: `${address.public}/`, env: trust };
    await fleet.expectRun(["push", path], ci);
    const output = await fleet.expectRun(["activate", `laptop=${path}`, "--json"], ci);
    expect(rolloutResultSchema.parse(JSON.parse(output)).url).toStartWith(`${address.public}/`);
    expect(await device.link(PROFILE)).toBe(path);
    expect(await fleet.expectRun(["logs", "laptop"], ci)).toContain("succeeded");
    const seen = await nginx.requests();
    const parts = seen.filter((line) => line.startsWith("PUT /deploy/api/v1/caches/default/nars/"));
    expect(parts.length).toBeGreaterThan(1);
    expect(parts.filter((line) => !line.endsWith(" 200"))).toEqual([]);
    expect(seen.some((line) => /^GET \/deploy\/cache\/default\/nar\/\S+ 200$/.test(line))).toBeTrue();
  }, 90_000);

  test("vanilla Nix reads the cache", async () => {
    const way = { publicUrl: address.public, authorityFile: certificate.authorityFile, env: trust };
    await expectVanillaNixReads(fleet, way);
  }, 60_000);
});

test("a proxy that cuts idle connections after 3 s: agent and activate are back each time, and nothing is lost", async () => {
  await nginx.reconfigure((text) => text.replace("proxy_http_version", "proxy_read_timeout 3s;\nproxy_http_version"));
  const device = await fleet.addDevice("cut-off");
  const agent = await fleet.startAgent(device, { profile: "hello", url: address.public, env: trust });
  await waitFor("three connections", () => agent.output().match(/^connected to/gm)?.length ?? 0, {
    timeoutMs: 40_000,
    until: (count) => count >= 3,
    describe: () => agent.output(),
  });
  // The agent is there and says nothing: neither it nor the coordinator has anything to tell activate.
  await agent.waitForLine(/^connected to/, { from: agent.lines.length, timeoutMs: 20_000 });
  agent.kill("SIGSTOP");
  const path = await fleet.builder.build("profile", { name: "hello", version: "3" });
  await fleet.expectRun(["push", path], { env: trust });
  const activate = await fleet.start(["activate", `cut-off=${path}`], { env: trust });
  await waitFor(
    "activate to follow again",
    async () => (await nginx.requests()).filter((line) => /\/rollouts\/\w+\/follow/.test(line)).length,
    { timeoutMs: 30_000, until: (count) => count >= 3, describe: () => activate.output() },
  );
  agent.kill("SIGCONT");
  const exit = await activate.exited;
  expect([exit.exitCode, activate.output()]).toEqual([0, expect.stringContaining("succeeded")]);
  expect(await device.link(PROFILE)).toBe(path);
}, 120_000);

describe("something else answers", () => {
  test("a login page", async () => {
    const page = "location /portal/ { default_type text/html; return 200 '<html>Please log in</html>'; }";
    await nginx.reconfigure((text) => text.replace("location /deploy/", `${page}\nlocation /deploy/`));
    const url = address.public.replace("/deploy", "/portal");
    const refused = await fleet.run(["status"], { url, env: trust });
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain("HTTP 200 (text/html), a web page");
    expect(refused.stderr).toContain("Is it a nixdeploy coordinator?");
    const device = await fleet.addDevice("guest");
    const agent = await fleet.startAgent(device, { url, env: trust, awaitConnection: false });
    await agent.waitForLine(/status 200 instead of a websocket \(Is it a nixdeploy coordinator\?.*trying again/);
  }, 30_000);

  test("http:// where https:// is meant: the redirect says which address it should have been", async () => {
    const refused = await fleet.run(["status"], { url: address.plain, env: trust });
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain(`Is ${address.public} the coordinator's address?`);
    const device = await fleet.addDevice("redirected");
    const agent = await fleet.startAgent(device, { url: address.plain, env: trust, awaitConnection: false });
    const [line] = await agent.waitForLine(/it redirects to .*trying again/);
    expect(line).toContain(`Is ${address.public} the coordinator's address?`);
  }, 30_000);

  test("a limit to uploads that is too small: what to raise", async () => {
    await nginx.reconfigure((text) => text.replace("client_max_body_size 32m", "client_max_body_size 1m"));
    const path = await addBigPath(fleet.builder, { name: "large", sizeBytes: 3 * MEBIBYTE });
    const refused = await fleet.run(["push", path], { url: address.public, env: trust });
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain("HTTP 413 (text/html), too large");
    expect(refused.stderr).toContain("client_max_body_size 32m");
  }, 30_000);

  test("no coordinator behind it: 75, and the words of the proxy", async () => {
    await nginx.reconfigure((text) =>
      text.replace(/proxy_pass http:\/\/127\.0\.0\.1:\d+/, "proxy_pass http://127.0.0.1:1"),
    );
    const refused = await fleet.run(["status"], { url: address.public, env: trust });
    expect(refused.exitCode).toBe(75);
    expect(refused.stderr).toContain("HTTP 502 (text/html)");
  }, 30_000);
});
