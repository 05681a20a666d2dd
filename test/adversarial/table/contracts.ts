/** The parsers of what coordinator, agent and command line say to each other. */
import type { z } from "zod";
import { agentListSchema } from "../../../src/api/agents.ts";
import {
  cacheSchema,
  missingAnswerSchema,
  missingRequestSchema,
  planAnswerSchema,
  planRequestSchema,
  publishAnswerSchema,
  publishRequestSchema,
  updateCacheSchema,
  uploadAnswerSchema,
} from "../../../src/api/caches.ts";
import { deploymentListSchema, followEventSchema, logPageSchema } from "../../../src/api/deployments.ts";
import { createRolloutSchema, rolloutSchema } from "../../../src/api/rollouts.ts";
import { statusSchema } from "../../../src/api/status.ts";
import { createdTokenSchema, createTokenSchema, tokenListSchema } from "../../../src/api/tokens.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { type DecodedFrame, decodeAgentFrame, decodeCoordinatorFrame } from "../../../src/frames.ts";
import { parseAnswer } from "../../../src/http/answer.ts";
import { createEventStreamParser } from "../../../src/http/event-stream.ts";
import { failureOfAnswer } from "../../../src/http/failure.ts";
import { NameError, parseAgentName, parseDeploymentId, parseTokenId } from "../../../src/names.ts";
import { createRouter, readBody } from "../../../src/server/routes/context.ts";
import { formatToken, parseToken } from "../../../src/token.ts";
import { createDeployment } from "../../support/deployment-example.ts";
import {
  createAgentIdentity,
  helloOf,
  logEntry,
  machineState,
  numberEntries,
  outcomeEntry,
  phaseEntry,
} from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";
import { defineParser, type Parser, textOf } from "../parser.ts";

const ID = parseDeploymentId("0123456789abcdfg");
const TIME = "2026-01-01T00:00:00Z";
const tiny = createTinyPath("tiny");
const deployment = createDeployment({ reason: "because", fetchedBytes: 5, phaseMs: { fetching: 3 } });
export const JSON_WORDS = [
  ...["null", "true", "[]", "{}", '""', "0", "-1", "1.5", "1e999", "9007199254740993", "[[[[", '{"a":', "}", "]"],
  ...['"__proto__":', '"constructor":', "\\u0000", "\\ud800", '"/nix/store/../etc"', ","],
];
/** One of each kind. */
export const HEALTH_CHECKS = [
  { name: "web", kind: "http", url: "http://localhost/", status: [200], attempts: 3 },
  { name: "ssh", kind: "tcp", port: 22, host: "::1", periodSeconds: 0.5 },
  { name: "units", kind: "units", units: ["a.service"] },
  { name: "smoke", kind: "command", command: [`${tiny.storePath}/bin/smoke`, "-x"], timeoutSeconds: 60 },
];
export const HEALTH_WORDS = [
  ...[
    '"nixdeploy":',
    '"healthChecks":',
    '"kind":"tcp"',
    '"kind":"command"',
    '"command":["/bin/sh"]',
    '"port":',
    "/../",
  ],
  ...HEALTH_CHECKS.map((check) => JSON.stringify(check)),
];
const line = { n: 1, at: TIME, stream: "out", text: "line" };
const lines = { deployment: ID, agent: "nuc", lines: [line] };

/** One sample of each body that the coordinator takes, by its schema. */
const requests = {
  "create-token": [createTokenSchema, { kind: "push", workspace: "default", description: "ci", expiresInMs: 1 }],
  "update-cache": [updateCacheSchema, { public: true }],
  missing: [missingRequestSchema, { hashParts: ["0123456789abcdfghijklmnpqrsvwxyz"] }],
  publish: [publishRequestSchema, { paths: [tiny.published] }],
  plan: [planRequestSchema, { storePath: tiny.storePath }],
  "create-rollout": [
    createRolloutSchema,
    {
      agents: { nuc: tiny.storePath },
      rollbackScript: { "x86_64-linux": tiny.storePath },
      healthChecks: [HEALTH_CHECKS[0]],
      agentHealthChecks: { nuc: HEALTH_CHECKS.slice(1) },
      mode: "switch",
      description: "text",
      origin: { commit: "abc" },
    },
  ],
} as const satisfies Record<string, readonly [z.ZodType, unknown]>;

