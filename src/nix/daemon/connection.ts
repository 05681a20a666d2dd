/**
 * An open session with a Nix daemon: the operations, one at a time, in the order they were asked for.
 *
 * An error that the daemon reports (`DaemonError`) leaves the connection usable. Anything else, a lost connection or
 * bytes that make no sense, ends it: everything asked later is refused. Nothing is retried here.
 *
 * Temporary roots live as long as the connection: the daemon serves each connection by a process of its own, and
 * the roots are that process's.
 */
import { NixdeployError } from "../../errors.ts";
import { createNarReader } from "../nar/nar-reader.ts";
import type { PathInfo } from "../path-info.ts";
import type { StorePath } from "../store-path.ts";
import type { ByteReader } from "./byte-reader.ts";
import { ANSWER_MAX_MS, type DaemonChannel } from "./channel.ts";
import { ConnectionLostError, DaemonError, type DaemonReport, explainFailure } from "./daemon-error.ts";
import { sendFramedBody } from "./framed-body.ts";
import type { DaemonTrust, Session } from "./handshake.ts";
import { OperationQueue } from "./operation-queue.ts";
import { readReply } from "./reply.ts";
import {
  encodeAddIndirectRoot,
  encodeAddTempRoots,
  encodeAddToStoreNar,
  encodeNarFromPath,
  encodeQueryAllValidPaths,
  encodeQueryPathInfo,
  encodeQueryValidPaths,
  readAllValidPaths,
  readDone,
  readValidPath,
  readValidPaths,
  type ValidPath,
} from "./store-operations.ts";

/** Requests that are sent before their answers are read; few enough that neither side's buffers matter. */
const TEMP_ROOTS_IN_FLIGHT = 500;
const PATH_INFOS_IN_FLIGHT = 200;
const VALID_PATHS_PER_QUERY = 2_000;

export interface DaemonConnection extends AsyncDisposable {
  /** "1.34" … "1.38". */
  readonly protocolVersion: string;
  /** For example "2.8.0"; null when the daemon does not say. */
  readonly nixVersion: string | null;
  /** Whether the daemon lets us skip signature checks; "unknown" before 1.35 (Nix 2.15). */
  readonly trust: DaemonTrust;

  /** Those of `paths` that are in the store. Asks no substituter. */
  queryValidPaths(paths: readonly StorePath[]): Promise<ReadonlySet<StorePath>>;

  /** All that are in the store, derivations too; of a large one that are some 100,000. */
  listValidPaths(): Promise<readonly StorePath[]>;

  /** Null when the path is not in the store. */
  queryPathInfo(path: StorePath): Promise<PathInfo | null>;

  /** The same for each of `paths`, asked all at once: one round trip where the daemon is far away. */
  queryPathInfos(paths: readonly StorePath[]): Promise<readonly (PathInfo | null)[]>;

  /** The same, and whether it was built here. */
  queryValidPath(path: StorePath): Promise<ValidPath | null>;

  /**
   * Keeps the paths, valid or not yet, from garbage collection while this connection is open. A valid path keeps its
   * whole closure, one that is not yet valid keeps only itself.
   */
  addTempRoots(paths: readonly StorePath[]): Promise<void>;

  /** Makes the symlink `linkPath` (absolute) a root for as long as it exists. */
  addIndirectRoot(linkPath: string): Promise<void>;

  /**
   * Exactly the bytes of the path's NAR, read as they are pulled. Other operations wait until it has ended.
   *
   * Ending the iteration early (`break`, `return()`) closes the connection, since the daemon cannot be stopped
   * otherwise. Not checked against the NAR hash here.
   * @throws DaemonError when the path is not in the store
   */
  narFromPath(path: StorePath): AsyncIterable<Uint8Array>;

  /**
   * Adds a path whose references are already in the store (or are itself). The daemon checks hash, size and
   * references, and the signatures too with `checkSignatures` (always, for whom it does not trust). Adding a path
   * that is already valid changes nothing.
   *
   * When `nar` throws, that error is thrown here, nothing is added, and the connection stays usable. `nar` must not
   * read from this same connection, which is busy.
   * @throws DaemonError when the daemon refuses · NixdeployError "remote" when `nar` is longer than the info says
   */
  addToStoreNar(options: {
    readonly info: PathInfo;
    readonly nar: AsyncIterable<Uint8Array>;
    readonly checkSignatures: boolean;
  }): Promise<void>;
}

export class OpenDaemonConnection implements DaemonConnection {
  readonly protocolVersion: string;
  readonly nixVersion: string | null;
  readonly trust: DaemonTrust;
  readonly #channel: DaemonChannel;
  readonly #signal: AbortSignal;
  readonly #queue = new OperationQueue();
  readonly #onAbort = () => this.#end(this.#signal.reason);

