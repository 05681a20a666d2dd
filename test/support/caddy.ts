/** Real Caddy with the very configurations that docs/caddy.md gives to users; only names, ports and the certificate are other ones. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { TestCertificate } from "./certificates.ts";
import { ensureDebianPackages } from "./debian.ts";
import { type SpawnedProcess, spawnProcess } from "./processes.ts";
import { waitFor } from "./wait-for.ts";

export type CaddyOptions = {
  readonly directory: string;
  readonly certificate: TestCertificate;
  readonly ports: { readonly http: number; readonly https: number; readonly coordinator: number };
  /** Which of the document's configurations: the first, or the one below a path. */
  readonly site: "whole host" | "path";
};

export type Caddy = AsyncDisposable & {
  readonly process: SpawnedProcess;
  /** One line for each request that has ended: `GET /api/v1/status 200`. */
  requests(): Promise<readonly string[]>;
};

const DOCUMENT = join(import.meta.dir, "../../docs/caddy.md");

export async function startCaddy(options: CaddyOptions): Promise<Caddy> {
  await ensureDebianPackages(["caddy"]);
  const { directory, ports } = options;
  await mkdir(directory, { recursive: true });
  const file = join(directory, "Caddyfile");
  const accessLog = join(directory, "access.log");
  await writeFile(file, wrap(await readSite(options), { accessLog, ports }));
  const command = ["/usr/bin/caddy", "run", "--config", file, "--adapter", "caddyfile"];
  // What it keeps is in this directory, not in the home of whoever runs the test.
  const process = spawnProcess(command, {
    env: { HOME: directory, XDG_DATA_HOME: directory, XDG_CONFIG_HOME: directory },
  });
  const answers = async () => {
    const answer = await fetch(`http://localhost:${ports.http}/`, { redirect: "manual" }).catch(() => null);
    return answer !== null;
  };
  await waitFor("caddy to answer", answers, { describe: () => process.output() });
  return {
    process,
    requests: async () => (await readFile(accessLog, "utf8")).trimEnd().split("\n").flatMap(readLine),
    async [Symbol.asyncDispose]() {
      await process.stop();
    },
  };
}

async function readSite({ certificate, ports, site }: CaddyOptions): Promise<string> {
  const blocks = [...(await readFile(DOCUMENT, "utf8")).matchAll(/```caddy\n(.*?)```/gs)].map(([, text = ""]) => text);
  const block = blocks[site === "whole host" ? 0 : 1];
  if (block === undefined) throw new Error(`${DOCUMENT} has no configuration for a ${site}`);
  const own = `log\n    tls ${certificate.certificateFile} ${certificate.keyFile}`;
  const changes: readonly (readonly [string, string])[] = [
    ["deploy.example.org {", `localhost {\n    ${own}`],
    ["127.0.0.1:8470", `127.0.0.1:${ports.coordinator}`],
  ];
  return changes.reduce((text, [from, to]) => {
    if (!text.includes(from)) throw new Error(`the configuration in ${DOCUMENT} has no "${from}"`);
    return text.replace(from, to);
  }, block);
}

/** Ports of our own, nothing that listens for orders, and a log that tests read. */
function wrap(
  site: string,
  { accessLog, ports }: Pick<CaddyOptions, "ports"> & { readonly accessLog: string },
): string {
  return `{
  admin off
  http_port ${ports.http}
  https_port ${ports.https}
  skip_install_trust
  log {
    output file ${accessLog}
    include http.log.access
    format json
  }
}
${site}`;
}

/** Nothing of lines that are about something else. */
function readLine(line: string): readonly string[] {
  const { request, status } = JSON.parse(line);
  return request === undefined ? [] : [`${request.method} ${request.uri} ${status}`];
}
