/** What tests of the HTTP client share: clients without an environment, servers on loopback, failures without secrets. */
import { expect } from "bun:test";
import { createServer, type Socket } from "node:net";
import { z } from "zod";
import type { NixdeployError } from "../../src/errors.ts";
import { createHttpClient, type HttpClientOptions } from "../../src/http/client.ts";
import { type Clock, systemClock, systemRandom } from "../../src/runtime.ts";
import { failureOf as plainFailureOf } from "./failure.ts";

export const TOKEN = "nd_admin_0123456789abcdef_secretsecret";
export const ANSWER = z.object({ ok: z.boolean() });
export const never = new AbortController().signal;

export function createClient(options: Partial<HttpClientOptions> = {}) {
  return createHttpClient({ userAgent: "test/1", env: {}, clock: systemClock, random: systemRandom, ...options });
}

/** Does not wait between two tries, but notes how long it should have. Deadlines, which are longer, stay. */
export function createImpatientClock(): Clock & { readonly waits: number[] } {
  const waits: number[] = [];
  const sleep: Clock["sleep"] = async (durationMs, signal) =>
    durationMs > 5_000 ? await systemClock.sleep(durationMs, signal) : void waits.push(durationMs);
  return { ...systemClock, waits, sleep };
}

export function serve(handle: (request: Request) => Response | Promise<Response>) {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: handle });
  return { url: server.url.href, server, [Symbol.asyncDispose]: () => server.stop(true) };
}

/** Sends each answer as it is, then closes, or falls silent. */
export async function serveRaw(answer: string, { isOpen }: { readonly isOpen: boolean } = { isOpen: false }) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.once("data", () => (isOpen ? socket.write(answer) : socket.end(answer)));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" ? address?.port : 0;
  return {
    url: `http://127.0.0.1:${port}/`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) {
        socket.destroy();
      }
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** What is said must not hold a secret. */
export async function failureOf(running: Promise<unknown>): Promise<NixdeployError> {
  const error = await plainFailureOf(running);
  const everything = `${error.message} ${error.hint} ${error.details.join(" ")} ${String(error.cause)}`;
  expect(everything).not.toContain("secretsecret");
  return error;
}

export async function collect(body: AsyncIterable<Uint8Array>): Promise<string> {
  return Buffer.concat(await Array.fromAsync(body)).toString();
}
