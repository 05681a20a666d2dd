/** The parsers of the coordinator: credentials, cursors, uploads as they stream in. */
import { createHash } from "node:crypto";
import { constants, zstdCompressSync } from "node:zlib";
import { NixdeployError } from "../../../src/errors.ts";
import { parseAgentId, parseTokenId } from "../../../src/names.ts";
import { narHashFromDigest } from "../../../src/nix/hash.ts";
import { systemClock } from "../../../src/runtime.ts";
import { createAuthenticator } from "../../../src/server/access/authentication.ts";
import { createNarValidator } from "../../../src/server/cache/nar-validator.ts";
import { createZstdFrames } from "../../../src/server/cache/zstd-frames.ts";
import { openDatabase } from "../../../src/server/database/dialect.ts";
import { migrate } from "../../../src/server/database/migrations.ts";
import { formatFollowCursor, parseFollowCursor } from "../../../src/server/deployments/follow.ts";
import { formatToken } from "../../../src/token.ts";
import { readVector } from "../../nix/vectors.ts";
import { defineParser, type Parser, textOf } from "../parser.ts";

const database = openDatabase(":memory:");
await migrate(database);
const authenticator = createAuthenticator({ database, clock: systemClock, credentialKey: new Uint8Array(32) });
const token = formatToken("read", parseTokenId("0123456789abcdfg"), new Uint8Array(32).fill(1));
const credential = authenticator.issueReadCredential(parseAgentId("0123456789abcdfg"));

const nar = readVector("nar/nested.nar");
const claim = {
  narHash: narHashFromDigest(createHash("sha256").update(nar).digest()),
  narSizeBytes: nar.length,
};
const zstdFiles = [
  zstdCompressSync(nar),
  zstdCompressSync(nar, { params: { [constants.ZSTD_c_checksumFlag]: 1, [constants.ZSTD_c_contentSizeFlag]: 0 } }),
  Buffer.concat([
    Buffer.from("502a4d180200000000ff", "hex"),
    zstdCompressSync(nar.subarray(0, 100)),
    zstdCompressSync(nar.subarray(100)),
  ]),
];
const ZSTD_WORDS = ["28b52ffd", "502a4d18ffffffff", "010000", "000000", "030000", "fdffff"].map((hex) =>
  Buffer.from(hex, "hex"),
);

export const serverParsers: readonly Parser[] = [
  defineParser({
    name: "authorization",
    samples: [`Bearer ${token}`, `Basic ${Buffer.from(`user:${token}`).toString("base64")}`, `bearer ${credential}`],
    errors: [],
    dictionary: ["Bearer ", "Basic ", " ", ":", "nda_", "nd_", token, credential, "Negotiate "],
    // Nobody is known to this database: whatever comes is answered with "no".
    parse: async (bytes) => {
      const principal = await authenticator.authenticate(textOf(bytes));
      if (principal !== null) throw new Error("let in");
      return "nobody";
    },
    isRefusal: () => false,
    costFactor: 4,
  }),
  defineParser({
    name: "follow-cursor",
    samples: ["0.0", "12.34", "999999999999999.999999999999999"],
    errors: [],
    dictionary: [".", "-", "9999999999999999"],
    parse: (bytes) => parseFollowCursor(textOf(bytes)),
    format: formatFollowCursor,
  }),
  defineParser({
    name: "zstd-frames",
    samples: zstdFiles,
    errors: [Error],
    isExact: false,
    dictionary: ZSTD_WORDS,
    parseChunks: (chunks) => {
      const frames = createZstdFrames();
      for (const chunk of chunks) frames.push(chunk);
      return frames.complete;
    },
    isRefusal: (isComplete) => !isComplete,
  }),
  defineParser({
    name: "nar-upload",
    samples: zstdFiles,
    errors: [NixdeployError],
    dictionary: ZSTD_WORDS,
    // Both ways of refusing need the decompressor's thread.
    costFactor: 20,
    parse: async (bytes) => {
      const validator = createNarValidator(claim);
      try {
        for (let offset = 0; offset < bytes.length; offset += 65_536) {
          await validator.push(bytes.subarray(offset, offset + 65_536));
        }
        return await validator.finish();
      } finally {
        validator.abort();
      }
    },
  }),
];