  constructor(options: { readonly channel: DaemonChannel; readonly session: Session; readonly signal: AbortSignal }) {
    this.protocolVersion = options.session.protocolVersion;
    this.nixVersion = options.session.nixVersion;
    this.trust = options.session.trust;
    this.#channel = options.channel;
    this.#signal = options.signal;
    if (this.#signal.aborted) this.#onAbort();
    else this.#signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end(new ConnectionLostError("the connection to the Nix daemon is closed"));
    this.#signal.removeEventListener("abort", this.#onAbort);
    await this.#channel.close();
  }

  async queryValidPaths(paths: readonly StorePath[]): Promise<ReadonlySet<StorePath>> {
    const what = `ask the Nix daemon which of ${paths.length} paths it has`;
    const valid = new Set<StorePath>();
    for (const some of inBatches(paths, VALID_PATHS_PER_QUERY)) {
      const known = await this.#ask(what, encodeQueryValidPaths(some), (reader) => readValidPaths(reader, some));
      for (const path of known) valid.add(path);
    }
    return valid;
  }

  async listValidPaths(): Promise<readonly StorePath[]> {
    return await this.#ask("ask the Nix daemon for all paths", encodeQueryAllValidPaths(), readAllValidPaths);
  }

  async queryPathInfo(path: StorePath): Promise<PathInfo | null> {
    return (await this.queryValidPath(path))?.info ?? null;
  }

  async queryValidPath(path: StorePath): Promise<ValidPath | null> {
    const what = `ask the Nix daemon about ${path}`;
    try {
      return await this.#ask(what, encodeQueryPathInfo(path), (reader) => readValidPath(reader, path));
    } catch (error) {
      if (error instanceof DaemonError && saysNotValid(error.daemonMessage)) return null;
      throw error;
    }
  }

  async queryPathInfos(paths: readonly StorePath[]): Promise<readonly (PathInfo | null)[]> {
    const what = `ask the Nix daemon about ${paths.length} paths`;
    const infos: (PathInfo | null)[] = [];
    for (const some of inBatches(paths, PATH_INFOS_IN_FLIGHT)) {
      await this.#perform(what, async () => {
        const [answers] = await Promise.all([
          this.#channel.within(ANSWER_MAX_MS, readPathInfos(this.#channel.reader, some)),
          this.#channel.send(Buffer.concat(some.map(encodeQueryPathInfo))),
        ]);
        const refused = answers.find((answer) => answer.kind === "refused");
        if (refused?.kind === "refused") throw new DaemonError(what, refused.report);
        infos.push(...answers.map((answer) => (answer.kind === "answered" ? answer.info : null)));
      });
    }
    return infos;
  }

  async addTempRoots(paths: readonly StorePath[]): Promise<void> {
    for (const some of inBatches(paths, TEMP_ROOTS_IN_FLIGHT)) {
      await this.#perform(`protect ${some.length} paths from garbage collection`, async () => {
        // Answers are read while requests are still being sent, so that no size of either can block both sides.
        const [refused] = await Promise.all([
          this.#channel.within(ANSWER_MAX_MS, this.#readTempRootReplies(some)),
          this.#channel.send(encodeAddTempRoots(some)),
        ]);
        if (refused !== null) throw new DaemonError(`protect ${refused.path} from garbage collection`, refused.report);
      });
    }
  }

  async addIndirectRoot(linkPath: string): Promise<void> {
    await this.#ask(`make ${linkPath} a garbage collection root`, encodeAddIndirectRoot(linkPath), readDone);
  }

  async *narFromPath(path: StorePath): AsyncIterable<Uint8Array> {
    const what = `read ${path} from the Nix store`;
    using _turn = await this.#turn(what);
    const { reader } = this.#channel;
    const nar = createNarReader();
    let isInStep = true;
    try {
      // Asked first, because a daemon begins a NAR before it notices that there is none.
      const valid = await this.#exchange(what, encodeQueryValidPaths([path]), (source) =>
        readValidPaths(source, [path]),
      );
      if (valid.length === 0) throw new DaemonError(what, { message: "it is not there", traces: [] });
      await this.#exchange(what, encodeNarFromPath(path), async () => {});
      isInStep = false;
      while (!isInStep) {
        const chunk = await this.#channel.within(ANSWER_MAX_MS, reader.readSome());
        const usedLength = nar.push(chunk);
        if (usedLength < chunk.length) reader.unread(chunk.subarray(usedLength));
        isInStep = nar.ended;
        yield chunk.subarray(0, usedLength);
      }
    } catch (error) {
      throw this.#explain(what, error);
    } finally {
      if (!isInStep) this.#end(new ConnectionLostError(`the connection was closed in the middle of ${path}`));
    }
  }

  async addToStoreNar(options: {
    readonly info: PathInfo;
    readonly nar: AsyncIterable<Uint8Array>;
    readonly checkSignatures: boolean;
  }): Promise<void> {
    const { info } = options;
    const what = `add ${info.storePath} to the Nix store`;
    const outcome = await this.#perform(what, async () => {
      await this.#channel.send(encodeAddToStoreNar(info, options));
      const answer = readReply(this.#channel.reader);
      answer.catch(() => {
        // Thrown below, unless sending fails first for the same reason.
      });
      const sent = await sendFramedBody({
        source: limitSize(options.nar, info),
        send: (bytes) => this.#channel.send(bytes),
        answer,
      });
      const reply = await this.#channel.within(ANSWER_MAX_MS, answer);
      if (sent.kind !== "source-failed" && reply.kind === "refused") throw new DaemonError(what, reply.report);
      return sent;
    });
    if (outcome.kind === "source-failed") throw outcome.error;
  }

  /** One request, its reply's fields read by `read`. */
  async #ask<T>(what: string, request: Uint8Array, read: ReadFields<T>): Promise<T> {
    return await this.#perform(what, () => this.#exchange(what, request, read));
  }

  /** The same for whoever already has the turn. */
  async #exchange<T>(what: string, request: Uint8Array, read: ReadFields<T>): Promise<T> {
    await this.#channel.send(request);
    const reply = await this.#channel.within(ANSWER_MAX_MS, readReply(this.#channel.reader));
    if (reply.kind === "refused") throw new DaemonError(what, reply.report);
    return await this.#channel.within(ANSWER_MAX_MS, read(this.#channel.reader));
  }

  /** Reads one reply per path, refused or not, and gives the first refusal. */
  async #readTempRootReplies(paths: readonly StorePath[]) {
    let refused: { readonly path: StorePath; readonly report: DaemonReport } | null = null;
    for (const path of paths) {
      const reply = await readReply(this.#channel.reader);
      if (reply.kind === "ready") await readDone(this.#channel.reader);
      else refused ??= { path, report: reply.report };
    }
    return refused;
  }

  async #turn(what: string): Promise<Disposable> {
    try {
      return await this.#queue.turn();
    } catch (error) {
      throw this.#explain(what, error);
    }
  }

  async #perform<T>(what: string, work: () => Promise<T>): Promise<T> {
    using _turn = await this.#turn(what);
    try {
      return await work();
    } catch (error) {
      throw this.#explain(what, error);
    }
  }

  /** What to throw for `error`; everything but a refusal by the daemon ends the connection. */
  #explain(what: string, error: unknown): unknown {
    if (error instanceof DaemonError) return error;
    this.#end(new ConnectionLostError("the connection to the Nix daemon was lost before", { cause: error }));
    if (this.#signal.aborted) return this.#signal.reason;
    return explainFailure(error, { what, peer: this.#channel.peer, lastWords: this.#channel.lastWords() });
  }

  #end(reason: unknown): void {
    this.#queue.close(reason);
    this.#channel.destroy(reason);
  }
}