/** One sample of each answer that the client reads, by its schema. */
const answers = {
  "created-token": [createdTokenSchema, { id: ID, token: "nd", kind: "read", workspace: null, expiresAt: TIME }],
  "token-list": [
    tokenListSchema,
    {
      tokens: [
        {
          ...{ id: ID, kind: "read", workspace: "default", description: "", createdAt: TIME },
          ...{ expiresAt: null, lastUsedAt: null, revokedAt: null },
        },
      ],
    },
  ],
  cache: [
    cacheSchema,
    {
      ...{ name: "default", workspace: "default", url: "http://x/", publicKeys: ["a-1:AAAA"] },
      ...{ public: false, default: true },
    },
  ],
  "missing-answer": [missingAnswerSchema, { missing: ["0123456789abcdfghijklmnpqrsvwxyz"] }],
  upload: [uploadAnswerSchema, { offset: 1, complete: true }],
  published: [publishAnswerSchema, { published: 1 }],
  "plan-answer": [planAnswerSchema, { narInfos: ["StorePath: x\n"] }],
  "agent-list": [agentListSchema, { agents: [] }],
  rollout: [
    rolloutSchema,
    { id: ID, workspace: "default", createdAt: TIME, description: null, url: "", deployments: [deployment] },
  ],
  "deployment-list": [deploymentListSchema, { deployments: [deployment] }],
  "log-page": [logPageSchema, { lines: [line], next: 5 }],
  "follow-event": [followEventSchema, { event: "log", data: lines }],
  status: [
    statusSchema,
    {
      ...{ version: "1", url: "", startedAt: TIME, workspaces: ["default"], deploymentsRunning: 0 },
      ...{ agents: { online: 1, offline: 0, unknown: 0 }, deploymentsQueued: 0 },
    },
  ],
} as const satisfies Record<string, readonly [z.ZodType, unknown]>;

const zeros = `[${"0,".repeat(200_000)}0]`;
const nothings = `[${'"",'.repeat(300_000)}""]`;
const wrongPairs = `{${Array.from({ length: 100_000 }, (_, n) => `"${n}":0`).join(",")}}`;
const publishing = (references: string) =>
  `{"paths":[${JSON.stringify(tiny.published).replace(/"references":\[[^\]]*\]/, `"references":${references}`)}]}`;
const manyInvalid = (part: string) => `[${Array(5_000).fill(part).join(",")}]`;

