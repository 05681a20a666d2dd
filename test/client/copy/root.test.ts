/** Becoming root on a machine: who is asked for what, and that a password which was refused is not kept. */
import { describe, expect, test } from "bun:test";
import type { Probe } from "../../../src/client/copy/probe.ts";
import { becomeRoot, needRoot } from "../../../src/client/copy/root.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { ALICE, createScriptedSide } from "../../support/scripted-side.ts";

const { signal } = new AbortController();

/** Somebody at a terminal, who types that; null: nobody is there. */
function typing(text: string | null) {
  const questions: string[] = [];
  const askSecret = async (question: string) => {
    questions.push(question);
    return text;
  };
  return { questions, askSecret };
}

const NOBODY = typing(null).askSecret;

describe("without a question", () => {
  test.each([
    ["root", { uid: 0, sudo: "none" }, "is"],
    ["root, where sudo would ask", { uid: 0, sudo: "asks" }, "is"],
    ["a user whose sudo asks nothing", { sudo: "free" }, "sudo"],
    ["a user without sudo", { sudo: "none" }, "cannot"],
  ] as const)("%s", async (_, changes: Partial<Probe>, way) => {
    const { questions, askSecret } = typing("never");
    const side = createScriptedSide();
    expect(await becomeRoot({ side, probe: { ...ALICE, ...changes }, askSecret, signal })).toBe(way);
    expect(questions).toEqual([]);
    expect(side.ran).toEqual([]);
  });
});

describe("by a password", () => {
  const probe: Probe = { ...ALICE, sudo: "asks" };

  test("it is asked for once, tried, and used from then on", async () => {
    const { questions, askSecret } = typing("open sesame");
    const side = createScriptedSide();
    expect(await becomeRoot({ side, probe, askSecret, signal })).toBe("sudo");
    expect(await becomeRoot({ side, probe, askSecret, signal })).toBe("sudo");
    expect(questions).toEqual(["Password of alice on alice@nuc, for sudo: "]);
    expect(side.ran.map(({ script, password }) => [script.asRoot, password])).toEqual([[true, "open sesame"]]);
  });

  test("one that sudo refuses is forgotten", async () => {
    const side = createScriptedSide(() => ({ code: 1 }));
    const { askSecret } = typing("wrong");
    const refused = becomeRoot({ side, probe, askSecret, signal });
    expect(await refused.catch((error: unknown) => error)).toMatchObject({ kind: "denied" });
    expect(side.sudo.password).toBeNull();
  });

  test.each([null, ""])("none is no way: %p", async (text) => {
    const side = createScriptedSide();
    expect(await becomeRoot({ side, probe, askSecret: typing(text).askSecret, signal })).toBe("cannot");
    expect(side.ran).toEqual([]);
  });
});

describe("what takes root", () => {
  test("needs sudo for everybody but root", async () => {
    const need = (changes: Partial<Probe>) =>
      needRoot("activate", { side: createScriptedSide(), probe: { ...ALICE, ...changes }, askSecret: NOBODY, signal });
    expect(await need({ uid: 0 })).toBe(false);
    expect(await need({ sudo: "free" })).toBe(true);
  });

  test.each([
    ["none", "there is no sudo for alice", 2],
    ["asks", "nobody can be asked here", 3],
  ] as const)("and is refused with what to do where sudo %s", async (sudo, why, hints) => {
    const probe: Probe = { ...ALICE, sudo };
    const refused = needRoot("activate /nix/store/x", { side: createScriptedSide(), probe, askSecret: NOBODY, signal });
    const error = await refused.catch((thrown: unknown) => thrown);
    if (!(error instanceof NixdeployError)) throw error;
    expect(error.kind).toBe("denied");
    expect(error.message).toStartWith("cannot activate /nix/store/x on alice@nuc: it takes root, and ");
    expect(error.message).toEndWith(why);
    expect(error.details).toHaveLength(hints);
  });
});
