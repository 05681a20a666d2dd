/** Who may do what: every route of the API with every kind of credential. A new route must be given a line here. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { z } from "zod";
import { cacheListSchema } from "../../../src/api/caches.ts";
import { createdTokenSchema } from "../../../src/api/tokens.ts";
import { webhookDeliverySchema } from "../../../src/api/webhooks.ts";
import { formatKeyFingerprint } from "../../../src/key-fingerprint.ts";
import { signKeyVoucher } from "../../../src/key-voucher.ts";
import { formatHashNix32 } from "../../../src/nix/hash.ts";
import { publicKeyFromSeed } from "../../../src/nix/signature.ts";
import { secretKeyFromSeed } from "../../../src/nix/signing-key.ts";
import { mayDo, type Right } from "../../../src/server/access/authorization.ts";
import { createApiRoutes, createApp } from "../../../src/server/app.ts";
import { isAct } from "../../../src/server/routes/route.ts";
import { TOKEN_KINDS } from "../../../src/token.ts";
import {
  createTestCoordinator,
  expectOk,
  type RequestOptions,
  type TestCoordinator,
} from "../../support/coordinator.ts";
import { numberEntries, openScriptedAgent, outcomeEntry } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

type Rule = {
  readonly right: Right;
  /** A list shows what its caller may see; another workspace sees an empty one. */
  readonly isList?: true;
  readonly path: (known: Known) => string | Promise<string>;
  readonly options?: RequestOptions;
  readonly json?: (known: Known) => object;
  /** Takes back what it did. */
  readonly after?: (known: Known) => Promise<void>;
};
type Known = {
  readonly server: TestCoordinator;
  readonly rollout: string;
  readonly deployment: string;
  /** A deployment that succeeded; its agent said what ran before. */
  readonly ended: string;
};

const PATH = createTinyPath("one");
const BEFORE = createTinyPath("before");
const UPLOAD = `upload=0123456789abcdfg&offset=0&narSize=${PATH.nar.length}&fileHash=${formatHashNix32(PATH.fileHash)}`;

