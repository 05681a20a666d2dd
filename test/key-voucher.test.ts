/** Vouchers for the keys of other caches: who counts, what is newer, and what is no good. */
import { describe, expect, test } from "bun:test";
import {
  chooseVoucher,
  type KeyVoucher,
  keyVoucherMessage,
  signKeyVoucher,
  type TakenVoucher,
} from "../src/key-voucher.ts";
import { decodeBase64 } from "../src/nix/base64.ts";
import { verifyMessage } from "../src/nix/signature.ts";
import { formatPublicKey, publicKeyOf, secretKeyFromSeed } from "../src/nix/signing-key.ts";

const [main, other, first, second] = ["main-1", "other-1", "nixos-1", "nixos-2"].map((name, index) =>
  secretKeyFromSeed(name, new Uint8Array(32).fill(index + 1)),
);
if (main === undefined || other === undefined || first === undefined || second === undefined) throw new Error("4 keys");
const [MAIN, OTHER, FIRST, SECOND] = [main, other, first, second].map((key) => formatPublicKey(publicKeyOf(key)));
if (MAIN === undefined || OTHER === undefined || FIRST === undefined || SECOND === undefined) throw new Error("4 keys");

const voucher = (atMs: number, keys = [FIRST], by = main): KeyVoucher =>
  signKeyVoucher(by, { cache: "nixos", keys, atMs });
const taken = (atMs: number, keys = [FIRST], by = MAIN): TakenVoucher => ({ keys, by, atMs });
const choose = (vouchers: readonly KeyVoucher[], known: TakenVoucher | null = null, trusted = [MAIN]) =>
  chooseVoucher({ cache: "nixos", vouchers, trusted, taken: known });

test("the bytes that are signed are what the document says", () => {
  const made = voucher(1767225600000, [FIRST, SECOND]);
  const text = `nixdeploy cache key voucher 1\nnixos\n${MAIN}\n1767225600000\n${FIRST}\n${SECOND}\n`;
  expect(Buffer.from(keyVoucherMessage(made)).toString()).toBe(text);
  expect(verifyMessage(publicKeyOf(main).bytes, Buffer.from(text), decodeBase64(made.signature, 64))).toBeTrue();
});

const isTaken = (of: TakenVoucher) => ({ kind: "taken", voucher: of }) as const;
const isNone = { kind: "none" } as const;
const cases: readonly (readonly [what: string, is: ReturnType<typeof choose>, want: object])[] = [
  ["the first one", choose([voucher(1)]), isTaken(taken(1))],
  ["by a key that does not count", choose([voucher(1, [FIRST], other)]), isNone],
  ["for another cache", choose([signKeyVoucher(main, { cache: "x", keys: [FIRST], atMs: 1 })]), isNone],
  ["again", choose([voucher(1)], taken(1)), isNone],
  ["a newer one with other keys", choose([voucher(2, [SECOND])], taken(1)), isTaken(taken(2, [SECOND]))],
  ["a newer one with the same keys", choose([voucher(2)], taken(1)), isTaken(taken(2))],
  ["an older one with the same keys", choose([voucher(1)], taken(2)), isNone],
  ["the newest of several", choose([voucher(1), voucher(3, [SECOND]), voucher(2)]), isTaken(taken(3, [SECOND]))],
  ["the same by another key, whose word counts", choose([voucher(1)], taken(1, [FIRST], OTHER)), isTaken(taken(1))],
];
test.each(cases)("%s", (_what, is, want) => expect(is).toEqual(want as typeof is));

describe("refused, and said", () => {
  const forged = { ...voucher(1), keys: [SECOND] };
  const refused: readonly (readonly [what: string, is: ReturnType<typeof choose>, why: string])[] = [
    ["with other keys than were signed", choose([forged]), "its signature is wrong"],
    ["with another time than was signed", choose([{ ...voucher(1), atMs: 9 }]), "its signature is wrong"],
    [
      "signed by another key than it says",
      choose([{ ...voucher(1, [FIRST], other), by: MAIN }]),
      "its signature is wrong",
    ],
    ["with a key that is none", choose([voucher(1, ["nonsense"])]), "no key or no signature of the right form"],
    ["with a signature that is none", choose([{ ...voucher(1), signature: "AA" }]), "no key or no signature"],
    ["older than what was taken", choose([voucher(1, [SECOND])], taken(2)), "a newer one was taken before"],
    ["of the same time as what was taken", choose([voucher(2, [SECOND])], taken(2)), "a newer one was taken before"],
    [
      "two of the same time",
      choose([voucher(1), voucher(1, [SECOND])]),
      "two of the same time that name different keys",
    ],
  ];
  test.each(refused)("%s", (_what, is, why) => {
    expect(is).toEqual({ kind: "refused", why: expect.stringContaining(why) });
  });
});
