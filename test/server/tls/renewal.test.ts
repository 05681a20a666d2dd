/** A renewed certificate is taken up while it serves: new connections get it, those that there are go on. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFile, mkdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { connect } from "node:tls";
import { AGENT_CONNECT_PATH } from "../../../src/protocol.ts";
import { type Listener, listen } from "../../../src/server/listener.ts";
import { type KeyPair, readKeyPair } from "../../../src/server/tls/key-pair.ts";
import { createRenewal } from "../../../src/server/tls/renewal.ts";
import { makeCertificate, type TestCertificate } from "../../support/certificates.ts";
import type { LoggedLine } from "../../support/coordinator.ts";
import { createTestCoordinator } from "../../support/coordinator.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../../support/temporary-directory.ts";
import { waitFor } from "../../support/wait-for.ts";

let folder: TemporaryDirectory;
let first: TestCertificate;
let second: TestCertificate;

beforeAll(async () => {
  folder = await createTemporaryDirectory("tls");
  [first, second] = await Promise.all([
    makeCertificate(await makeFolder("first")),
    makeCertificate(await makeFolder("second")),
  ]);
});
afterAll(async () => await folder[Symbol.asyncDispose]());

async function makeFolder(name: string): Promise<string> {
  await mkdir(folder.join(name));
  return folder.join(name);
}

const filesOf = ({ certificateFile, keyFile }: TestCertificate) => ({ certFile: certificateFile, keyFile });

/** The files that a coordinator is told of, as a client of an authority leaves them. */
async function install(certificate: TestCertificate, name: string) {
  const files = { certFile: folder.join(`${name}.pem`), keyFile: folder.join(`${name}.key`) };
  await copyFile(certificate.certificateFile, files.certFile);
  await copyFile(certificate.keyFile, files.keyFile);
  return files;
}

/** What a client learns of the certificate of a new connection. */
async function shown(listener: Listener): Promise<string> {
  const { port } = new URL(listener.url);
  const authorities = await Promise.all([first, second].map(({ authorityFile }) => readFile(authorityFile)));
  return await new Promise((resolve, reject) => {
    const socket = connect({ port: Number(port), host: "127.0.0.1", ca: authorities, servername: "localhost" }, () => {
      resolve(socket.getPeerCertificate().fingerprint256);
      socket.end();
    });
    socket.once("error", reject);
  });
}

async function fingerprintOf(certificate: TestCertificate): Promise<string> {
  const { X509Certificate } = await import("node:crypto");
  return new X509Certificate(await readFile(certificate.certificateFile)).fingerprint256;
}

describe("a listener that speaks TLS", () => {
  test("goes over to another certificate, and its connections go on", async () => {
    await using server = await createTestCoordinator();
    const [old, renewed] = await Promise.all([readKeyPair(filesOf(first)), readKeyPair(filesOf(second))]);
    const controlSocket = `${server.directory}/control.sock`;
    await using listener = listen(server.coordinator, { hostname: "127.0.0.1", port: 0, tls: old, controlSocket });
    expect(await shown(listener)).toBe(await fingerprintOf(first));
    const { url } = listener;
    const ca = await readFile(first.authorityFile, "utf8");
    const socket = new WebSocket(`${url.replace("https", "wss")}${AGENT_CONNECT_PATH}`, { tls: { ca } });
    const frames: string[] = [];
    let isClosed = false;
    socket.addEventListener("message", ({ data }) => frames.push(String(data)));
    socket.addEventListener("close", () => {
      isClosed = true;
    });
    await waitFor("the challenge", () => frames[0]);
    for (const [pair, certificate] of [
      [renewed, second],
      [old, first],
      [renewed, second],
    ] as const) {
      listener.replaceTls(pair);
      expect(await shown(listener)).toBe(await fingerprintOf(certificate));
    }
    expect(listener.url).toBe(url);
    // What the old connection says is heard: it is no hello.
    socket.send("nonsense");
    expect(await waitFor("an answer on the old connection", () => frames[1])).toContain("malformed");
    await waitFor("the end of the old connection", () => isClosed);
    const again = await fetch(`${url}/healthz`, { tls: { ca: await readFile(second.authorityFile, "utf8") } });
    expect(await again.text()).toBe("ok\n");
  });

  test("a port that another one has is not shared", async () => {
    await using server = await createTestCoordinator();
    const tls = await readKeyPair(filesOf(first));
    const at = (name: string, port: number) =>
      listen(server.coordinator, { hostname: "127.0.0.1", port, tls, controlSocket: `${server.directory}/${name}` });
    await using listener = at("one", 0);
    expect(() => at("two", Number(new URL(listener.url).port))).toThrow("it is in use");
  });
});

