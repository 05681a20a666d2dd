import { describe, expect, test } from "bun:test";
import { describeError, type ErrorKind, NixdeployError, toExitCode, toHttpStatus } from "../src/errors.ts";

const TABLE: Readonly<Record<ErrorKind, { readonly exit: number; readonly status: number }>> = {
  usage: { exit: 2, status: 400 },
  denied: { exit: 77, status: 401 },
  "not-found": { exit: 1, status: 404 },
  conflict: { exit: 1, status: 409 },
  refused: { exit: 1, status: 422 },
  unreachable: { exit: 75, status: 503 },
  remote: { exit: 1, status: 502 },
  host: { exit: 1, status: 507 },
  interrupted: { exit: 130, status: 503 },
};

describe("kinds", () => {
  for (const kind of Object.keys(TABLE) as ErrorKind[]) {
    test(kind, () => {
      const actual: { exit: number; status: number } = { exit: toExitCode(kind), status: toHttpStatus(kind) };
      expect(actual).toEqual(TABLE[kind]);
    });
  }
});

describe("NixdeployError", () => {
  test("carries hint, details and cause", () => {
    const cause = new Error("disk full");
    const error = new NixdeployError("host", "cannot write", { hint: "make room", details: ["a", "b"], cause });
    expect(error).toBeInstanceOf(Error);
    expect([error.kind, error.message, error.hint, error.details, error.cause]).toEqual([
      "host",
      "cannot write",
      "make room",
      ["a", "b"],
      cause,
    ]);
  });

  test("has neither unless given", () => {
    const error = new NixdeployError("usage", "cannot read --listen");
    expect([error.hint, error.details]).toEqual([undefined, []]);
    expect("cause" in error).toBe(false);
  });
});

test("anything thrown has a text", () => {
  expect([new Error("one"), "two", 3, null, undefined].map(describeError)).toEqual([
    "one",
    "two",
    "3",
    "null",
    "undefined",
  ]);
});
