/** Speaks TLS for a server that does not: each connection goes on to it in the clear, byte by byte. */
import { readFile } from "node:fs/promises";
import { connect } from "node:net";
import { createServer } from "node:tls";
import type { TestCertificate } from "./certificates.ts";

export type TlsForward = AsyncDisposable & { readonly port: number };

/** On a free port of 127.0.0.1. */
export async function startTlsForward(certificate: TestCertificate, target: URL): Promise<TlsForward> {
  const [cert, key] = await Promise.all([readFile(certificate.certificateFile), readFile(certificate.keyFile)]);
  const server = createServer({ cert, key }, (client) => {
    const behind = connect(Number(target.port), target.hostname);
    const end = () => {
      client.destroy();
      behind.destroy();
    };
    for (const socket of [client, behind]) socket.on("error", end).on("close", end);
    client.pipe(behind).pipe(client);
  });
  server.on("tlsClientError", () => {
    // Who does not trust the certificate says so and leaves.
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the listener has no port");
  return { port: address.port, [Symbol.asyncDispose]: async () => void server.close() };
}
