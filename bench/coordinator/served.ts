/** The compiled coordinator on a core of its own, and what the kernel says of it. */
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { formatHashNix32 } from "../../src/nix/hash.ts";
import { AGENT_CONNECT_PATH } from "../../src/protocol.ts";
import { createTemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { createTinyPath, type TinyPath } from "../../test/support/tiny-path.ts";
import { type Memory, readMemory } from "../measure.ts";

export type Served = AsyncDisposable & {
  readonly pid: number;
  readonly url: string;
  readonly agentUrl: string;
  readonly directory: string;
  /** A request below /api/v1 with the admin token. @throws Error unless the answer is 2xx */
  request(path: string, json?: unknown): Promise<Response>;
  push(name: string): Promise<TinyPath>;
  makeToken(): Promise<string>;
  cpuSeconds(): number;
  memory(): Memory;
  /** kill -9, and another one on the same files and port. */
  restart(): Promise<void>;
};

export const COORDINATOR_CORE = "0";
const BINARY = join(import.meta.dir, "../../dist/nixdeploy");
/** Of /proc/PID/stat; Linux has no other value. */
const TICKS_PER_SECOND = 100;
const READY_MAX_MS = 20_000;

export async function startServed(): Promise<Served> {
  const temporary = await createTemporaryDirectory("bench-coordinator");
  const dataDirectory = join(temporary.path, "data");
  let current = await spawnServe(dataDirectory, "127.0.0.1:0");
  const token = readFileSync(join(dataDirectory, "admin-token"), "utf8").trim();
  const request: Served["request"] = async (path, json) => {
    const response = await fetch(`${current.url}/api/v1/${path}`, {
      method: json === undefined ? "GET" : "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(json === undefined ? {} : { body: JSON.stringify(json) }),
    });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response;
  };
  return {
    get pid() {
      return current.child.pid;
    },
    get url() {
      return current.url;
    },
    get agentUrl() {
      return `${current.url.replace("http:", "ws:")}${AGENT_CONNECT_PATH}`;
    },
    directory: temporary.path,
    request,
    push: (name) => push(name, current.url, { token, request }),
    async makeToken() {
      const answer: unknown = await (await request("tokens", { kind: "agent" })).json();
      if (typeof answer !== "object" || answer === null || !("token" in answer)) throw new Error("no token came");
      return String(answer.token);
    },
    cpuSeconds: () => readCpuSeconds(current.child.pid),
    memory: () => readMemory(current.child.pid),
    async restart() {
      current.child.kill("SIGKILL");
      await current.child.exited;
      current = await spawnServe(dataDirectory, new URL(current.url).host);
    },
    async [Symbol.asyncDispose]() {
      current.child.kill();
      await current.child.exited;
      if (process.env["BENCH_KEEP"] === undefined) await temporary[Symbol.asyncDispose]();
    },
  };
}

/** User and system time so far. */
export function readCpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

async function spawnServe(dataDirectory: string, address: string) {
  const log = openSync(`${dataDirectory}.log`, "a");
  const program = process.env["BENCH_SERVE"]?.split(" ") ?? [BINARY];
  const child = Bun.spawn({
    cmd: ["taskset", "-c", COORDINATOR_CORE, ...program, "serve", "--listen", address, "--data-dir", dataDirectory],
    stdin: "ignore",
    stdout: "pipe",
    stderr: log,
  });
  closeSync(log);
  const url = await Promise.race([readUrl(child.stdout), sleep(READY_MAX_MS)]);
  if (url === undefined) throw new Error("the coordinator did not become ready");
  return { child, url };
}

async function readUrl(stdout: ReadableStream<Uint8Array>): Promise<string | undefined> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stdout) {
    text += decoder.decode(chunk, { stream: true });
    const url = /^coordinator ready: (\S+)$/m.exec(text)?.[1];
    if (url !== undefined) return url;
  }
  return undefined;
}

async function push(
  name: string,
  url: string,
  api: { readonly token: string; readonly request: Served["request"] },
): Promise<TinyPath> {
  const path = createTinyPath(name);
  const [narHash, fileHash] = [formatHashNix32(path.narHash), formatHashNix32(path.fileHash)];
  const query = `upload=${"0".repeat(16)}&offset=0&narSize=${path.nar.length}&fileHash=${fileHash}`;
  const answer = await fetch(`${url}/api/v1/caches/default/nars/${narHash}?${query}`, {
    method: "PUT",
    headers: { authorization: `Bearer ${api.token}` },
    body: path.file,
  });
  if (!answer.ok) throw new Error(`push: ${answer.status} ${await answer.text()}`);
  await api.request("caches/default/paths", { paths: [path.published] });
  return path;
}
