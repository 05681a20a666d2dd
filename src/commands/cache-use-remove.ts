/** `nixdeploy cache use --remove`: takes our lines, and the token that came with them, out of Nix's files again. */
import type { CacheDto } from "../api/caches.ts";
import { findNetrcEntry, netrcHost, withoutNetrcEntry } from "../client/nix-files/netrc.ts";
import { findCacheBlocks, withoutCacheBlock } from "../client/nix-files/nix-conf.ts";
import { NixdeployError } from "../errors.ts";
import { type Files, saveFiles, sayRestart } from "./cache-use-files.ts";
import type { CommandContext } from "./command-line/context.ts";
import { findCoordinatorUrl } from "./command-line/environment.ts";
import { printResult } from "./terminal/output.ts";

export async function removeUse(
  context: CommandContext,
  asked: { readonly name: CacheDto["name"]; readonly files: Files; readonly print: boolean },
): Promise<void> {
  const { name, files, print } = asked;
  const blocks = findCacheBlocks(files.conf);
  const address = context.urlFlag === null ? "" : `${findCoordinatorUrl(context)?.text}/`;
  const ours = blocks.filter((block) => block.name === name && block.url.startsWith(address));
  const [block, ...others] = ours;
  if (block === undefined)
    throw new NixdeployError("not-found", `cannot find lines of ours for the cache ${name} in ${files.confPath}`);
  if (others.length > 0) {
    throw new NixdeployError(
      "usage",
      `cannot tell which cache ${name} is meant: ${ours.map(({ url }) => url).join(", ")}`,
      {
        hint: "Say which coordinator with --url.",
      },
    );
  }
  const host = netrcHost(block.url);
  const isHostUsed = blocks.some((each) => each !== block && netrcHost(each.url) === host);
  const conf = withoutCacheBlock(files.conf, block);
  const netrc = isHostUsed ? files.netrc : withoutNetrcEntry(files.netrc, host);
  if (print)
    return await printResult(context, { json: { ...block, removed: false }, text: `# ${files.confPath}\n${conf}` });
  const changed = await saveFiles(files, { conf, netrc, holdsToken: false });
  await printResult(context, {
    json: { cache: name, url: block.url, mode: files.mode, changed, removed: true },
    text: "",
  });
  context.log.info(`Nix reads ${block.url} no more (${changed.join(", ")})`);
  const [, id] = /^nd_read_([0-9a-z]+)_/.exec(findNetrcEntry(files.netrc, host)?.password ?? "") ?? [];
  if (netrc !== files.netrc && id !== undefined)
    context.log.info(`its token is good still: nixdeploy token revoke ${id}`);
  sayRestart(context, files.mode);
}
