/**
 * A NAR on its way out of the local store, checked against what the store has on record while it passes.
 */
import { createHash } from "node:crypto";
import { NixdeployError } from "../../../errors.ts";
import { narHashFromDigest } from "../../hash.ts";
import type { PathInfo } from "../../path-info.ts";

/**
 * `nar` unchanged.
 * @throws NixdeployError "host" before its end when size or hash is not the recorded one: who got this far has not
 *   seen the end of a stream, so a damaged path cannot look like a complete one
 */
export async function* checkNar(
  nar: AsyncIterable<Uint8Array>,
  info: PathInfo,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  for await (const chunk of nar) {
    sizeBytes += chunk.length;
    if (sizeBytes > info.narSizeBytes) throw describeDamage(info, `it is larger than ${info.narSizeBytes} bytes`);
    hash.update(chunk);
    onBytes(chunk.length);
    yield chunk;
  }
  if (sizeBytes < info.narSizeBytes) {
    throw describeDamage(info, `it has ${sizeBytes} of ${info.narSizeBytes} bytes`);
  }
  const narHash = narHashFromDigest(hash.digest());
  if (narHash !== info.narHash) throw describeDamage(info, `its hash is ${narHash} instead of ${info.narHash}`);
}

function describeDamage(info: PathInfo, why: string): NixdeployError {
  return new NixdeployError("host", `cannot send ${info.storePath}: it is not what the Nix store recorded: ${why}`, {
    hint: `The path was changed on disk. Try: nix-store --repair-path ${info.storePath}`,
  });
}
