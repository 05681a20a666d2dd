/**
 * Which keys count for which cache on this device, when the workspace has several. Pure.
 *
 * Keys given by the operator (--trusted-public-key) count for every cache. Otherwise each cache has the keys that it was
 * told with at the first contact; what is told later moves them only by what they have signed themselves
 * (`key-statement.ts`). A cache that was added later, or a foreign one with other keys, counts by a voucher
 * (`key-voucher.ts`) that is signed by a key of which this device knows that it may: one that the operator gave, else one
 * of a cache that was the coordinator's own at the first contact. A coordinator that could add a cache with keys of its
 * own choice, although no key of the device says so, could run anything as root here.
 */
import { followKeyStatements } from "../../key-statement.ts";
import { chooseVoucher, type KeyVoucher, type TakenVoucher } from "../../key-voucher.ts";
import type { CacheName } from "../../names.ts";
import type { Substituter, Welcome } from "../../protocol.ts";
import type { Enrolment } from "./enrolment.ts";

type Pins = Pick<Enrolment, "pinnedPublicKeys" | "pinnedCache" | "substituterPins" | "vouched">;

/** `name:base64`, none when nothing may be fetched from it. */
export function keysForCache(
  name: CacheName,
  known: { readonly given: readonly string[]; readonly pins: Pins | null },
): readonly string[] {
  const { given, pins } = known;
  if (given.length > 0) return withVouched(given, findOwn(pins?.vouched ?? {}, name));
  if (pins === null) return [];
  const pinned = findOwn(pins.substituterPins ?? {}, name);
  if (pinned !== undefined) return pinned;
  const isPinnedCache = pins.pinnedCache === undefined || pins.pinnedCache === name;
  return isPinnedCache ? pins.pinnedPublicKeys : [];
}

/** What a given key vouches for counts as long as that key is given. */
function withVouched(given: readonly string[], vouched: TakenVoucher | undefined): readonly string[] {
  const isGood = vouched !== undefined && given.includes(vouched.by);
  return isGood ? [...new Set([...given, ...vouched.keys])] : given;
}

/** A cache may be called as something that every object has. */
function findOwn<Value>(record: Readonly<Record<string, Value>>, name: string): Value | undefined {
  return Object.hasOwn(record, name) ? record[name] : undefined;
}

export type SubstituterDecision = {
  /** What to record beside the keys of the cache that came first at the first contact. */
  readonly record: Required<Pick<Enrolment, "pinnedCache" | "substituterPins" | "ownCaches" | "vouched">>;
  /** A sentence each. Warnings are of caches that are not used, or not with all of their keys. */
  readonly news: readonly string[];
  readonly warnings: readonly string[];
};

type Told = Pick<Substituter, "name" | "publicKeys" | "keyStatements">;

/** The cache that came first at the first contact. Of an older version's file it is known that there was one. */
export function firstCacheOf(enrolment: Enrolment | null, welcome: Pick<Welcome, "cache">): CacheName {
  return enrolment?.pinnedCache ?? welcome.cache.name;
}

/** After a welcome, for all caches but the one that came first. @param enrolment null at the first contact */
export function planSubstituterPins(options: {
  readonly given: readonly string[];
  readonly enrolment: Enrolment | null;
  readonly welcome: Pick<Welcome, "cache" | "substituters" | "keyVouchers">;
  /** Of the cache that came first, as they are from now on. */
  readonly pinnedPublicKeys: readonly string[];
}): SubstituterDecision {
  const { given, enrolment, welcome } = options;
  const isGiven = given.length > 0;
  const pinnedCache = firstCacheOf(enrolment, welcome);
  const { cache, substituters = [] } = welcome;
  const told: readonly Told[] = [cache, ...substituters].filter(({ name }) => name !== pinnedCache);
  const before = enrolment === null ? pinAll(given, told) : (enrolment.substituterPins ?? {});
  const moves = isGiven ? [] : told.map((each) => moveOne(each, before));
  const pins = {
    ...{ pinnedCache, pinnedPublicKeys: [...options.pinnedPublicKeys] },
    substituterPins: { ...before, ...toRecord(moves, ({ keys }) => keys) },
  };
  const atFirst = [cache, ...substituters.filter(({ own }) => own)].map(({ name }) => name);
  const ownCaches = enrolment === null ? atFirst : (enrolment.ownCaches ?? [pinnedCache]);
  const vouchers = {
    vouchers: welcome.keyVouchers ?? [],
    trusted: isGiven ? given : ownCaches.flatMap((name) => keysForCache(name, { given, pins })),
    taken: enrolment?.vouched ?? {},
    known: (name: CacheName) => keysForCache(name, { given, pins: { ...pins, vouched: enrolment?.vouched } }),
  };
  const choices = told.map((each) => vouchOne(each, vouchers));
  const record = {
    ...{ pinnedCache, ownCaches },
    vouched: { ...vouchers.taken, ...toRecord(choices, ({ taken }) => taken) },
    substituterPins: {
      ...pins.substituterPins,
      ...(isGiven ? {} : toRecord(choices, ({ taken }) => (taken === null ? null : [...taken.keys]))),
    },
  };
  const keysNow = (name: CacheName) => keysForCache(name, { given, pins: { ...pins, ...record } });
  return {
    record,
    news: [...moves, ...choices].flatMap(({ news }) => news),
    warnings: [
      ...[...moves, ...choices].flatMap(({ warnings }) => warnings),
      ...told.flatMap((each) => describeUnknown(each, keysNow(each.name))),
    ],
  };
}

