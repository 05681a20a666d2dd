/**
 * Which keys count for which cache on this device, when the workspace has several. Pure.
 *
 * Keys given by the operator (--trusted-public-key) count for every cache, and no others do. Otherwise each cache has the
 * keys that it was told with at the first contact, and what is told later moves them only by what they have signed
 * themselves (`key-statement.ts`): a coordinator that could add a cache with keys of its own choice could run anything as
 * root here. So a cache that was added later is not used until the device is given its key.
 */
import { followKeyStatements } from "../../key-statement.ts";
import type { CacheName } from "../../names.ts";
import type { Substituter, Welcome } from "../../protocol.ts";
import type { Enrolment } from "./enrolment.ts";

type Pins = Pick<Enrolment, "pinnedPublicKeys" | "pinnedCache" | "substituterPins">;

/** `name:base64`, none when nothing may be fetched from it. */
export function keysForCache(
  name: CacheName,
  known: { readonly given: readonly string[]; readonly pins: Pins | null },
): readonly string[] {
  const { given, pins } = known;
  if (given.length > 0) return given;
  if (pins === null) return [];
  const others = pins.substituterPins ?? {};
  // A cache may be called as something that every object has.
  if (Object.hasOwn(others, name)) return others[name] ?? [];
  const isPinnedCache = pins.pinnedCache === undefined || pins.pinnedCache === name;
  return isPinnedCache ? pins.pinnedPublicKeys : [];
}

export type SubstituterDecision = {
  /** What to record beside the keys of the cache that came first at the first contact. */
  readonly record: {
    readonly pinnedCache: CacheName;
    readonly substituterPins: Record<string, string[]>;
  };
  /** A sentence each. Warnings are of caches that are not used, or not with all of their keys. */
  readonly news: readonly string[];
  readonly warnings: readonly string[];
};

type Told = Pick<Substituter, "name" | "publicKeys" | "keyStatements">;

/** After a welcome, for all caches but the one that came first. @param enrolment null at the first contact */
export function planSubstituterPins(options: {
  readonly given: readonly string[];
  readonly enrolment: Enrolment | null;
  readonly welcome: Pick<Welcome, "cache" | "substituters">;
}): SubstituterDecision {
  const { given, enrolment, welcome } = options;
  // Of an older version's file it is known that there was one cache, and that it came first.
  const pinnedCache = enrolment?.pinnedCache ?? welcome.cache.name;
  const told: readonly Told[] = [welcome.cache, ...(welcome.substituters ?? [])].filter(
    ({ name }) => name !== pinnedCache,
  );
  const before = enrolment === null ? pinAll(given, told) : (enrolment.substituterPins ?? {});
  const moves = told.map((cache) => moveOne(cache, { given, pinned: before }));
  const moved = moves.filter(({ keys }) => keys !== null).map(({ name, keys }) => [name, keys ?? []]);
  return {
    record: { pinnedCache, substituterPins: { ...before, ...Object.fromEntries(moved) } },
    news: moves.flatMap(({ news }) => news),
    warnings: moves.flatMap(({ warnings }) => warnings),
  };
}

function pinAll(given: readonly string[], told: readonly Told[]): Record<string, string[]> {
  return Object.fromEntries(given.length > 0 ? [] : told.map(({ name, publicKeys }) => [name, [...publicKeys]]));
}

type Move = {
  readonly name: CacheName;
  /** Null: what is recorded stays. */
  readonly keys: string[] | null;
  readonly news: readonly string[];
  readonly warnings: readonly string[];
};

function moveOne(
  { name, publicKeys, keyStatements = [] }: Told,
  known: { readonly given: readonly string[]; readonly pinned: Readonly<Record<string, string[]>> },
): Move {
  const { given, pinned } = known;
  const own = Object.hasOwn(pinned, name) ? (pinned[name] ?? []) : [];
  const isGiven = given.length > 0;
  const { followed, refused, ...result } = followKeyStatements({ cache: name, pinned: own, statements: keyStatements });
  const keys = isGiven ? given : result.pinned;
  const unknown = publicKeys.filter((key) => !keys.includes(key));
  return {
    name,
    keys: isGiven || followed.length === 0 ? null : [...result.pinned],
    news: isGiven ? [] : followed.map(({ newKey }) => `the cache ${name} has the key ${newKey} now: it is pinned`),
    warnings: [
      ...(isGiven ? [] : refused),
      ...(unknown.length === 0 ? [] : [describeUnknown({ name, unknown, isUsed: keys.length > 0 })]),
    ],
  };
}

function describeUnknown(of: { readonly name: string; readonly unknown: readonly string[]; readonly isUsed: boolean }) {
  const names = of.unknown.map((key) => key.slice(0, key.indexOf(":"))).join(", ");
  const effect = of.isUsed ? "what only that key has signed is not taken" : "nothing is fetched from it";
  return (
    `the cache ${of.name} signs with a key that this device has not pinned (${names}), so ${effect}: give the agent all ` +
    "the keys that it shall trust with --trusted-public-key, if you know it to be right"
  );
}
