/**
 * Networks with a proxy, with the compiled binary: the coordinator's name is known to the proxy alone, so what arrives
 * went through it; and what NO_PROXY lists does not.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { makeCertificate, type TestCertificate } from "../support/certificates.ts";
import { startConnectProxy } from "../support/connect-proxy.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";

const HOST = "deploy.test";
const PROFILE = "/nix/var/nix/profiles/hello";
const LOGIN = "ci:top-secret";

let directory: TemporaryDirectory;
let certificate: TestCertificate;
let secure: Fleet;

beforeAll(async () => {
  directory = await createTemporaryDirectory("network-proxy");
  certificate = await makeCertificate(directory.path, [HOST]);
  const serveFlags = ["--tls-cert", certificate.certificateFile, "--tls-key", certificate.keyFile];
  secure = await createFleet("proxy-tls", { directory: join(directory.path, "fleet"), serveFlags });
}, 60_000);

afterAll(async () => {
  await secure[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
}, 30_000);

/** One connection for each kind of traffic, at least. */
function countLines(seen: readonly string[], line: RegExp): number {
  return seen.filter((each) => line.test(each)).length;
}

test("HTTPS_PROXY carries websocket, API, uploads and downloads by CONNECT, with an authority by either variable", async () => {
  const hosts = { [HOST]: Number(new URL(secure.coordinator.url).port) };
  await using ofDevice = await startConnectProxy({ hosts });
  await using ofCi = await startConnectProxy({ hosts, login: LOGIN });
  const url = `https://${HOST}`;
  const device = await secure.addDevice("laptop");
  const env = { HTTPS_PROXY: ofDevice.url, NIX_SSL_CERT_FILE: certificate.authorityFile };
  await secure.startAgent(device, { profile: "hello", url, env });
  expect(ofDevice.seen).toEqual([`CONNECT ${HOST}:443`]);

  const path = await secure.builder.build("profile", { name: "hello", version: "1" });
  const ci = { HTTPS_PROXY: ofCi.url.replace("//", `//${LOGIN}@`), SSL_CERT_FILE: certificate.authorityFile };
  await secure.expectRun(["push", path], { url, env: ci });
  const before = ofCi.seen.length;
  expect(before).toBeGreaterThan(0);
  await secure.expectRun(["activate", `laptop=${path}`], { url, env: ci });
  expect(ofCi.seen.length).toBeGreaterThan(before);
  expect(await device.link(PROFILE)).toBe(path);
  // The websocket has a connection of its own; the plan and the NARs may follow each other on one.
  expect(countLines(ofDevice.seen, /^CONNECT deploy\.test:443$/)).toBeGreaterThanOrEqual(2);
  expect(new Set([...ofDevice.seen, ...ofCi.seen])).toEqual(new Set([`CONNECT ${HOST}:443`]));
}, 90_000);

test("NO_PROXY is reached past the proxy", async () => {
  await using proxy = await startConnectProxy();
  const device = await secure.addDevice("direct");
  const env = { HTTPS_PROXY: proxy.url, NO_PROXY: "127.0.0.1", SSL_CERT_FILE: certificate.authorityFile };
  await secure.startAgent(device, { profile: "hello", env });
  const path = await secure.builder.build("profile", { name: "hello", version: "2" });
  await secure.expectRun(["push", path], { env });
  await secure.expectRun(["activate", `direct=${path}`], { env });
  expect(await device.link(PROFILE)).toBe(path);
  expect(proxy.seen).toEqual([]);
}, 60_000);

test("HTTP_PROXY carries an http:// coordinator by whole URLs, and its websocket by CONNECT", async () => {
  await using fleet = await createFleet("proxy-plain");
  const hosts = { [HOST]: Number(new URL(fleet.coordinator.url).port) };
  await using proxy = await startConnectProxy({ hosts });
  const url = `http://${HOST}`;
  const env = { HTTP_PROXY: proxy.url };
  const device = await fleet.addDevice("laptop");
  await fleet.startAgent(device, { profile: "hello", url, env });
  expect(proxy.seen).toEqual([`CONNECT ${HOST}:80`]);
  const path = await fleet.builder.build("profile", { name: "hello", version: "1" });
  await fleet.expectRun(["push", path], { url, env });
  await fleet.expectRun(["activate", `laptop=${path}`], { url, env });
  expect(await device.link(PROFILE)).toBe(path);
  expect(countLines(proxy.seen, /^POST http:\/\/deploy\.test\/api\/v1\/caches\/default\/missing$/)).toBe(1);
  expect(countLines(proxy.seen, /^POST http:\/\/deploy\.test\/api\/v1\/caches\/default\/plan$/)).toBe(1);
  expect(countLines(proxy.seen, /^GET http:\/\/deploy\.test\/cache\/default\/nar\/\w+\.nar\.zst$/)).toBeGreaterThan(0);
}, 90_000);

describe("what goes wrong says where, ends with 75, and shows no password", () => {
  const status = (env: Readonly<Record<string, string>>) =>
    secure.run(["status"], { url: `https://${HOST}`, env: { SSL_CERT_FILE: certificate.authorityFile, ...env } });

  test("a proxy that wants another login", async () => {
    await using proxy = await startConnectProxy({ login: "somebody:else" });
    const refused = await status({ HTTPS_PROXY: proxy.url.replace("//", `//${LOGIN}@`) });
    expect(refused.exitCode).toBe(75);
    expect(refused.stderr).toContain(
      `https://${HOST} through the proxy ${proxy.url}: the proxy answered with status 407`,
    );
    expect(refused.stderr).toContain("http://USER:PASSWORD@");
    expect(refused.stderr).not.toContain("top-secret");
  });

  test("a proxy that is not there", async () => {
    const refused = await status({ HTTPS_PROXY: `http://${LOGIN}@127.0.0.1:1` });
    expect(refused.exitCode).toBe(75);
    expect(refused.stderr).toContain("through the proxy http://127.0.0.1:1: the connection was refused");
    expect(refused.stderr).toContain("NO_PROXY");
    expect(refused.stderr).not.toContain("top-secret");
  }, 30_000);

  test("an authority that nobody named", async () => {
    const refused = await secure.run(["status"]);
    expect(refused.exitCode).toBe(75);
    expect(refused.stderr).toContain("its certificate is not trusted");
    expect(refused.stderr).toContain("NIX_SSL_CERT_FILE");
  });

  test("an agent behind a proxy that refuses says so and tries again", async () => {
    await using proxy = await startConnectProxy({ login: "somebody:else" });
    const device = await secure.addDevice("shut-out");
    const env = { HTTPS_PROXY: proxy.url };
    const agent = await secure.startAgent(device, { url: `https://${HOST}`, env, awaitConnection: false });
    await agent.waitForLine(/through the proxy \S+: the proxy answered with status 407 .*trying again/);
  }, 30_000);
});
