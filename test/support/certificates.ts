/** A certificate authority that lives as long as a test, made by the openssl of the system. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runChecked } from "./processes.ts";

export type TestCertificate = {
  /** PEM files. */
  readonly authorityFile: string;
  readonly certificateFile: string;
  readonly keyFile: string;
};

const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/** A certificate for loopback and for `names`, signed by an authority of its own. */
export async function makeCertificate(directory: string, names: readonly string[] = []): Promise<TestCertificate> {
  const file = (name: string) => join(directory, name);
  const openssl = (...words: readonly string[]) => runChecked(["openssl", ...words], { cwd: directory });
  const subjects = [...["localhost", ...names].map((name) => `DNS:${name}`), "IP:127.0.0.1", "IP:::1"];
  await writeFile(file("extensions"), `subjectAltName=${subjects.join(",")}\n`);
  const authority = ["-keyout", "authority.key", "-out", "authority.pem", "-subj", "/CN=An authority for a test"];
  await openssl("req", "-x509", ...KEY, ...authority, "-days", "2");
  await openssl("req", ...KEY, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=a server of a test");
  const signer = ["-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial", "-extfile", "extensions"];
  await openssl("x509", "-req", "-in", "server.csr", ...signer, "-days", "2", "-out", "server.pem");
  return { authorityFile: file("authority.pem"), certificateFile: file("server.pem"), keyFile: file("server.key") };
}
