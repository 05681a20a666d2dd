/**
 * Garbage-collector roots of the deployments of one agent: one link for each, made as soon as the path is valid, so
 * that nothing is lost when the daemon connection with its temporary roots ends before the profile names the path.
 *
 * The link of the latest deployment stays until the next one: a retry, or a system in mode `test` that no profile
 * names, still finds its paths.
 */
import { lstat, rename, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { describeError, NixdeployError } from "../../errors.ts";
import { type AgentName, type DeploymentId, parseDeploymentId } from "../../names.ts";
import type { DaemonConnection } from "../../nix/daemon/connection.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { ensureDirectory, syncDirectory } from "./durable-file.ts";
import { listNames } from "./look.ts";
import { readStoreLink } from "./profile-link.ts";

export type GcRoots = {
  /**
   * Roots valid paths: the deployment's own first, then what it needs besides. Roots and paths are on the disk on return.
   * @throws NixdeployError("host")
   */
  keep(options: {
    readonly deploymentId: DeploymentId;
    readonly storePaths: readonly StorePath[];
    readonly daemon: DaemonConnection;
  }): Promise<void>;
  /** Removes the links of all other deployments of this agent than these, for good. */
  dropOthers(kept: readonly DeploymentId[]): Promise<void>;
  /** The same, but for the latest that has links: what a power cut brought back, or kept somebody from removing. */
  dropForgotten(known: readonly DeploymentId[]): Promise<void>;
  /** What this agent keeps now. */
  list(): Promise<readonly StorePath[]>;
};

type Link = { readonly path: string; readonly deploymentId: DeploymentId };

const ROOT_DIRECTORY = "/nix/var/nix/gcroots/nixdeploy";

/** Root writes links where Nix looks for them; other users keep theirs in `stateDirectory` and tell the daemon. */
export function createGcRoots(options: {
  readonly agent: AgentName;
  readonly isRoot: boolean;
  readonly stateDirectory: string;
  /** Writes to the disk what the daemon wrote to the store. @throws NixdeployError("host") */
  readonly syncStore: () => Promise<void>;
}): GcRoots {
  const { agent, isRoot, syncStore } = options;
  const directory = isRoot ? ROOT_DIRECTORY : join(options.stateDirectory, "gcroots");
  const own = new RegExp(`^${RegExp.escape(agent)}-([0-9a-z]{16})(?:-[0-9]+)?(?:\\.new)?$`);
  const linkOf = (id: DeploymentId, index: number) => `${agent}-${id}${index === 0 ? "" : `-${index}`}`;
  const listLinks = async (): Promise<readonly Link[]> =>
    (await listNames(directory)).flatMap((name) => {
      const [, id] = own.exec(name) ?? [];
      return id === undefined ? [] : [{ path: join(directory, name), deploymentId: parseDeploymentId(id) }];
    });
  const drop = async (kept: readonly DeploymentId[]) => {
    const dropped = (await listLinks()).filter(({ deploymentId }) => !kept.includes(deploymentId));
    for (const { path } of dropped) await rm(path, { force: true });
    if (dropped.length > 0) await syncDirectory(directory);
  };
  return {
    async keep({ deploymentId, storePaths, daemon }) {
      for (const [index, storePath] of storePaths.entries()) {
        const link = join(directory, linkOf(deploymentId, index));
        try {
          await ensureDirectory(directory, 0o755);
          await replaceLink(link, storePath);
          if (!isRoot) await daemon.addIndirectRoot(link);
        } catch (cause) {
          throw new NixdeployError(
            "host",
            `cannot keep ${storePath} from garbage collection: ${describeError(cause)}`,
            {
              cause,
            },
          );
        }
      }
      if (storePaths.length > 0) await syncDirectory(directory);
      // While the daemon is connected: with its last connection Nix' database says for good that the paths are valid.
      await syncStore();
    },
    dropOthers: drop,
    async dropForgotten(known) {
      const latest = await findLatest(await listLinks());
      await drop(latest === null ? known : [...known, latest]);
    },
    async list() {
      const paths: StorePath[] = [];
      for (const { path: link } of await listLinks()) {
        const path = await readStoreLink(link);
        if (path !== null) paths.push(path);
      }
      return paths;
    },
  };
}

/** The deployment whose links are the newest. */
async function findLatest(links: readonly Link[]): Promise<DeploymentId | null> {
  let latest: { readonly deploymentId: DeploymentId; readonly madeMs: number } | null = null;
  for (const { path, deploymentId } of links) {
    const { mtimeMs: madeMs } = await lstat(path);
    if (latest === null || madeMs > latest.madeMs) latest = { deploymentId, madeMs };
  }
  return latest?.deploymentId ?? null;
}

async function replaceLink(link: string, target: string): Promise<void> {
  const temporary = `${link}.new`;
  await rm(temporary, { force: true });
  await symlink(target, temporary);
  await rename(temporary, link);
}
