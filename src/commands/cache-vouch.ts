/**
 * `nixdeploy cache vouch`: signs here, by a key that the coordinator does not have, which keys a cache may sign with. The
 * keys are typed, not taken from the coordinator's answer: whoever signs says what he knows, not what he was told.
 */
import { NixdeployError } from "../errors.ts";
import { signKeyVoucher } from "../key-voucher.ts";
import { CACHE_NAME, DEFAULT_WORKSPACE, parseKeyArgument, WORKSPACE } from "./cache-args.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { DATA_DIR_ARG, openAdministration } from "./open-coordinator.ts";
import { readSigningKey } from "./signing-key.ts";
import { printResult } from "./terminal/output.ts";

export const vouch = defineNixdeployCommand({
  name: "cache vouch",
  summary: "Say by a signature which keys of a cache devices may trust",
  details:
    "For devices with --trusted-public-key, which take nobody's word but that of a key of theirs: sign with its secret. They " +
    "take the keys at once, or at their next contact, for that cache alone, instead of what was vouched for before. The coordinator " +
    "keeps and passes on the signed statement and never sees the secret. It counts wherever that key is trusted.",
  examples: [
    {
      comment: "A cache that was added with cache add-foreign; the key as its owner publishes it",
      command:
        "nixdeploy cache vouch nixos --signing-key-file ./fleet.secret " +
        "--public-key cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
    },
  ],
  args: {
    publicKey: {
      type: "string",
      repeatable: true,
      valueHint: "NAME:BASE64",
      description: "What it signs with; all of its keys that shall count",
      parse: parseKeyArgument,
    },
    signingKeyFile: {
      type: "string",
      valueHint: "FILE",
      description: "Sign with this key (default: NIXDEPLOY_SIGNING_KEY)",
    },
    withdraw: {
      type: "boolean",
      description: "Tell devices no more; one that has taken the keys keeps them until others are vouched for",
    },
    workspace: { ...WORKSPACE, description: "Whose agents (default: default)" },
    dataDir: DATA_DIR_ARG,
  },
  positionals: { name: CACHE_NAME },
  async run({ args, context }) {
    const { name, publicKey: keys, workspace = DEFAULT_WORKSPACE, withdraw } = args;
    const saysKeys = keys.length > 0 || args.signingKeyFile !== undefined;
    if (withdraw ? saysKeys : keys.length === 0) {
      throw new NixdeployError("usage", "cannot vouch: give the cache's --public-key, or --withdraw alone");
    }
    const secretKey = withdraw ? null : await requireSigningKey(context, args.signingKeyFile);
    await using coordinator = await openAdministration(context, args.dataDir);
    if (secretKey === null) {
      await coordinator.withdrawKeyVouchers({ workspace, name }, context.signal);
      await printResult(context, { json: { name, workspace, withdrawn: true }, text: "" });
      context.log.info(`devices are not told any more what was vouched for of the cache ${name}`);
      return;
    }
    const voucher = signKeyVoucher(secretKey, { cache: name, keys, atMs: context.clock.nowMs() });
    const kept = await coordinator.saveKeyVoucher({ workspace, name }, voucher, context.signal);
    await printResult(context, {
      json: kept,
      text: `${kept.by} vouches for ${kept.keys.join(", ")} of the cache ${name}`,
    });
  },
});

async function requireSigningKey(context: CommandContext, keyFile: string | undefined) {
  const key = await readSigningKey(context.env, keyFile);
  if (key !== null) return key;
  throw new NixdeployError("usage", "cannot vouch: there is no key to sign with", {
    hint: "Give --signing-key-file FILE, or NIXDEPLOY_SIGNING_KEY_FILE: the secret of a key that devices trust.",
  });
}
