/**
 * One request for several hosts: so many at a time, each to its own end, and what became of each. One host that fails
 * holds up none of the others.
 */
import { describeError, NixdeployError } from "../../errors.ts";

export type HostEnd<Result> =
  | { readonly kind: "done"; readonly host: string; readonly result: Result }
  | { readonly kind: "failed"; readonly host: string; readonly error: unknown };

export async function forEachHost<Host extends { readonly name: string }, Result>(options: {
  readonly hosts: readonly Host[];
  readonly atOnce: number;
  readonly work: (host: Host) => Promise<Result>;
  readonly onFailed: (host: string, error: unknown) => void;
  readonly signal: AbortSignal;
}): Promise<readonly HostEnd<Result>[]> {
  const { hosts, work, onFailed, signal } = options;
  const ends: HostEnd<Result>[] = [];
  const waiting = [...hosts.entries()];
  const lane = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [index, host] = next;
      try {
        signal.throwIfAborted();
        ends[index] = { kind: "done", host: host.name, result: await work(host) };
      } catch (error) {
        ends[index] = { kind: "failed", host: host.name, error };
        if (!signal.aborted) onFailed(host.name, error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(options.atOnce, hosts.length) }, lane));
  signal.throwIfAborted();
  return ends;
}

/** What to throw in the end; null when all are done. One host's failure is its own, several become one. Pure. */
export function summarizeFailures(verb: string, ends: readonly HostEnd<unknown>[]): unknown {
  const failed = ends.flatMap((end) => (end.kind === "failed" ? [end] : []));
  const [first] = failed;
  if (first === undefined) return null;
  if (ends.length === 1 || !failed.every(({ error }) => error instanceof NixdeployError)) return first.error;
  const kinds = new Set(failed.map(({ error }) => (error instanceof NixdeployError ? error.kind : "refused")));
  const [kind = "refused"] = kinds;
  const rest = failed.length === ends.length ? "none is done" : "the others are done";
  return new NixdeployError(
    kinds.size === 1 ? kind : "refused",
    `cannot ${verb} ${failed.length} of ${ends.length} hosts: ${rest}`,
    { details: failed.map(({ host, error }) => `${host}: ${describeError(error)}`) },
  );
}
