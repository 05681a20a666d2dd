import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decodeAgentFrame, decodeCoordinatorFrame } from "../src/frames.ts";
import { loginMessage } from "../src/login-message.ts";
import { parseDeploymentId } from "../src/names.ts";
import {
  type AgentFrameInput,
  type CoordinatorFrameInput,
  LOG_LINE_CHARACTERS_MAX,
  REFUSAL_CODES,
  REPORT_ENTRIES_MAX,
} from "../src/protocol.ts";
import {
  createAgentIdentity,
  helloOf,
  logEntry,
  machineState,
  numberEntries,
  outcomeEntry,
  phaseEntry,
} from "./support/scripted-agent.ts";
import { storePathFor } from "./support/tiny-path.ts";

const ID = parseDeploymentId("0123456789abcdfg");
const PATH = storePathFor("system");
const report = (entries: Extract<AgentFrameInput, { kind: "report" }>["entries"]): AgentFrameInput => ({
  kind: "report",
  deploymentId: ID,
  entries,
});

const agentFrames: readonly AgentFrameInput[] = [
  helloOf(createAgentIdentity("nuc"), "bm9uY2U="),
  { ...helloOf(createAgentIdentity("nuc"), "bm9uY2U="), enrolmentToken: "nd_agent_x" },
  report(numberEntries([logEntry("line"), phaseEntry("fetching"), outcomeEntry("rolled-back")])),
  { kind: "progress", deploymentId: ID, paths: 1, pathsTotal: 2, bytes: 3, bytesTotal: 4 },
  { kind: "state", state: { ...machineState(ID), profilePath: PATH, generation: 42, storeFreeBytes: 2 ** 40 } },
  { kind: "ping" },
  { kind: "error", code: "unknown-kind", message: "what?" },
];

const coordinatorFrames: readonly CoordinatorFrameInput[] = [
  { kind: "challenge", protocolVersions: { min: 1, max: 1 }, coordinatorVersion: "1", nonce: "0123456789abcdef" },
  {
    kind: "welcome",
    agentId: "0123456789abcdfg",
    workspace: "default",
    cache: { name: "default", path: "/cache/default", publicKeys: ["default-1:AAAA"] },
    readCredential: "nda_x",
  },
  ...REFUSAL_CODES.map((code) => ({ kind: "refused" as const, code, message: "no", hint: "do this" })),
  { kind: "offer", deploymentId: ID, storePath: PATH, mode: "switch", rollbackScript: null },
  { kind: "cancel", deploymentId: ID },
  { kind: "acknowledge", deploymentId: ID, through: 0 },
  { kind: "pong" },
  { kind: "error", code: "malformed", message: "no" },
];

describe("frames arrive as they were sent", () => {
  for (const frame of agentFrames) {
    test(`agent: ${frame.kind}`, () => {
      expect(decodeAgentFrame(JSON.stringify(frame))).toEqual({ kind: "frame", frame: frame as never });
    });
  }
  for (const frame of coordinatorFrames) {
    test(`coordinator: ${frame.kind}`, () => {
      expect(decodeCoordinatorFrame(JSON.stringify(frame))).toEqual({ kind: "frame", frame: frame as never });
    });
  }
});

describe("versions may differ", () => {
  test("unknown fields are ignored", () => {
    expect(decodeAgentFrame('{"kind":"ping","later":{"x":1}}')).toEqual({ kind: "frame", frame: { kind: "ping" } });
    const [hello] = agentFrames;
    expect(decodeAgentFrame(JSON.stringify({ ...hello, deltas: true }))).toMatchObject({ kind: "frame" });
  });

  test("unknown kinds are told from malformed frames", () => {
    expect(decodeAgentFrame('{"kind":"dance"}')).toEqual({ kind: "unknown", frameKind: "dance" });
    expect(decodeCoordinatorFrame('{"kind":"hello"}')).toEqual({ kind: "unknown", frameKind: "hello" });
  });
});

describe("malformed", () => {
  const cases: readonly (readonly [what: string, text: string])[] = [
    ["nothing", ""],
    ["no JSON", "{"],
    ["no object", "[]"],
    ["null", "null"],
    ["no kind", "{}"],
    ["a kind that is no text", '{"kind":1}'],
    ["an overlong unknown kind", JSON.stringify({ kind: "x".repeat(65) })],
    ["a hello without a name", JSON.stringify({ ...agentFrames[0], name: undefined })],
    ["a hello with a name that is a path", JSON.stringify({ ...agentFrames[0], name: "../x" })],
    [
      "a store path elsewhere",
      JSON.stringify({ kind: "state", state: { ...machineState(null), currentPath: "/etc" } }),
    ],
    ["no entries", JSON.stringify(report([]))],
    ["entry 0", JSON.stringify(report(numberEntries([logEntry("x")], 0)))],
    ["entry 1.5", JSON.stringify(report(numberEntries([logEntry("x")], 1.5)))],
    [
      "an unknown outcome",
      JSON.stringify(report(numberEntries([outcomeEntry("failed")]))).replace('"failed"', '"fine"'),
    ],
    ["an endless line", JSON.stringify(report(numberEntries([logEntry("x".repeat(LOG_LINE_CHARACTERS_MAX + 101))])))],
    [
      "negative bytes",
      '{"kind":"progress","deploymentId":"0123456789abcdfg","paths":0,"pathsTotal":0,"bytes":-1,"bytesTotal":0}',
    ],
  ];
  for (const [what, text] of cases) {
    test(what, () => expect(decodeAgentFrame(text).kind).toBe("malformed"));
  }

  test("too many entries", () => {
    const entries = numberEntries(Array.from({ length: REPORT_ENTRIES_MAX + 1 }, () => logEntry("x")));
    expect(decodeAgentFrame(JSON.stringify(report(entries))).kind).toBe("malformed");
    expect(decodeAgentFrame(JSON.stringify(report(entries.slice(1)))).kind).toBe("frame");
  });

  test("a path of a cache that leads elsewhere", () => {
    const welcome = JSON.stringify(coordinatorFrames[1]);
    expect(decodeCoordinatorFrame(welcome.replace("/cache/default", "http://evil/")).kind).toBe("malformed");
  });
});

test("decoding never throws", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.json(),
        fc.jsonValue().map((value) => JSON.stringify({ kind: "report", value })),
      ),
      (text) => {
        decodeAgentFrame(text);
        decodeCoordinatorFrame(text);
      },
    ),
  );
});

test("a truncated frame is malformed wherever it is cut", () => {
  const text = JSON.stringify(agentFrames[2]);
  for (let length = 0; length < text.length; length += 1) {
    expect(decodeAgentFrame(text.slice(0, length)).kind).toBe("malformed");
  }
});

test("the signed message binds purpose, nonce and name", () => {
  const text = new TextDecoder().decode(loginMessage({ nonce: "N", name: "nuc" }));
  expect(text).toBe("nixdeploy agent login 1\nN\nnuc\n");
});
