import { expect, test } from "bun:test";
import { explainSshFailure } from "../../../src/client/ssh/ssh-failure.ts";

test.each([
  ["Host key verification failed.", "refused", "its host key is not known here"],
  [
    "@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\r\n",
    "refused",
    "another one than before",
  ],
  ["root@nuc: Permission denied (publickey).", "denied", "it refuses the login"],
  ["ssh: Could not resolve hostname nuc: Name or service not known", "unreachable", "its name is unknown (DNS)"],
  ["ssh: connect to host nuc port 22: Connection refused", "unreachable", "the connection was refused"],
  ["ssh: connect to host nuc port 22: Connection timed out", "unreachable", "broke or was never made"],
  ["client_loop: send disconnect: Broken pipe", "unreachable", "broke or was never made"],
  ["/root/.ssh/config: line 1: Bad configuration option: x", "host", "the ssh configuration of this machine is wrong"],
  ["", "unreachable", "it ended without a word"],
  ["\u001b[31msomething new\u001b[0m happened.", "unreachable", "something new happened"],
] as const)("%j", (said, kind, why) => {
  const error = explainSshFailure("root@nuc:2222", said);
  expect(error.kind).toBe(kind);
  expect(error.message).toContain(`cannot reach root@nuc:2222 by ssh: `);
  expect(error.message).toContain(why);
  expect(error.message).not.toMatch(/[.\p{Cc}]$/u);
  expect(error.details[0]).toStartWith("1. ");
  expect(error.details.join("\n")).not.toMatch(/HOST|BARE/);
});