type PathInfoAnswer =
  | { readonly kind: "answered"; readonly info: PathInfo | null }
  | { readonly kind: "refused"; readonly report: DaemonReport };

/** Reads one reply per path, refused or not. */
async function readPathInfos(reader: ByteReader, paths: readonly StorePath[]): Promise<PathInfoAnswer[]> {
  const answers: PathInfoAnswer[] = [];
  for (const path of paths) {
    const reply = await readReply(reader);
    if (reply.kind === "ready")
      answers.push({ kind: "answered", info: (await readValidPath(reader, path))?.info ?? null });
    else if (saysNotValid(reply.report.message)) answers.push({ kind: "answered", info: null });
    else answers.push({ kind: "refused", report: reply.report });
  }
  return answers;
}

/** Some daemons report as an error what others answer with a flag. */
function saysNotValid(message: string): boolean {
  return message.endsWith("is not valid");
}

type ReadFields<T> = (reader: DaemonChannel["reader"]) => Promise<T>;

function* inBatches<T>(items: readonly T[], length: number): Iterable<readonly T[]> {
  for (let start = 0; start < items.length; start += length) yield items.slice(start, start + length);
}

/** Stops a NAR that goes on after its announced size, before a byte too many is sent. */
async function* limitSize(nar: AsyncIterable<Uint8Array>, info: PathInfo): AsyncIterable<Uint8Array> {
  let sizeBytes = 0;
  for await (const chunk of nar) {
    sizeBytes += chunk.length;
    if (sizeBytes > info.narSizeBytes) {
      throw new NixdeployError(
        "remote",
        `cannot add ${info.storePath} to the Nix store: its NAR is longer than the announced ${info.narSizeBytes} bytes`,
      );
    }
    yield chunk;
  }
}
