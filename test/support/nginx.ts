/** Real nginx with the very configuration that docs/nginx.md gives to users; only ports and paths are other ones. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { TestCertificate } from "./certificates.ts";
import { ensureDebianPackages } from "./debian.ts";
import { runChecked, type SpawnedProcess, spawnProcess } from "./processes.ts";
import { waitFor } from "./wait-for.ts";

export type NginxOptions = {
  readonly directory: string;
  readonly certificate: TestCertificate;
  readonly ports: { readonly http: number; readonly https: number; readonly coordinator: number };
};

export type Nginx = AsyncDisposable & {
  readonly process: SpawnedProcess;
  /** One line for each request that has ended: `GET /deploy/api/v1/status 200`. */
  requests(): Promise<readonly string[]>;
  /** Changes the configuration of the document and makes nginx take it; open connections keep the one they had. */
  reconfigure(change: (configuration: string) => string): Promise<void>;
};

const UP = "return 204;";
const DOCUMENT = join(import.meta.dir, "../../docs/nginx.md");

export async function startNginx(options: NginxOptions): Promise<Nginx> {
  await ensureDebianPackages(["nginx-light"]);
  const { directory } = options;
  await mkdir(directory, { recursive: true });
  const file = join(directory, "nginx.conf");
  const accessLog = join(directory, "access.log");
  const site = await readSite(options);
  let generation = 0;
  const write = async (change: (configuration: string) => string) => {
    generation += 1;
    await writeFile(file, wrap(change(site).replace(UP, `return 200 "${generation}";`), directory, accessLog));
  };
  const taken = async () => {
    const url = `http://127.0.0.1:${options.ports.http}/up`;
    // Of several connections, because the workers before accept until they notice.
    const answer = async () => {
      const texts = new Set<string>();
      for (let n = 0; n < 20; n += 1) texts.add(await (await fetch(url, { keepalive: false })).text());
      return [...texts].join(" and ");
    };
    const until = (text: string) => text === String(generation);
    await waitFor("nginx to take its configuration", answer, { until, describe: () => process.output() });
  };
  await write((configuration) => configuration);
  const command = ["/usr/sbin/nginx", "-e", "stderr", "-p", directory, "-c", file];
  const process = spawnProcess([...command, "-g", "daemon off;"]);
  await taken();
  return {
    process,
    requests: async () => (await readFile(accessLog, "utf8")).trimEnd().split("\n"),
    async reconfigure(change) {
      await write(change);
      await runChecked([...command, "-s", "reload"]);
      await taken();
    },
    async [Symbol.asyncDispose]() {
      await process.stop();
    },
  };
}

async function readSite({ certificate, ports }: NginxOptions): Promise<string> {
  const block = /```nginx\n(.*?)```/s.exec(await readFile(DOCUMENT, "utf8"))?.[1];
  if (block === undefined) throw new Error(`${DOCUMENT} has no configuration`);
  const changes: readonly (readonly [string, string])[] = [
    ["listen 443 ssl;", `listen 127.0.0.1:${ports.https} ssl;`],
    ["listen [::]:443 ssl;", `listen [::1]:${ports.https} ssl;`],
    ["listen 80;", `listen 127.0.0.1:${ports.http};\n    location = /up { ${UP} }`],
    ["listen [::]:80;", `listen [::1]:${ports.http};`],
    ["server_name deploy.example.org;", "server_name localhost;"],
    ["/etc/ssl/deploy/fullchain.pem", certificate.certificateFile],
    ["/etc/ssl/deploy/key.pem", certificate.keyFile],
    ["http://127.0.0.1:8470/", `http://127.0.0.1:${ports.coordinator}/`],
    ["return 301 https://$host$request_uri;", `location / { return 301 https://$host:${ports.https}$request_uri; }`],
  ];
  return changes.reduce((text, [from, to]) => {
    if (!text.includes(from)) throw new Error(`the configuration in ${DOCUMENT} has no "${from}"`);
    return text.replaceAll(from, to);
  }, block);
}

/** What Debian's nginx.conf has around the sites, as far as it matters. */
function wrap(site: string, directory: string, accessLog: string): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `  ${name}_temp_path ${directory}/${name};`)
    .join("\n");
  return `user root;
worker_processes 1;
pid ${directory}/nginx.pid;
events {}
http {
  log_format short '$request_method $request_uri $status';
  access_log ${accessLog} short;
${temporary}
${site}
}
`;
}
