/** `nixdeploy serve`: the coordinator, its binary cache and its API in one process. */
import { resolve } from "node:path";
import { NixdeployError } from "../errors.ts";
import { parseTrustedProxies } from "../server/requests/peer-address.ts";
import { notifyServiceManager, watchdogIntervalMs } from "../service-notification.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { resolveDataDirectory } from "./command-line/directories.ts";

/** Looks behind, so that a long row of slashes elsewhere costs one look each, not one for all behind it. */
const TRAILING_SLASHES = /(?<!\/)\/+$/;
const DEFAULT_LISTEN = "127.0.0.1:8470";

export const command = defineNixdeployCommand({
  name: "serve",
  summary: "Run the coordinator, with its binary cache and API",
  details:
    "At its first start it makes the workspace and the cache `default` and writes an admin token to DATA_DIR/admin-token. " +
    "Agents and CI talk to its URL; behind a proxy, say what that is with --public-url.",
  examples: [
    {
      comment: "On a VPS, behind a proxy that speaks TLS",
      command: "nixdeploy serve --public-url https://deploy.example.org",
    },
    {
      comment: "With TLS of its own",
      command: "nixdeploy serve --listen 0.0.0.0:443 --tls-cert fullchain.pem --tls-key key.pem",
    },
  ],
  args: {
    listen: {
      type: "string",
      description: "Address and port; port 0 takes any free one",
      valueHint: "HOST:PORT",
      default: DEFAULT_LISTEN,
      parse: parseListen,
    },
    dataDir: {
      type: "string",
      description: "Where database, NAR files and keys are kept",
      valueHint: "DIR",
      parse: (text) => resolve(text),
    },
    publicUrl: {
      type: "string",
      description: "The URL that agents and CI reach it by",
      valueHint: "URL",
      parse: parsePublicUrl,
    },
    tlsCert: {
      type: "string",
      description: "PEM file with the certificate chain; read again when it changes",
      valueHint: "FILE",
    },
    tlsKey: { type: "string", description: "PEM file with its key", valueHint: "FILE" },
    keepAudit: { type: "duration", description: "How long the audit log keeps a line (default: 400d)" },
    trustedProxy: {
      type: "string",
      repeatable: true,
      description: "A proxy whose X-Forwarded-For says where a request comes from (default: this host's)",
      valueHint: "ADDRESS[/BITS]",
      parse: (text) => {
        parseTrustedProxies([text]);
        return text;
      },
    },
  },
  async run({ args, context }) {
    const { runServe } = await import("../server/serve.ts");
    await runServe({
      ...args.listen,
      dataDirectory: args.dataDir ?? resolveDataDirectory(context.env),
      tls: tlsFiles(args.tlsCert, args.tlsKey),
      publicUrl: args.publicUrl ?? null,
      env: context.env,
      clock: context.clock,
      random: context.random,
      log: context.log,
      signal: context.signal,
      onReady: async (url) => {
        await context.stdout.write(context.json ? `${JSON.stringify({ url })}\n` : `coordinator ready: ${url}\n`);
        notifyServiceManager({ state: "ready", environment: context.env, log: context.log });
      },
      onBeat: createHeartbeat(context),
      ...(args.keepAudit === undefined ? {} : { keepAuditMs: args.keepAudit }),
      ...(args.trustedProxy.length === 0 ? {} : { trustedProxies: parseTrustedProxies(args.trustedProxy) }),
      onStopping: () => notifyServiceManager({ state: "stopping", environment: context.env, log: context.log }),
    });
  },
});

/** Tells the service manager now and then, if it wants to know, that this process moves. */
function createHeartbeat({ env, log, clock }: CommandContext): () => void {
  const everyMs = watchdogIntervalMs(env, process.pid);
  let lastMs = Number.NEGATIVE_INFINITY;
  return () => {
    if (everyMs === null || clock.monotonicMs() - lastMs < everyMs) return;
    lastMs = clock.monotonicMs();
    notifyServiceManager({ state: "alive", environment: env, log });
  };
}

function parseListen(text: string): { readonly hostname: string; readonly port: number } {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3] ?? Number.NaN);
  const hostname = match?.[1] ?? match?.[2];
  if (hostname === undefined || !(port <= 65_535))
    throw new Error("it must be HOST:PORT, such as 0.0.0.0:8470 or [::]:8470");
  return { hostname: hostname === "" ? "0.0.0.0" : hostname, port };
}

function parsePublicUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw new Error("it must be an http or https URL, such as https://deploy.example.org");
  }
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new Error("it must have no user name, password, query or fragment");
  }
  return `${url.origin}${url.pathname}`.replace(TRAILING_SLASHES, "");
}

function tlsFiles(certFile: string | undefined, keyFile: string | undefined) {
  if (certFile === undefined && keyFile === undefined) return null;
  if (certFile === undefined || keyFile === undefined) {
    throw new NixdeployError("usage", "cannot serve TLS: --tls-cert and --tls-key go together");
  }
  return { certFile, keyFile };
}