describe("renewal", () => {
  function watch(files: { readonly certFile: string; readonly keyFile: string }, current: KeyPair) {
    const used: KeyPair[] = [];
    const logged: LoggedLine[] = [];
    const at =
      (level: LoggedLine["level"]) =>
      (message: string, fields: LoggedLine["fields"] = {}) =>
        void logged.push({ level, message, fields });
    const log = { error: at("error"), warn: at("warn"), info: at("info"), debug: at("debug") };
    const renewal = createRenewal({ files, current, use: (pair) => void used.push(pair), log });
    return { ...renewal, used, logged };
  }

  test("takes a new pair once, and the same one never", async () => {
    const files = await install(first, "once");
    const renewal = watch(files, await readKeyPair(files));
    await renewal.check();
    // As a client does that writes the same again.
    await install(first, "once");
    await renewal.check();
    expect([renewal.used, renewal.logged]).toEqual([[], []]);
    await install(second, "once");
    for (let round = 0; round < 3; round += 1) await renewal.check();
    expect(renewal.used).toEqual([await readKeyPair(files)]);
    expect(renewal.logged).toMatchObject([{ level: "info", message: "TLS certificate replaced" }]);
  });

  test("sees what a symlink leads to", async () => {
    const [one, two] = [await install(first, "live-1"), await install(second, "live-2")];
    const files = { certFile: folder.join("live.pem"), keyFile: folder.join("live.key") };
    await symlink(one.certFile, files.certFile);
    await symlink(one.keyFile, files.keyFile);
    const renewal = watch(files, await readKeyPair(files));
    await renewal.check();
    for (const name of ["certFile", "keyFile"] as const) {
      await symlink(two[name], `${files[name]}.new`);
      await rename(`${files[name]}.new`, files[name]);
    }
    await renewal.check();
    expect(renewal.used).toEqual([await readKeyPair(filesOf(second))]);
  });

  const bad: readonly (readonly [
    what: string,
    spoil: (files: { certFile: string; keyFile: string }) => Promise<void>,
    says: string,
  ])[] = [
    [
      "half of it is new",
      async ({ certFile }) => copyFile(second.certificateFile, certFile),
      "is not that of the certificate",
    ],
    ["the key is no key", async ({ keyFile }) => writeFile(keyFile, "nonsense"), "it is no key in PEM form"],
    ["the certificate is empty", async ({ certFile }) => writeFile(certFile, ""), "it is no certificate in PEM form"],
    ["a file is gone", async ({ keyFile }) => rm(keyFile), "there is no such file"],
  ];
  for (const [what, spoil, says] of bad) {
    test(`${what}: the old one stays, that is said once, and the whole pair is taken later`, async () => {
      const files = await install(first, what.replaceAll(" ", "-"));
      const renewal = watch(files, await readKeyPair(files));
      await renewal.check();
      await spoil(files);
      for (let round = 0; round < 3; round += 1) await renewal.check();
      expect(renewal.used).toEqual([]);
      expect(renewal.logged).toMatchObject([{ level: "error", fields: { reason: expect.stringContaining(says) } }]);
      await install(second, what.replaceAll(" ", "-"));
      await renewal.check();
      expect(renewal.used).toHaveLength(1);
    });
  }

  test("a pair that the listener does not take is tried again", async () => {
    const files = await install(first, "refused");
    const logged: string[] = [];
    let isTaken = false;
    const renewal = createRenewal({
      files,
      current: await readKeyPair(filesOf(second)),
      use: () => {
        if (!isTaken) throw new Error("the port is busy");
      },
      log: { error: (text) => void logged.push(text), warn() {}, info: (text) => void logged.push(text), debug() {} },
    });
    await renewal.check();
    isTaken = true;
    await renewal.check();
    expect(logged).toEqual(["cannot take the new TLS certificate: the old one stays", "TLS certificate replaced"]);
  });
});