let gone = 0;
const FOREIGN = {
  url: "https://cache.nixos.example",
  publicKeys: ["cache.nixos.example-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],
};
const OPERATOR = secretKeyFromSeed("operator-1", new Uint8Array(32).fill(1));
const { cache: _cache, ...VOUCHER } = signKeyVoucher(OPERATOR, { cache: "nixos", keys: FOREIGN.publicKeys, atMs: 1 });

/** Nobody listens there, which is told at once. */
const WEBHOOK: RequestOptions = { method: "PUT", json: { url: "http://127.0.0.1:1/" } };

function withWebhook(path: string) {
  return async ({ server }: Known) => {
    await expectOk(await server.fetch("webhook?workspace=default", WEBHOOK));
    return `${path}?workspace=default`;
  };
}

/** Each key asks once: one that was approved is the agent's. */
let asked = 0;
const seedOf = (n: number) => new Uint8Array(32).fill(n);
const fingerprintOf = (n: number) => formatKeyFingerprint(publicKeyFromSeed(seedOf(n)));

/** A key that asks for the name of an agent that is there. */
async function askForName(server: TestCoordinator, n: number): Promise<void> {
  const agent = openScriptedAgent(server.coordinator, { name: "nuc", seed: seedOf(n) });
  await agent.login({ enrolmentToken: (await server.createToken("agent")).token });
}

const RULES: Readonly<Record<string, Rule>> = {
  "GET /audit": { right: "administrate", isList: true, path: () => "audit" },
  "GET /metrics": { right: "watch", isList: true, path: () => "/metrics" },
  "POST /tokens": {
    right: "administrate",
    path: () => "tokens",
    options: { json: { kind: "read", workspace: "default" } },
  },
  "GET /tokens": { right: "administrate", isList: true, path: () => "tokens" },
  "DELETE /tokens/:id": {
    right: "administrate",
    path: async ({ server }) => `tokens/${(await server.createToken("read")).id}`,
    options: { method: "DELETE" },
  },
  "GET /identity": { right: "identify", isList: true, path: () => "identity" },
  "POST /workspaces": {
    right: "operate",
    path: () => "workspaces",
    options: { json: { name: "fresh" } },
    after: async ({ server }) => void (await server.fetch("workspaces/fresh", { method: "DELETE" })),
  },
  "GET /workspaces": { right: "watch", isList: true, path: () => "workspaces" },
  "GET /workspaces/:workspace": { right: "watch", path: () => "workspaces/default" },
  "PATCH /workspaces/:workspace": {
    right: "administrate",
    path: () => "workspaces/default",
    options: { method: "PATCH", json: { confirmWindowMs: null } },
  },
  "POST /workspaces/:workspace/rename": {
    right: "operate",
    path: () => "workspaces/default/rename",
    options: { json: { name: "default" } },
  },
  "DELETE /workspaces/:workspace": {
    right: "operate",
    path: async ({ server }) => {
      await server.fetch("workspaces", { json: { name: "short-lived" } });
      return "workspaces/short-lived";
    },
    options: { method: "DELETE" },
  },
  "PUT /webhook": { right: "administrate", path: () => "webhook?workspace=default", options: WEBHOOK },
  "GET /webhook": { right: "administrate", path: withWebhook("webhook") },
  "DELETE /webhook": { right: "administrate", path: withWebhook("webhook"), options: { method: "DELETE" } },
  "POST /webhook-tests": { right: "administrate", path: withWebhook("webhook-tests"), options: { method: "POST" } },
  "GET /webhook-deliveries": { right: "administrate", path: withWebhook("webhook-deliveries") },
  "POST /webhook-deliveries/:delivery/redelivery": {
    right: "administrate",
    path: async (known) => {
      await withWebhook("webhook")(known);
      const tested = await known.server.fetch("webhook-tests?workspace=default", { method: "POST" });
      return `webhook-deliveries/${webhookDeliverySchema.parse(await tested.json()).id}/redelivery?workspace=default`;
    },
    options: { method: "POST" },
  },
  "POST /caches": {
    right: "operate",
    path: () => "caches",
    options: { json: { name: "fresh", workspace: "default" } },
    after: async ({ server }) => void (await server.fetch("caches/fresh", { method: "DELETE" })),
  },
  "GET /caches": { right: "read-cache", isList: true, path: () => "caches" },
  "DELETE /caches/:cache": {
    right: "administrate",
    path: async ({ server }) => {
      await server.fetch("caches", { json: { name: "brief-cache", workspace: "default" } });
      return "caches/brief-cache";
    },
    options: { method: "DELETE" },
  },
  "PUT /workspaces/:workspace/foreign-caches/:cache": {
    right: "administrate",
    path: () => "workspaces/default/foreign-caches/nixos",
    options: { method: "PUT", json: FOREIGN },
  },
  "GET /foreign-caches": { right: "read-cache", isList: true, path: () => "foreign-caches" },
  "DELETE /workspaces/:workspace/foreign-caches/:cache": {
    right: "administrate",
    path: async ({ server }) => {
      const path = "workspaces/default/foreign-caches/brief";
      await server.fetch(path, { method: "PUT", json: FOREIGN });
      return path;
    },
    options: { method: "DELETE" },
  },
  "PUT /workspaces/:workspace/key-vouchers/:cache": {
    right: "administrate",
    path: async ({ server }) => {
      await server.fetch("workspaces/default/foreign-caches/nixos", { method: "PUT", json: FOREIGN });
      return "workspaces/default/key-vouchers/nixos";
    },
    options: { method: "PUT", json: VOUCHER },
  },
  "GET /key-vouchers": { right: "read-cache", isList: true, path: () => "key-vouchers" },
  "DELETE /workspaces/:workspace/key-vouchers/:cache": {
    right: "administrate",
    path: async ({ server }) => {
      await server.fetch("workspaces/default/foreign-caches/vouched", { method: "PUT", json: FOREIGN });
      const path = "workspaces/default/key-vouchers/vouched";
      const json = signKeyVoucher(OPERATOR, { cache: "vouched", keys: FOREIGN.publicKeys, atMs: 1 });
      await server.fetch(path, { method: "PUT", json });
      return path;
    },
    options: { method: "DELETE" },
  },
  "GET /caches/:cache": { right: "read-cache", path: () => "caches/default" },
  "PATCH /caches/:cache": {
    right: "administrate",
    path: () => "caches/default",
    options: { method: "PATCH", json: { public: false } },
  },
  "POST /caches/:cache/key-rotations": {
    right: "administrate",
    path: () => "caches/default/key-rotations",
    options: { method: "POST" },
  },
  "POST /caches/:cache/missing": {
    right: "read-cache",
    path: () => "caches/default/missing",
    options: { json: { hashParts: [] } },
  },
  "POST /caches/:cache/plan": {
    right: "read-cache",
    path: () => "caches/default/plan",
    options: { json: { storePath: PATH.storePath } },
  },
  "POST /caches/:cache/paths": {
    right: "push",
    path: () => "caches/default/paths",
    options: { json: { paths: [PATH.published] } },
  },
  "PUT /caches/:cache/nars/:narHash": {
    right: "push",
    path: () => `caches/default/nars/${formatHashNix32(PATH.narHash)}?${UPLOAD}`,
    options: { method: "PUT", body: PATH.file },
  },
  "PATCH /agents/:name": {
    right: "administrate",
    path: () => "agents/nuc",
    options: { method: "PATCH", json: { name: "nuc" } },
  },
  "POST /agent-labels": {
    right: "administrate",
    path: () => "agent-labels",
    options: { json: { workspace: "default", select: ["nuc"], labels: { role: "web" } } },
  },
  "POST /agent-removals": {
    right: "administrate",
    path: async ({ server }) => {
      gone += 1;
      await (await server.connectAgent(`gone-${gone}`)).disconnect();
      return "agent-removals";
    },
    options: { json: { workspace: "default", select: ["gone-*"] } },
  },
  "GET /agent-requests": { right: "administrate", isList: true, path: () => "agent-requests" },
  "POST /agent-approvals": {
    right: "administrate",
    path: async ({ server }) => {
      asked += 1;
      await askForName(server, asked);
      return "agent-approvals";
    },
    json: () => ({ workspace: "default", name: "nuc", fingerprint: fingerprintOf(asked) }),
  },
  "POST /agent-rejections": {
    right: "administrate",
    path: async ({ server }) => {
      asked += 1;
      await askForName(server, asked);
      return "agent-rejections";
    },
    json: () => ({ workspace: "default", name: "nuc", fingerprint: fingerprintOf(asked) }),
  },
  "GET /agents": { right: "watch", isList: true, path: () => "agents" },
  "GET /status": { right: "watch", isList: true, path: () => "status" },
  "POST /rollouts": {
    right: "activate",
    path: () => "rollouts",
    options: { json: { workspace: "default", agents: { nuc: PATH.storePath }, mode: "switch" } },
  },
  "POST /rollout-plans": {
    right: "activate",
    path: () => "rollout-plans",
    options: { json: { workspace: "default", agents: { nuc: PATH.storePath }, mode: "switch" } },
  },
  "POST /retries": {
    right: "activate",
    path: async ({ server }) => {
      await server.activate(PATH, "off");
      await server.fetch("cancellations", { json: { of: ["off"] } });
      return "retries";
    },
    options: { json: { of: ["off"], workspace: "default" } },
  },
  "POST /rollbacks": {
    right: "activate",
    path: () => "rollbacks",
    json: ({ ended }) => ({ of: [ended], workspace: "default" }),
  },
  "POST /rollback-plans": {
    right: "activate",
    path: () => "rollback-plans",
    json: ({ ended }) => ({ of: [ended], workspace: "default" }),
  },
  "POST /retry-plans": {
    right: "activate",
    path: async ({ server }) => {
      await server.activate(PATH, "off");
      await server.fetch("cancellations", { json: { of: ["off"] } });
      return "retry-plans";
    },
    options: { json: { of: ["off"], workspace: "default" } },
  },
  "POST /redeployment-plans": {
    right: "activate",
    path: () => "redeployment-plans",
    json: ({ ended }) => ({ of: [ended], workspace: "default" }),
  },
  "POST /redeployments": {
    right: "activate",
    path: () => "redeployments",
    json: ({ ended }) => ({ of: [ended], workspace: "default" }),
  },
  "POST /cancellations": {
    right: "activate",
    path: async ({ server }) => {
      await server.activate(PATH, "off");
      return "cancellations";
    },
    options: { json: { of: ["off"], workspace: "default" } },
  },
  "GET /rollouts/:id": { right: "watch", path: ({ rollout }) => `rollouts/${rollout}` },
  "GET /rollouts/:id/follow": { right: "watch", path: ({ rollout }) => `rollouts/${rollout}/follow` },
  "GET /events": { right: "watch", isList: true, path: () => "events" },
  "GET /deployments": { right: "watch", isList: true, path: () => "deployments" },
  "GET /deployments/:id": { right: "watch", path: ({ deployment }) => `deployments/${deployment}` },
  "GET /deployments/:id/log": { right: "watch", path: ({ deployment }) => `deployments/${deployment}/log` },
  "GET /deployments/:id/follow": { right: "watch", path: ({ deployment }) => `deployments/${deployment}/follow` },
};

/** By the words of DESIGN and README, not by the code's own table. */
const HOLDERS: Readonly<Record<Right, readonly string[]>> = {
  operate: ["admin of every workspace"],
  administrate: ["admin", "admin of every workspace"],
  activate: ["admin", "admin of every workspace", "activate"],
  watch: ["admin", "admin of every workspace", "activate", "read"],
  push: ["admin", "admin of every workspace", "push"],
  "read-cache": ["admin", "admin of every workspace", "activate", "push", "read", "an agent's own"],
  identify: ["admin", "admin of every workspace", "activate", "push", "read", "agent"],
};
const CREDENTIALS = [...TOKEN_KINDS, "an agent's own", "admin of every workspace"];
const OPEN_ROUTES = ["GET /healthz", "GET /readyz", "GET /", "GET /openapi.json"];

let known: Known;
const tokens = new Map<string, string>();

/** An agent that is gone, after a deployment that succeeded. */
async function endOne(server: TestCoordinator): Promise<string> {
  await server.push(BEFORE);
  const agent = await server.connectAgent("done");
  const [deployment] = (await server.activate(PATH, "done")).deployments;
  if (deployment === undefined) throw new Error("there is no deployment");
  const outcome = { ...outcomeEntry("succeeded"), previousPath: BEFORE.storePath };
  await agent.report(deployment.id, numberEntries([outcome]));
  await agent.disconnect();
  return deployment.id;
}

beforeAll(async () => {
  const server = await createTestCoordinator();
  await server.push(PATH);
  const agent = await server.connectAgent("nuc");
  await (await server.connectAgent("off")).disconnect();
  await expectOk(await server.fetch("workspaces", { json: { name: "other" } }));
  for (const kind of TOKEN_KINDS) {
    for (const workspace of ["default", "other"]) {
      const answer = await server.fetch("tokens", { json: { kind, workspace } });
      tokens.set(`${workspace} ${kind}`, createdTokenSchema.parse(await answer.json()).token);
    }
  }
  tokens.set("default admin of every workspace", server.adminToken);
  tokens.set("default an agent's own", agent.framesOf("welcome")[0]?.readCredential ?? "");
  const rollout = await server.activate(PATH, "nuc");
  const ended = await endOne(server);
  known = { server, rollout: rollout.id, deployment: rollout.deployments[0]?.id ?? "", ended };
});
afterAll(async () => await known.server[Symbol.asyncDispose]());

async function statusOf(rule: Rule, token: string | null): Promise<number> {
  const hangUp = new AbortController();
  const path = await rule.path(known);
  const body = rule.json === undefined ? {} : { json: rule.json(known) };
  const options = { ...rule.options, ...body, token, signal: hangUp.signal };
  const answer = await known.server.fetch(path, options);
  hangUp.abort();
  await answer.body?.cancel();
  await rule.after?.(known);
  return answer.status;
}

test("every route has its rule, and every rule its route", () => {
  const routes = createApp(known.server.coordinator.services)
    .routes.filter(({ method }) => method !== "ALL")
    .map(({ method, path }) => `${method} ${path.replace(/^\/api\/v1/, "")}`);
  expect(new Set(routes)).toEqual(new Set([...Object.keys(RULES), ...OPEN_ROUTES]));
});

test("every route declares the right that its rule names", () => {
  const declared = createApiRoutes(known.server.coordinator.services);
  for (const { method, path, right } of declared) {
    const route = `${method} ${path}`;
    expect([route, RULES[route]?.right]).toEqual([route, right]);
  }
});

for (const [route, rule] of Object.entries(RULES)) {
  describe(route, () => {
    for (const credential of CREDENTIALS) {
      const isAllowed = HOLDERS[rule.right].includes(credential);
      test(`${isAllowed ? "serves" : "does not exist for"} ${credential}`, async () => {
        const status = await statusOf(rule, tokens.get(`default ${credential}`) ?? "");
        if (isAllowed) expect([200, 201, 204]).toContain(status);
        else expect(status).toBe(404);
      });
    }

    test("wants a credential", async () => {
      expect(await statusOf(rule, null)).toBe(401);
      expect(await statusOf(rule, "nd_admin_0123456789abcdfg_")).toBe(401);
    });

    if (rule.isList !== true) {
      test("does not exist for another workspace", async () => {
        for (const kind of TOKEN_KINDS) {
          expect([kind, await statusOf(rule, tokens.get(`other ${kind}`) ?? "")]).toEqual([kind, 404]);
        }
      });
    }
  });
}

describe("lists show another workspace nothing of this one", () => {
  for (const path of [
    "tokens",
    "agents",
    "deployments",
    "deployments?agent=nuc",
    "status",
    "workspaces",
    "foreign-caches",
    "key-vouchers",
  ]) {
    test(path, async () => {
      const token = tokens.get("other admin") ?? "";
      const text = await (await known.server.fetch(path, { token })).text();
      expect(text).not.toContain("nuc");
      expect(text).not.toContain("default");
      if (path === "status") expect(JSON.parse(text)).toMatchObject({ deploymentsRunning: 0, deploymentsQueued: 0 });
    });
  }

  test("caches", async () => {
    const answer = await known.server.fetch("caches", { token: tokens.get("other read") ?? "" });
    const { caches } = cacheListSchema.parse(await answer.json());
    expect(caches.map(({ name, workspace }) => `${workspace} ${name}`)).toEqual(["other other"]);
  });
});

describe("what exists in another workspace is told from what does not exist by nobody", () => {
  const refusals = async (path: string, options: RequestOptions, names: readonly string[]) => {
    const texts = names.map(async (name) => {
      const answer = await known.server.fetch(path.replaceAll("NAME", name), {
        ...options,
        ...(options.json === undefined
          ? {}
          : { json: JSON.parse(JSON.stringify(options.json).replaceAll("NAME", name)) }),
        token: tokens.get("other admin") ?? "",
      });
      const { requestId: _id, ...problem } = z.record(z.string(), z.unknown()).parse(await answer.json());
      return `${answer.status} ${JSON.stringify(problem).replaceAll(name, "NAME")}`;
    });
    return new Set(await Promise.all(texts));
  };

  test.each<[string, RequestOptions]>([
    ["workspaces/NAME", {}],
    ["workspaces/NAME", { method: "DELETE" }],
    ["workspaces", { json: { name: "NAME" } }],
    ["caches/NAME", {}],
    ["caches", { json: { name: "NAME" } }],
    ["caches?workspace=NAME", {}],
    ["/cache/NAME/nix-cache-info", {}],
    ["agents?workspace=NAME", {}],
    ["tokens", { json: { kind: "read", workspace: "NAME" } }],
    ["rollouts", { json: { workspace: "NAME", agents: { nuc: PATH.storePath }, mode: "switch" } }],
    ["workspaces/NAME/foreign-caches/nixos", { method: "PUT", json: FOREIGN }],
    ["workspaces/NAME/key-vouchers/nixos", { method: "PUT", json: VOUCHER }],
  ])("%s %o", async (path, options) => {
    const answers = await refusals(path, options, ["default", "nowhere"]);
    expect([...answers]).toHaveLength(1);
    expect([...answers][0]).toMatch(/^404 /);
  });
});

describe("beside the routes", () => {
  test("a path that leads nowhere tells a stranger nothing", async () => {
    expect((await known.server.fetch("nothing", { token: null })).status).toBe(401);
    expect((await known.server.fetch("nothing")).status).toBe(404);
  });

  for (const route of ["/healthz", "/", "/openapi.json"]) {
    test(`${route} is open`, async () => {
      expect((await known.server.fetch(route, { token: null })).status).toBe(200);
    });
  }

  test("the control socket may do everything", () => {
    for (const right of Object.keys(HOLDERS) as Right[]) expect(mayDo({ kind: "control" }, right, "any")).toBe(true);
  });
});

/** Behind all others, which have carried each act out. */
test("every act that was carried out names its target and its effect in the audit log", async () => {
  const { services } = known.server.coordinator;
  const lines = await services.database.selectFrom("audit_log").select(["act", "target", "effect"]).execute();
  const acts = createApiRoutes(services).filter(isAct);
  for (const { method, path } of acts) {
    const act = `${method} ${path}`;
    const own = lines.filter((line) => line.act === act);
    expect([act, own.length > 0]).toEqual([act, true]);
    // What the auditor says of an act of which its handler has said nothing.
    const mute = own.filter(({ target, effect }) => /^\d{3}$/.test(effect) || target === path.slice(1));
    expect([act, mute]).toEqual([act, []]);
  }
});
