import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readCoordinatorUrl, readKey, readToken } from "../../../src/commands/command-line/environment.ts";
import { resolveToken } from "../../../src/commands/coordinator-access.ts";

const folder = mkdtempSync(join(tmpdir(), "nixdeploy-environment-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function fileWith(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

describe("tokens", () => {
  const credentials = join(folder, "credentials");
  mkdirSync(credentials);
  writeFileSync(join(credentials, "nixdeploy-push-token"), "push-credential\n");
  writeFileSync(join(credentials, "nixdeploy-token"), "general-credential\n");

  /** Each place wins over all that come after it. */
  const places: readonly (readonly [string, Record<string, string>])[] = [
    ["push-variable", { NIXDEPLOY_PUSH_TOKEN: "push-variable" }],
    ["push-file", { NIXDEPLOY_PUSH_TOKEN_FILE: fileWith("push", "push-file\n") }],
    ["push-credential", { CREDENTIALS_DIRECTORY: credentials }],
  ];
  const generalPlaces: typeof places = [
    ["general-variable", { NIXDEPLOY_TOKEN: "general-variable" }],
    ["general-file", { NIXDEPLOY_TOKEN_FILE: fileWith("general", "general-file\n") }],
    ["general-credential", { CREDENTIALS_DIRECTORY: credentials }],
  ];

  for (const [index, [secret]] of places.entries()) {
    test(`push: ${secret} wins over what comes after it`, async () => {
      const env = Object.assign({}, ...[...places.slice(index), ...generalPlaces].map(([, variables]) => variables));
      expect(await readToken(env, "push")).toBe(secret);
    });
  }

  for (const [index, [secret]] of generalPlaces.entries()) {
    test(`activate: falls back to ${secret}`, async () => {
      const env = Object.assign({}, ...generalPlaces.slice(index).map(([, variables]) => variables));
      expect(await readToken(env, "activate")).toBe(secret);
    });
  }

  test("a role does not see another role's token", async () => {
    expect(await readToken({ NIXDEPLOY_PUSH_TOKEN: "x" }, "agent")).toBeNull();
    expect(await readToken({ NIXDEPLOY_PUSH_TOKEN: "x" }, "general")).toBeNull();
  });

  test("one newline at the end is cut", async () => {
    expect(await readToken({ NIXDEPLOY_TOKEN: "a\n" }, "general")).toBe("a");
    expect(await readToken({ NIXDEPLOY_TOKEN_FILE: fileWith("two", "a\n\n") }, "general")).toBe("a\n");
    expect(await readToken({ NIXDEPLOY_TOKEN_FILE: fileWith("crlf", "a\r\n") }, "general")).toBe("a");
  });

  test("none: resolveToken names the variables", async () => {
    const nowhere = { urlFlag: null, env: { XDG_CONFIG_HOME: folder } };
    expect(resolveToken(nowhere, "push", "https://deploy.example.org")).rejects.toMatchObject({
      kind: "usage",
      hint: expect.stringContaining("NIXDEPLOY_PUSH_TOKEN_FILE, NIXDEPLOY_PUSH_TOKEN, NIXDEPLOY_TOKEN_FILE"),
    });
  });

  test("an empty credentials directory is no token", async () => {
    expect(await readToken({ CREDENTIALS_DIRECTORY: folder }, "agent")).toBeNull();
  });
});

describe("refused", () => {
  const cases: readonly (readonly [what: string, env: Record<string, string>, message: string])[] = [
    ["an empty variable", { NIXDEPLOY_TOKEN: "" }, "cannot use NIXDEPLOY_TOKEN: it is set but empty"],
    ["an empty file name", { NIXDEPLOY_TOKEN_FILE: "" }, "cannot use NIXDEPLOY_TOKEN_FILE: it is set but empty"],
    ["no such file", { NIXDEPLOY_TOKEN_FILE: join(folder, "no") }, "there is no such file"],
    ["a directory", { NIXDEPLOY_TOKEN_FILE: folder }, "NIXDEPLOY_TOKEN_FILE"],
    ["an empty file", { NIXDEPLOY_TOKEN_FILE: fileWith("empty", "\n") }, "the file is empty"],
    ["a large file", { NIXDEPLOY_TOKEN_FILE: fileWith("big", "secret".repeat(9999)) }, "it is larger than 16384 bytes"],
  ];
  for (const [what, env, message] of cases) {
    test(what, async () => {
      const error = await readToken(env, "general").catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ name: "NixdeployError", kind: "usage", message: expect.stringContaining(message) });
      expect(String(error)).not.toContain("secretsecret");
    });
  }
});

test("keys have no fallback", async () => {
  expect(await readKey({ NIXDEPLOY_SIGNING_KEY: "name:key\n" }, "signing")).toBe("name:key");
  expect(await readKey({ NIXDEPLOY_TOKEN: "x", NIXDEPLOY_SIGNING_KEY: "y" }, "deployment")).toBeNull();
});

describe("the coordinator's address", () => {
  test("the flag wins over the environment", () => {
    const env = { NIXDEPLOY_URL: "https://environment.example" };
    expect(readCoordinatorUrl({ urlFlag: "http://flag.example:8470/", env })).toBe("http://flag.example:8470");
    expect(readCoordinatorUrl({ urlFlag: null, env })).toBe("https://environment.example");
  });

  test("a path before the API is kept", () => {
    expect(readCoordinatorUrl({ urlFlag: "https://example.org/deploy//", env: {} })).toBe("https://example.org/deploy");
  });

  for (const [what, url] of [
    ["absent", null],
    ["no address", "deploy.example.org"],
    ["another scheme", "ftp://example.org"],
    ["with a password", "https://me:hunter2@example.org"],
    ["with a query", "https://example.org/?token=hunter2"],
    ["with a fragment", "https://example.org/#hunter2"],
  ] as const) {
    test(`${what}: refused, and not repeated`, () => {
      const read = () => readCoordinatorUrl({ urlFlag: url, env: {} });
      expect(read).toThrow(/^cannot (find the coordinator|use --url)/);
      expect(read).not.toThrow("hunter2");
    });
  }
});
