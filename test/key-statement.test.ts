/** From a pinned key to the present one, and what leads nowhere. */
import { describe, expect, test } from "bun:test";
import {
  followKeyStatements,
  type KeyStatement,
  keyStatementMessage,
  keyStatementSchema,
  signKeyStatement,
} from "../src/key-statement.ts";
import { formatPublicKey, publicKeyOf, secretKeyFromSeed } from "../src/nix/signing-key.ts";

const keys = [1, 2, 3, 4].map((n) => secretKeyFromSeed(`cache-${n}`, new Uint8Array(32).fill(n)));
const key = (n: number) => {
  const found = keys[n - 1];
  if (found === undefined) throw new Error(`there is no key ${n}`);
  return found;
};
const publicKey = (n: number) => formatPublicKey(publicKeyOf(key(n)));
const statement = (from: number, to: number, changes: Partial<KeyStatement> = {}) => ({
  ...signKeyStatement(key(from), { cache: "default", newKey: publicKeyOf(key(to)), sequence: from, atMs: 1_000 }),
  ...changes,
});
const follow = (pinned: readonly number[], ...statements: KeyStatement[]) =>
  followKeyStatements({ cache: "default", pinned: pinned.map(publicKey), statements });

test("the signed text is what the documentation says", () => {
  const text = new TextDecoder().decode(keyStatementMessage(statement(1, 2)));
  expect(text).toBe(`nixdeploy cache key statement 1\ndefault\n${publicKey(1)}\n${publicKey(2)}\n1\n1000\n`);
  expect(keyStatementSchema.parse(statement(1, 2))).toEqual(statement(1, 2));
});

describe("a pin moves", () => {
  test.each([
    ["by one statement", [1], [statement(1, 2)], [2]],
    ["along a chain, in whatever order it is told", [1], [statement(3, 4), statement(1, 2), statement(2, 3)], [4]],
    ["from the middle of a chain", [2], [statement(1, 2), statement(2, 3)], [3]],
    ["for itself: the other stays", [1, 4], [statement(1, 2)], [2, 4]],
    ["to a key that is pinned already", [1, 2], [statement(1, 2)], [2]],
    ["once, when the same is told twice", [1], [statement(1, 2), statement(1, 2)], [2]],
  ])("%s", (_what, pinned, statements, expected) => {
    const { pinned: after, refused } = follow(pinned, ...statements);
    expect(after).toEqual(expected.map(publicKey));
    expect(refused).toEqual([]);
  });
});

describe("a pin stays", () => {
  const forged = { signature: statement(2, 3).signature };
  test.each([
    ["without statements", [], ""],
    ["with a wrong signature", [statement(1, 2, forged)], "its signature is wrong"],
    ["with a signature by the new key", [{ ...statement(2, 3), oldKey: publicKey(1) }], "its signature is wrong"],
    ["with a signature that is cut", [statement(1, 2, { signature: "AAAA" })], "no key or no signature"],
    ["with another new key than was signed", [statement(1, 2, { newKey: publicKey(3) })], "its signature is wrong"],
    ["with another sequence than was signed", [statement(1, 2, { sequence: 9 })], "its signature is wrong"],
    ["with another time than was signed", [statement(1, 2, { atMs: 9 })], "its signature is wrong"],
    [
      "with a statement of another cache, whatever it calls itself",
      [{ ...signOther(), cache: "default" }],
      "its signature is wrong",
    ],
    ["with a statement of another cache", [signOther()], "it is about another cache (other)"],
    ["where the chain has a gap", [statement(2, 3)], ""],
    ["when its key has named several", [statement(1, 2), statement(1, 3)], "several keys: none of them is followed"],
  ])("%s", (_what, statements, why) => {
    const { pinned, followed, refused } = follow([1], ...statements);
    expect(pinned).toEqual([publicKey(1)]);
    expect(followed).toEqual([]);
    if (why === "") expect(refused).toEqual([]);
    else expect(refused.join("\n")).toContain(why);
  });

  test("where it was moved away from: an old statement said again leads nowhere", () => {
    expect(follow([2], statement(1, 2)).pinned).toEqual([publicKey(2)]);
  });

  test("no circle is followed for ever", () => {
    expect(follow([1], statement(1, 2), statement(2, 1)).pinned).toEqual([publicKey(2)]);
  });
});

function signOther(): KeyStatement {
  return signKeyStatement(key(1), { cache: "other", newKey: publicKeyOf(key(2)), sequence: 1, atMs: 1_000 });
}
