/** `nixdeploy login` at a real terminal (util-linux' `script` makes one): the token is not shown, and the terminal is left as it was. */
import { expect, test } from "bun:test";
import { FAKE_TOKEN, startFakeCoordinator } from "../support/fake-coordinator.ts";
import { BINARY } from "../support/fleet.ts";
import { spawnProcess } from "../support/processes.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";

/** Runs a shell line at a terminal; what is typed is typed when the program has asked for it. */
async function atTerminal(line: string, { typed, env }: { typed: string; env: Record<string, string> }) {
  const shell = `(while ! grep -q 'Token for' "$OUT"; do sleep 0.05; done; printf '${typed}'; while ! grep -q 'echo is' "$OUT"; do sleep 0.05; done) | script -qefc "$LINE" "$OUT"`;
  await using process = spawnProcess(["/bin/sh", "-c", shell], { env: { ...env, LINE: line } });
  await process.waitForLine(/echo is/, { timeoutMs: 30_000 });
  return process.output();
}

test.each([
  ["entered", `${FAKE_TOKEN}\\r`, /ended with 0\b/],
  ["given up by Ctrl-C", "\\003", /ended with 130\b/],
])("%s", async (_, typed, end) => {
  await using directory = await createTemporaryDirectory("login");
  await using fake = startFakeCoordinator();
  await Bun.write(directory.join("out"), "");
  const line = `${BINARY} login ${fake.url}; echo ended with $?; stty -a | grep -q -w -- '-echo' && echo echo is off || echo echo is on`;
  const env = { OUT: directory.join("out"), XDG_CONFIG_HOME: directory.path };
  const shown = await atTerminal(line, { typed, env });
  expect(shown).toContain(`Token for ${fake.url}`);
  expect(shown).toMatch(end);
  expect(shown).toContain("echo is on");
  expect(shown).not.toContain("nd_");
});