function pinAll(given: readonly string[], told: readonly Told[]): Record<string, string[]> {
  return Object.fromEntries(given.length > 0 ? [] : told.map(({ name, publicKeys }) => [name, [...publicKeys]]));
}

/** By name, without those of which there is nothing. */
function toRecord<Item extends { readonly name: CacheName }, Value>(
  items: readonly Item[],
  read: (item: Item) => Value | null,
): Record<string, Value> {
  const entries = items.map((item) => [item.name, read(item)] as const);
  return Object.fromEntries(entries.flatMap(([name, value]) => (value === null ? [] : [[name, value] as const])));
}

type Said = { readonly name: CacheName; readonly news: readonly string[]; readonly warnings: readonly string[] };
/** Null: what is recorded stays. */
type Move = Said & { readonly keys: string[] | null };
type Vouched = Said & { readonly taken: TakenVoucher | null };

function moveOne({ name, keyStatements = [] }: Told, pinned: Readonly<Record<string, string[]>>): Move {
  const { followed, refused, ...moved } = followKeyStatements({
    ...{ cache: name, pinned: findOwn(pinned, name) ?? [], statements: keyStatements },
  });
  return {
    name,
    keys: followed.length === 0 ? null : [...moved.pinned],
    news: followed.map(({ newKey }) => `the cache ${name} has the key ${newKey} now: it is pinned`),
    warnings: refused,
  };
}

function vouchOne(
  { name }: Told,
  known: {
    readonly vouchers: readonly KeyVoucher[];
    readonly trusted: readonly string[];
    readonly taken: Readonly<Record<string, TakenVoucher>>;
    /** The keys that count for the cache until now. */
    readonly known: (name: CacheName) => readonly string[];
  },
): Vouched {
  const choice = chooseVoucher({ ...known, cache: name, taken: findOwn(known.taken, name) ?? null });
  const nothing = { name, taken: null, news: [], warnings: [] };
  if (choice.kind === "none") return nothing;
  if (choice.kind === "refused") return { ...nothing, warnings: [choice.why] };
  const { voucher } = choice;
  const isNew = voucher.keys.some((key) => !known.known(name).includes(key));
  const news = `what the cache ${name} serves may be signed by ${voucher.keys.join(", ")} now: ${voucher.by} vouches for it`;
  return { name, taken: voucher, news: isNew ? [news] : [], warnings: [] };
}

function describeUnknown({ name, publicKeys }: Told, keys: readonly string[]): readonly string[] {
  const unknown = publicKeys.filter((key) => !keys.includes(key));
  if (unknown.length === 0) return [];
  const names = unknown.map((key) => key.slice(0, key.indexOf(":"))).join(", ");
  const effect = keys.length > 0 ? "what only that key has signed is not taken" : "nothing is fetched from it";
  return [
    `the cache ${name} signs with a key that this device has not pinned (${names}), so ${effect}: if you know it to be ` +
      "right, vouch for it with a key that this device trusts (nixdeploy cache vouch), or give the agent all the keys that " +
      "it shall trust with --trusted-public-key",
  ];
}
