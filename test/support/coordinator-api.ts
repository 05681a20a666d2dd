/** The REST API of a compiled coordinator, asked as its admin by tests that need to know more than the commands tell. */
import { Database } from "bun:sqlite";
import { join } from "node:path";
import { formatHashNix32 } from "../../src/nix/hash.ts";
import type { CoordinatorProcess } from "./fleet.ts";
import type { TinyPath } from "./tiny-path.ts";

export type CoordinatorApi = {
  readonly adminToken: string;
  /** @param options.json makes it a POST unless `method` says otherwise */
  request(
    path: string,
    options?: { readonly method?: string; readonly json?: unknown; readonly token?: string },
  ): Promise<Response>;
  /** Uploads a path without references into the cache `default`. */
  publish(path: TinyPath): Promise<void>;
};

export async function openCoordinatorApi(coordinator: CoordinatorProcess): Promise<CoordinatorApi> {
  const adminToken = (await Bun.file(join(coordinator.dataDirectory, "admin-token")).text()).trim();
  const request: CoordinatorApi["request"] = (path, { method, json, token = adminToken } = {}) =>
    fetch(`${coordinator.url}/api/v1/${path}`, {
      method: method ?? (json === undefined ? "GET" : "POST"),
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: json === undefined ? null : JSON.stringify(json),
    });
  return {
    adminToken,
    request,
    async publish(path) {
      const query = new URLSearchParams({ upload: "0123456789abcdfg", offset: "0", narSize: String(path.nar.length) });
      query.set("fileHash", formatHashNix32(path.fileHash));
      const put = await fetch(
        `${coordinator.url}/api/v1/caches/default/nars/${formatHashNix32(path.narHash)}?${query}`,
        {
          method: "PUT",
          headers: { authorization: `Bearer ${adminToken}` },
          body: new Uint8Array(path.file),
        },
      );
      const published = await request("caches/default/paths", { json: { paths: [path.published] } });
      if (put.status !== 200 || published.status !== 201) throw new Error(`cannot publish: ${await published.text()}`);
    },
  };
}

/** A look from outside at what the coordinator has committed; it may run, or have been killed. */
export function openCommitted(
  coordinator: CoordinatorProcess,
): Disposable & { ask(query: string): readonly unknown[] } {
  const database = new Database(join(coordinator.dataDirectory, "coordinator.db"), { readonly: true });
  return {
    ask: (query) => database.query(query).all(),
    [Symbol.dispose]: () => database.close(),
  };
}
