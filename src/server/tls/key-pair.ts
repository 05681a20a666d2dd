/** A certificate and its key from two PEM files, checked as far as it can be before anybody connects. */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { describeError, NixdeployError } from "../../errors.ts";

export type KeyPairFiles = { readonly certFile: string; readonly keyFile: string };

/** PEM texts. */
export type KeyPair = {
  readonly cert: string;
  readonly key: string;
  /** Of the server's own certificate. */
  readonly validUntilMs: number;
};

/** @throws NixdeployError `usage` for files that cannot be read, are something else or do not belong together */
export async function readKeyPair({ certFile, keyFile }: KeyPairFiles): Promise<KeyPair> {
  const certificate = await readPem(certFile, { what: "certificate", parse: (text) => new X509Certificate(text) });
  const privateKey = await readPem(keyFile, { what: "key", parse: createPrivateKey });
  if (!certificate.value.checkPrivateKey(privateKey.value)) {
    throw new NixdeployError(
      "usage",
      `cannot serve TLS: the key ${keyFile} is not that of the certificate ${certFile}`,
    );
  }
  return { cert: certificate.text, key: privateKey.text, validUntilMs: Date.parse(certificate.value.validTo) };
}

/** What tells that a file is another one, or was written again: of what it leads to, if it is a symlink. */
export async function readKeyPairMark({ certFile, keyFile }: KeyPairFiles): Promise<string> {
  const marks = [certFile, keyFile].map(async (file) => {
    try {
      const { dev, ino, size, mtimeMs, ctimeMs } = await stat(file);
      return [dev, ino, size, mtimeMs, ctimeMs].join(" ");
    } catch (error) {
      // Between two of its states, perhaps; reading it will say what is wrong.
      return describeError(error);
    }
  });
  return (await Promise.all(marks)).join("; ");
}

type Pem<Value extends X509Certificate | KeyObject> = {
  readonly what: string;
  readonly parse: (text: string) => Value;
};

/** Parsed here, because the listener would only say that something about TLS is wrong. */
async function readPem<Value extends X509Certificate | KeyObject>(file: string, { what, parse }: Pem<Value>) {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    throw new NixdeployError("usage", `cannot read the TLS ${what} ${file}: ${describeError(cause)}`, { cause });
  }
  try {
    return { text, value: parse(text) };
  } catch (cause) {
    // The library's text says less than this, and the file may be a secret.
    throw new NixdeployError("usage", `cannot use the TLS ${what} ${file}: it is no ${what} in PEM form`, {
      hint:
        what === "key"
          ? "The file begins with a line like -----BEGIN PRIVATE KEY-----, and must not be encrypted."
          : "The file begins with -----BEGIN CERTIFICATE-----: the server's own first, then those that signed it.",
      cause,
    });
  }
}
