/**
 * Who this agent is: an ed25519 key that is made here at the first start and never leaves the machine, in the file
 * `key` of the state directory (base64 of the seed, mode 0600).
 *
 * The coordinator knows the public half; whoever reads the file can be this agent, so looser permissions are refused.
 * While another key is to take its place, that one is in `next-key` (`login-with-keys.ts`).
 */
import { readFile, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { describeError, NixdeployError } from "../../errors.ts";
import { formatKeyFingerprint } from "../../key-fingerprint.ts";
import { type LoginClaim, loginMessage, type RotationClaim, rotationMessage } from "../../login-message.ts";
import { decodeBase64, encodeBase64 } from "../../nix/base64.ts";
import { NixParseError } from "../../nix/parse-error.ts";
import { publicKeyFromSeed, signMessage } from "../../nix/signature.ts";
import type { Random } from "../../runtime.ts";
import { ensureDirectory, syncDirectory, writeDurableFile } from "../machine/durable-file.ts";
import { hasCode, isMissing } from "../machine/system-error.ts";

export type Identity = {
  /** Raw, base64, as the hello carries it. */
  readonly publicKey: string;
  /** `SHA256:base64` without padding, for people to compare. */
  readonly fingerprint: string;
  /** Base64 signature over the coordinator's challenge. */
  signLogin(login: LoginClaim): string;
  /** Base64 signature that one of two keys makes when the other is to take its place. */
  signRotation(rotation: RotationClaim): string;
};

/** The key, and the one that is to take its place, if any. */
export type Keys = { readonly current: Identity; readonly next: Identity | null };

const SEED_BYTES = 32;
const KEY_FILE_BYTES_MAX = 1_024;
const PRIVATE_FILE = 0o600;
const PRIVATE_DIRECTORY = 0o700;
const OTHERS = 0o077;

const KEY_FILE = "key";
const NEXT_KEY_FILE = "next-key";

type KeyOptions = { readonly stateDirectory: string; readonly random: Random };

/**
 * Reads the key, or makes one where there is none yet.
 * @throws NixdeployError("host") when the file is damaged, or others may read it
 */
export async function loadIdentity(options: KeyOptions): Promise<Identity> {
  const path = join(options.stateDirectory, KEY_FILE);
  return identityOf((await readSeed(path)) ?? (await makeSeed(path, options)));
}

/** The same with the next key. @throws as {@link loadIdentity} */
export async function loadKeys(options: KeyOptions): Promise<Keys> {
  const current = await loadIdentity(options);
  return { current, next: await findNextKey(options.stateDirectory) };
}

/** The key of a device that has one. @throws as {@link loadIdentity} */
export async function findKey(stateDirectory: string): Promise<Identity | null> {
  return await findIdentity(stateDirectory, KEY_FILE);
}

/** The key that is to take its place. @throws as {@link loadIdentity} */
export async function findNextKey(stateDirectory: string): Promise<Identity | null> {
  return await findIdentity(stateDirectory, NEXT_KEY_FILE);
}

/** Makes the next key, or reads the one that waits already. @throws as {@link loadIdentity} */
export async function prepareNextKey(options: KeyOptions): Promise<Identity> {
  const path = join(options.stateDirectory, NEXT_KEY_FILE);
  return identityOf((await readSeed(path)) ?? (await makeSeed(path, options)));
}

/** The next key is the key from now on, also after a power cut. @throws the system's error */
export async function promoteNextKey(stateDirectory: string): Promise<void> {
  await rename(join(stateDirectory, NEXT_KEY_FILE), join(stateDirectory, KEY_FILE));
  await syncDirectory(stateDirectory);
}

async function findIdentity(stateDirectory: string, file: string): Promise<Identity | null> {
  const seed = await readSeed(join(stateDirectory, file));
  return seed === null ? null : identityOf(seed);
}

function identityOf(seed: Uint8Array): Identity {
  const publicKey = publicKeyFromSeed(seed);
  return {
    publicKey: encodeBase64(publicKey),
    fingerprint: formatKeyFingerprint(publicKey),
    signLogin: (login) => encodeBase64(signMessage(seed, loginMessage(login))),
    signRotation: (rotation) => encodeBase64(signMessage(seed, rotationMessage(rotation))),
  };
}

async function readSeed(path: string): Promise<Uint8Array | null> {
  try {
    const { mode, size } = await stat(path);
    if ((mode & OTHERS) !== 0) {
      throw new NixdeployError("host", `cannot use the agent's key ${path}: other users may read it`, {
        hint: `chmod 600 ${path}; if somebody may have read it, remove the agent on the coordinator and the file here.`,
      });
    }
    if (size > KEY_FILE_BYTES_MAX) throw new Error(`it has ${size} bytes`);
    return decodeBase64((await readFile(path, "utf8")).trim(), SEED_BYTES);
  } catch (error) {
    if (isMissing(error)) return null;
    if (error instanceof NixdeployError) throw error;
    const why = error instanceof NixParseError ? `it is damaged (${error.reason})` : describeError(error);
    throw new NixdeployError("host", `cannot read the agent's key ${path}: ${why}`, {
      hint: hasCode(error, "EACCES")
        ? "Run the agent as the user that it was made by."
        : "Restore it from a backup; or remove it, and the agent on the coordinator, and enroll again.",
      cause: error,
    });
  }
}

async function makeSeed(
  path: string,
  options: { readonly stateDirectory: string; readonly random: Random },
): Promise<Uint8Array> {
  const seed = options.random.bytes(SEED_BYTES);
  try {
    await ensureDirectory(options.stateDirectory, PRIVATE_DIRECTORY);
    await writeDurableFile({ path, text: `${encodeBase64(seed)}\n`, mode: PRIVATE_FILE });
  } catch (error) {
    throw new NixdeployError("host", `cannot write the agent's key ${path}: ${describeError(error)}`, {
      hint: "Make room there, or choose a directory that this user may write with --state-dir.",
      cause: error,
    });
  }
  return seed;
}
