/** A machine that `copy` works on, which answers each script as the test says, and remembers them all. */
import type { Probe } from "../../src/client/copy/probe.ts";
import type { Script, Side } from "../../src/client/copy/side.ts";
import type { ChildResult } from "../../src/client/ssh/run-child.ts";

export type ScriptedSide = Side & {
  /** All that was run, oldest first, with the password that sudo would have been given. */
  readonly ran: { readonly script: Script; readonly password: string | null }[];
};

/** What a script ends with: nothing said and code 0, unless the answer says otherwise. */
export function createScriptedSide(
  answer: (script: Script, password: string | null) => Partial<ChildResult> = () => ({}),
): ScriptedSide {
  const ran: ScriptedSide["ran"] = [];
  const sudo: Side["sudo"] = { password: null };
  return {
    ...{ name: "alice@nuc", isLocal: false, sudo, ran },
    async run(script, signal) {
      signal.throwIfAborted();
      ran.push({ script, password: sudo.password });
      return { code: 0, stdout: "", stderr: "", isLate: false, ...answer(script, sudo.password) };
    },
    openDaemon: () => Promise.reject(new Error("nobody asks this machine's daemon")),
  };
}

/** An ordinary user of a machine that is no NixOS. */
export const ALICE: Probe = {
  ...{ uid: 1000, user: "alice", hostName: "nuc", home: "/home/alice", stateHome: "", kernel: "Linux" },
  ...{ machine: "x86_64", hasDaemon: true, sudo: "none", isNixos: false, nixdeploy: "", conf: "/etc/nix/nix.conf" },
  ...{
    confIsManaged: false,
    confIsWritable: false,
    confExists: true,
    trustedKeys: "",
    freeKilobytes: null,
    end: "yes",
  },
};
