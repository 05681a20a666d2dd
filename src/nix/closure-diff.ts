/**
 * What changes between two closures, by the names of their store paths, as `nix store diff-closures` tells it: packages
 * that come, go, and have another version; and how much that is. Pure.
 *
 * | before    | after     | kind    |
 * | --------- | --------- | ------- |
 * | none      | 1.0       | added   |
 * | 1.0       | none      | removed |
 * | 1.0       | 1.1       | up      |
 * | 1.1       | 1.0       | down    |
 * | 1.0       | 1.0, 2.0  | changed |
 * | 1.0, 2.0  | 2.0       | changed |
 *
 * Where several versions go and come at once, the highest of each decide. A package of which other store paths with the
 * same versions are there (built anew, configured otherwise) is only counted.
 */
import { compareVersions } from "./package-name.ts";

export type ClosureItem = {
  /** Store paths are the same where this is: `<hash>-<name>`. */
  readonly baseName: string;
  readonly name: string;
  /** "" for what has none. */
  readonly version: string;
  /** Uncompressed; 0 where it is not known. */
  readonly narSizeBytes: number;
  /** As it is downloaded; 0 where it is not known. */
  readonly fileSizeBytes: number;
};

export const CHANGE_KINDS = ["up", "down", "changed", "added", "removed"] as const;
export type ChangeKind = (typeof CHANGE_KINDS)[number];

export type PackageChange = {
  readonly name: string;
  readonly kind: ChangeKind;
  /** Versions that go and that come, the lowest first; both empty for what has no version. */
  readonly before: readonly string[];
  readonly after: readonly string[];
};

export type ClosureDiff = {
  /** By kind, what has a version first, then by name. */
  readonly changes: readonly PackageChange[];
  /** Names with other store paths of the same versions. */
  readonly rebuilt: number;
  readonly sizeBeforeBytes: number;
  readonly sizeAfterBytes: number;
  /** What `after` has and `before` lacks. */
  readonly fetchPaths: number;
  readonly fetchBytes: number;
};

export function diffClosures(before: readonly ClosureItem[], after: readonly ClosureItem[]): ClosureDiff {
  const [had, has] = [namesOf(before), namesOf(after)];
  const come = after.filter(({ baseName }) => !had.has(baseName));
  const gone = before.filter(({ baseName }) => !has.has(baseName));
  const touched = new Set([...come, ...gone].map(({ name }) => name));
  const [versionsBefore, versionsAfter] = [versionsOf(before, touched), versionsOf(after, touched)];
  const changes: PackageChange[] = [];
  let rebuilt = 0;
  for (const name of touched) {
    const change = decideChange(name, versionsBefore.get(name), versionsAfter.get(name));
    if (change === null) rebuilt += 1;
    else changes.push(change);
  }
  return {
    changes: changes.sort(compareChanges),
    rebuilt,
    sizeBeforeBytes: sumOf(before, "narSizeBytes"),
    sizeAfterBytes: sumOf(after, "narSizeBytes"),
    fetchPaths: come.length,
    fetchBytes: sumOf(come, "fileSizeBytes"),
  };
}

function decideChange(
  name: string,
  before: ReadonlySet<string> | undefined,
  after: ReadonlySet<string> | undefined,
): PackageChange | null {
  const gone = sortVersions(before, after);
  const come = sortVersions(after, before);
  if (before === undefined || after === undefined) {
    return { name, kind: before === undefined ? "added" : "removed", before: gone, after: come };
  }
  if (gone.length === 0 && come.length === 0) return null;
  return { name, kind: directionOf(gone.at(-1), come.at(-1)), before: gone, after: come };
}

function directionOf(gone: string | undefined, come: string | undefined): ChangeKind {
  if (gone === undefined || come === undefined) return "changed";
  const order = compareVersions(gone, come);
  if (order === 0) return "changed";
  return order < 0 ? "up" : "down";
}

/** Those of `versions` that are not among `others`. */
function sortVersions(
  versions: ReadonlySet<string> | undefined,
  others: ReadonlySet<string> | undefined,
): readonly string[] {
  return [...(versions ?? [])].filter((version) => version !== "" && !others?.has(version)).sort(compareVersions);
}

function compareChanges(a: PackageChange, b: PackageChange): number {
  const rank = ({ kind, before, after }: PackageChange) =>
    CHANGE_KINDS.indexOf(kind) + (before.length + after.length === 0 ? CHANGE_KINDS.length : 0);
  return rank(a) - rank(b) || (a.name < b.name ? -1 : 1);
}

function namesOf(items: readonly ClosureItem[]): ReadonlySet<string> {
  return new Set(items.map(({ baseName }) => baseName));
}

function versionsOf(
  items: readonly ClosureItem[],
  wanted: ReadonlySet<string>,
): ReadonlyMap<string, ReadonlySet<string>> {
  const versions = new Map<string, Set<string>>();
  for (const { name, version } of items) {
    if (!wanted.has(name)) continue;
    const known = versions.get(name);
    if (known === undefined) versions.set(name, new Set([version]));
    else known.add(version);
  }
  return versions;
}

function sumOf(items: readonly ClosureItem[], size: "narSizeBytes" | "fileSizeBytes"): number {
  return items.reduce((sum, item) => sum + item[size], 0);
}