/** Large bodies of the right shape, by the name of the parser. */
const jsonFloods: Readonly<Record<string, Readonly<Record<string, () => string>>>> = {
  "request-create-rollout": {
    "many wrong agents": () => `{"mode":"switch","agents":${wrongPairs}}`,
    "health checks that are none": () => `{"mode":"switch","agents":{},"healthChecks":${zeros}}`,
    "health checks for many agents": () =>
      `{"mode":"switch","agents":{},"agentHealthChecks":{${Array.from({ length: 9_000 }, (_, n) => `"a${n}":[{"kind":"tcp"},0]`).join(",")}}}`,
    "many units": () =>
      `{"mode":"switch","agents":{},"healthChecks":[{"name":"x","kind":"units","units":${nothings}}]}`,
    "many agents": () => `{"mode":"switch","agents":${wrongPairs.replaceAll(":0", ':"x"')}}`,
  },
  "request-publish": {
    "references that are none": () => publishing(nothings),
    "many wrong references": () => publishing(manyInvalid('""')),
    "many wrong references of many paths": () =>
      publishing(manyInvalid('""')).replace(/(\{"storePath.*\})\]\}$/, "$1,$1,$1,$1]}"),
    "paths that are none": () => `{"paths":${zeros}}`,
    "many wrong paths": () => `{"paths":${manyInvalid("{}")}}`,
  },
  "request-missing": {
    "hash parts that are none": () => `{"hashParts":${nothings}}`,
    "many wrong hash parts": () => `{"hashParts":${manyInvalid('"é"')}}`,
  },
  "answer-plan-answer": { "narinfos that are none": () => `{"narInfos":${zeros}}` },
  "answer-missing-answer": { "hash parts that are none": () => `{"missing":${nothings}}` },
  "answer-agent-list": { "agents that are none": () => `{"agents":${zeros}}` },
  "answer-rollout": {
    "phases that are none": () => JSON.stringify({ deployments: [deployment] }).replace('{"fetching":3}', wrongPairs),
  },
  "answer-follow-event": {
    "lines that are none": () => `{"event":"log","data":{"deployment":"${ID}","agent":"nuc","lines":${zeros}}}`,
  },
  "agent-frame": {
    "entries that are none": () => `{"kind":"report","deploymentId":"${ID}","entries":${zeros}}`,
    "many wrong entries": () =>
      `{"kind":"report","deploymentId":"${ID}","entries":[${'{"type":"log"},'.repeat(1_999)}0]}`,
    "phases that are none": () => JSON.stringify(agentFrames[1]).replace('"phaseMs":{}', `"phaseMs":${wrongPairs}`),
    "a long kind": () => `{"kind":"${"x".repeat(1_000_000)}"}`,
    "a long name": () => `{"kind":"hello","name":"${"\u0001".repeat(1_000_000)}"}`,
  },
  "coordinator-frame": {
    "many keys": () =>
      JSON.stringify(coordinatorFrames[1]).replace('["default-1:AAAA"]', `[${'"a-1:AAAA",'.repeat(80_000)}""]`),
  },
};

const identity = createAgentIdentity("nuc");
const agentFrames = [
  { ...helloOf(identity, "bm9uY2U="), enrolmentToken: "nd_agent_x" },
  {
    kind: "report",
    deploymentId: ID,
    entries: numberEntries([logEntry("line"), phaseEntry("fetching"), outcomeEntry("failed")]),
  },
  { kind: "progress", deploymentId: ID, paths: 1, pathsTotal: 2, bytes: 3, bytesTotal: 4 },
  { kind: "state", state: machineState(ID) },
  { kind: "ping" },
  { kind: "error", code: "unknown-kind", message: "what?" },
];
const coordinatorFrames = [
  { kind: "challenge", protocolVersions: { min: 1, max: 1 }, coordinatorVersion: "1", nonce: "0123456789abcdef" },
  {
    kind: "welcome",
    agentId: ID,
    workspace: "default",
    cache: { name: "default", path: "/cache/default", publicKeys: ["default-1:AAAA"] },
    readCredential: "nda_x",
  },
  { kind: "refused", code: "name-taken", message: "no", hint: "do this" },
  { kind: "offer", deploymentId: ID, storePath: tiny.storePath, mode: "switch", rollbackScript: null },
  {
    ...{ kind: "offer", deploymentId: ID, storePath: tiny.storePath, mode: "test", rollbackScript: null },
    healthChecks: HEALTH_CHECKS,
  },
  { kind: "cancel", deploymentId: ID },
  { kind: "acknowledge", deploymentId: ID, through: 0 },
  { kind: "pong" },
];

function frameParser<Frame>(name: string, frames: readonly unknown[], decode: (text: string) => DecodedFrame<Frame>) {
  return defineParser<DecodedFrame<Frame>>({
    name,
    samples: frames.map((frame) => JSON.stringify(frame)),
    // Whatever comes, it answers.
    errors: [],
    isExact: true,
    floods: jsonFloods[name] ?? {},
    dictionary: [...JSON_WORDS, ...frames.map((frame) => JSON.stringify(frame)), '"kind":', '"entries":['],
    parse: (bytes) => decode(textOf(bytes)),
    isRefusal: ({ kind }) => kind !== "frame",
    reasonOf: (decoded) => (decoded.kind === "malformed" ? decoded.reason : ""),
    format: (decoded) => JSON.stringify(decoded.kind === "frame" ? decoded.frame : null),
  });
}

/** A body as the coordinator's routes read it. */
function requestParser([name, [schema, sample]]: readonly [string, readonly [z.ZodType, unknown]]): Parser {
  return defineParser<unknown>({
    name: `request-${name}`,
    floods: jsonFloods[`request-${name}`] ?? {},
    samples: [JSON.stringify(sample)],
    errors: [NixdeployError],
    isExact: true,
    dictionary: JSON_WORDS,
    costFactor: 4,
    parse: async (bytes) => {
      let caught: unknown = null;
      let value: unknown = null;
      const router = createRouter();
      router.post("/", async (context) => {
        value = await readBody(context, schema);
        return context.text("");
      });
      router.onError((error, context) => {
        caught = error;
        return context.text("");
      });
      await router.request("/", { method: "POST", body: new Uint8Array(bytes) });
      if (caught !== null) throw caught;
      return value;
    },
    format: (value) => JSON.stringify(value),
  });
}

/** An answer as the HTTP client reads it. */
function answerParser([name, [schema, sample]]: readonly [string, readonly [z.ZodType, unknown]]): Parser {
  return defineParser<unknown>({
    name: `answer-${name}`,
    floods: jsonFloods[`answer-${name}`] ?? {},
    samples: [JSON.stringify(sample)],
    errors: [NixdeployError],
    isExact: true,
    dictionary: JSON_WORDS,
    costFactor: 8,
    parse: (bytes) => {
      const text = textOf(bytes);
      return parseAnswer({ status: 200, contentType: "application/json", location: null, text }, schema, "http://x");
    },
    format: (value) => JSON.stringify(value),
  });
}

export const contractParsers: readonly Parser[] = [
  defineParser({
    name: "agent-name",
    samples: ["nuc", "a", `A${"b".repeat(63)}`, "host.example-1_x"],
    errors: [NameError],
    dictionary: ["/", "..", "-", ".", "\0", "\n"],
    parse: (bytes) => parseAgentName(textOf(bytes)),
    format: (name) => name,
    isCanonical: true,
    isExact: false,
  }),
  defineParser({
    name: "deployment-id",
    samples: [ID],
    errors: [NameError],
    parse: (bytes) => parseDeploymentId(textOf(bytes)),
    format: (id) => id,
    isCanonical: true,
  }),
  defineParser({
    name: "token",
    samples: [
      formatToken("admin", parseTokenId(ID), new Uint8Array(32).fill(255)),
      formatToken("agent", parseTokenId(ID), new Uint8Array(32)),
    ],
    errors: [],
    dictionary: ["nd_", "nda_", "_", "push", "read"],
    parse: (bytes) => parseToken(textOf(bytes)),
    isExact: true,
  }),
  frameParser("agent-frame", agentFrames, decodeAgentFrame),
  frameParser("coordinator-frame", coordinatorFrames, decodeCoordinatorFrame),
  ...Object.entries(requests).map(requestParser),
  ...Object.entries(answers).map(answerParser),
  defineParser({
    name: "problem",
    costFactor: 4,
    samples: [JSON.stringify({ title: "no", status: 422, hint: "do", errors: ["one", "two"], detail: "why" })],
    errors: [],
    dictionary: JSON_WORDS,
    parse: (bytes) =>
      failureOfAnswer(
        { status: 422, contentType: "application/problem+json", location: null, text: textOf(bytes) },
        "http://x",
      ).message,
    isExact: false,
  }),
  defineParser({
    name: "event-stream",
    costFactor: 2,
    samples: [
      "id: 7.0\nevent: log\ndata: {}\n\n",
      ": hello\r\ndata: a\r\ndata:\r\ndata: b\r\n\r\nretry: 5\rdata: zürich 🚀\r\r: end\n",
      "\ufeffdata\n\n",
    ],
    errors: [NixdeployError],
    dictionary: ["\r", "\n", "\r\n", "\n\n", "data:", "data", "id:", "event:", ":", "\0", "\ufeff", "\u2028"],
    isExact: false,
    floods: {
      "empty data lines": () => "data\n".repeat(200_000),
      "events without end": () => "data\n\n".repeat(150_000),
    },
    parseChunks: (chunks) => {
      const parser = createEventStreamParser();
      return chunks.flatMap((chunk) => parser.push(chunk));
    },
  }),
];
