/** The parsers of src/nix: formats of Nix, pure. */
import { formatCacheInfo, parseCacheInfo } from "../../../src/nix/cache-info.ts";
import {
  fileHashFromDigest,
  formatHashHex,
  narHashFromHex,
  parseFileHash,
  parseNarHash,
} from "../../../src/nix/hash.ts";
import { createNarReader } from "../../../src/nix/nar/nar-reader.ts";
import { formatNarInfo, parseNarInfo } from "../../../src/nix/narinfo.ts";
import { decodeNix32, encodeNix32 } from "../../../src/nix/nix32.ts";
import { NixParseError } from "../../../src/nix/parse-error.ts";
import { formatGenerationLink, parseGenerationLink, resolveProfilePath } from "../../../src/nix/profile.ts";
import { createSignatureVerifier } from "../../../src/nix/signature.ts";
import {
  formatPublicKey,
  formatSecretKey,
  parsePublicKey,
  parseSecretKey,
  secretKeyFromSeed,
} from "../../../src/nix/signing-key.ts";
import {
  parseStorePath,
  parseStorePathBaseName,
  parseStorePathHash,
  storePathBaseName,
  storePathContaining,
} from "../../../src/nix/store-path.ts";
import { createEventRecorder, type NarEvent, narOf, treeOfEvents } from "../../nix/nar/nar-events.ts";
import { readNarInfoVectors, readVector, readVectorTable, readVectorText } from "../../nix/vectors.ts";
import { defineParser, type Parser, textOf } from "../parser.ts";

const errors = [NixParseError];
const BASE_NAME = "c60850hxil96lk651kq4m78wi3drykzj-leaf-1.0";
const narInfos = readNarInfoVectors();
const sha256 = readVectorTable("hashes.tsv").filter(([algorithm]) => algorithm === "sha256");
const hashSpellings = sha256
  .slice(0, 2)
  .flatMap(([, hex = "", nix32 = "", sri = ""]) => [
    `sha256:${hex}`,
    `sha256:${nix32}`,
    sri,
    `sha256:${sri.slice("sha256-".length)}`,
  ]);
const HASH_WORDS = ["sha256:", "sha256-", "sha512:", "md5:", "sha1:", "=", "=="];
const secretKey = secretKeyFromSeed("key-1", new Uint8Array(32).fill(7));
const signedInfo = parseNarInfo(narInfos[0]?.text ?? "");
const verifier = createSignatureVerifier([parsePublicKey(readVectorText("narinfo/first.public"))]);

export const formatParsers: readonly Parser[] = [
  defineParser({
    name: "nix32",
    samples: ["", ...sha256.map(([, , nix32 = ""]) => nix32), "c60850hxil96lk651kq4m78wi3drykzj"],
    errors,
    parse: (bytes) => decodeNix32(textOf(bytes)),
    format: encodeNix32,
    isCanonical: true,
    // A shorter text may spell fewer bytes.
    isExact: false,
  }),
  defineParser({
    name: "nar-hash",
    samples: hashSpellings,
    errors,
    dictionary: HASH_WORDS,
    parse: (bytes) => parseNarHash(textOf(bytes)),
    format: (hash) => hash,
    isExact: true,
  }),
  defineParser({
    name: "file-hash",
    samples: [...hashSpellings, fileHashFromDigest(new Uint8Array(32).fill(255))],
    errors,
    dictionary: HASH_WORDS,
    parse: (bytes) => parseFileHash(textOf(bytes)),
    format: (hash) => hash,
    isExact: true,
  }),
  defineParser({
    name: "nar-hash-hex",
    samples: sha256.map(([, hex = ""]) => hex),
    errors,
    parse: (bytes) => narHashFromHex(textOf(bytes)),
    format: formatHashHex,
    isExact: true,
  }),
  defineParser({
    name: "store-path",
    samples: [`/nix/store/${BASE_NAME}`, `/nix/store/${"0".repeat(32)}-${"x".repeat(211)}`],
    errors,
    dictionary: ["/nix/store/", "/", "..", ".-", "-", ".drv"],
    parse: (bytes) => parseStorePath(textOf(bytes)),
    format: (path) => path,
    isCanonical: true,
    // A name may be shorter, or longer.
    isExact: false,
  }),
  defineParser({
    name: "store-path-base-name",
    samples: [BASE_NAME, `${"z".repeat(32)}-.hidden`, `${"z".repeat(32)}-...`],
    errors,
    dictionary: ["/", "..", ".-", "-"],
    parse: (bytes) => parseStorePathBaseName(textOf(bytes)),
    format: storePathBaseName,
    isCanonical: true,
    isExact: false,
  }),
  defineParser({
    name: "store-path-hash",
    samples: [BASE_NAME.slice(0, 32)],
    errors,
    parse: (bytes) => parseStorePathHash(textOf(bytes)),
    format: (hash) => hash,
    isCanonical: true,
  }),
  defineParser({
    name: "store-path-containing",
    samples: [`/nix/store/${BASE_NAME}/bin/x`, `/nix/store/${BASE_NAME}/`],
    errors: [],
    dictionary: ["/", "..", ".", "//", "/../"],
    parse: (bytes) => storePathContaining(textOf(bytes)),
    format: (path) => path,
  }),
  defineParser({
    name: "narinfo",
    samples: [...new Set(narInfos.filter((_, index) => index % 5 === 0).map(({ text }) => text))],
    errors,
    dictionary: ["Sig: a:b\n", "References: \n", "URL: ../x\n", "NarSize: 9007199254740993\n", "unknown-deriver", ": "],
    floods: {
      "many references": () => `${narInfoWithout("References")}References: ${manyPaths(28_000).join(" ")}\n`,
      "many wrong references": () => `${narInfoWithout("References")}References: ${"x ".repeat(500_000)}\n`,
      "many signatures": () => narInfoWithout("Sig") + "Sig: a:b\n".repeat(100_000),
      "many keys": () => narInfoWithout("") + Array.from({ length: 100_000 }, (_, n) => `k${n}: \n`).join(""),
      "the same key": () => narInfoWithout("") + "k: \n".repeat(250_000),
    },
    parse: (bytes) => parseNarInfo(textOf(bytes)),
    format: formatNarInfo,
  }),
  defineParser({
    name: "nix-cache-info",
    samples: [readVectorText("narinfo/zstd/nix-cache-info"), "", "Priority: -1\nWantMassQuery: 1"],
    errors,
    dictionary: ["StoreDir: ", "WantMassQuery: ", "Priority: ", "\n", "-", "99999999999"],
    parse: (bytes) => parseCacheInfo(textOf(bytes)),
    format: formatCacheInfo,
  }),
  defineParser({
    name: "secret-key",
    samples: [formatSecretKey(secretKey), `${formatSecretKey(secretKey)}\n`],
    errors,
    parse: (bytes) => parseSecretKey(textOf(bytes)),
    format: formatSecretKey,
    // Each accepted one costs a multiplication on the curve.
    costFactor: 4,
  }),
  defineParser({
    name: "public-key",
    samples: [readVectorText("narinfo/first.public"), readVectorText("narinfo/second.public")],
    errors,
    parse: (bytes) => parsePublicKey(textOf(bytes)),
    format: formatPublicKey,
  }),
  defineParser({
    name: "signature",
    samples: signedInfo.signatures,
    errors: [],
    parse: (bytes) => verifier.verify({ ...signedInfo, signatures: [textOf(bytes)] }),
    isExact: true,
    dictionary: ["first-1:", "second-1:", "=="],
  }),
  defineParser({
    name: "generation-link",
    samples: ["system-42-link", "a-1-link-2-link", "-1-link-9007199254740991-link"],
    errors: [],
    dictionary: ["-link", "-1-link", "-0-link", "9007199254740993", "/"],
    parse: (bytes) => parseGenerationLink(textOf(bytes)),
    format: formatGenerationLink,
    isCanonical: true,
    isExact: false,
  }),
  defineParser({
    name: "profile-path",
    samples: ["system", "/nix/var/nix/profiles/x", "home-manager"],
    errors,
    dictionary: ["/", "//", "/../", "-1-link", "."],
    parse: (bytes) => resolveProfilePath({ profile: textOf(bytes), isRoot: false, home: "/home/x", stateHome: null }),
  }),
  defineParser({
    name: "profile-home",
    samples: ["/home/x", "/home/x///", "/"],
    errors,
    dictionary: ["/", "//"],
    parse: (bytes) => {
      const directory = textOf(bytes);
      return [directory, null].map((stateHome) =>
        resolveProfilePath({ profile: "x", isRoot: false, home: directory, stateHome }),
      );
    },
  }),
  defineParser({
    name: "nar",
    samples: ["bytes", "empty-directory", "empty-file", "executable", "file", "nested", "order", "symlink"].map(
      (name) => readVector(`nar/${name}.nar`),
    ),
    errors,
    dictionary: [
      ...["(", ")", "type", "regular", "executable", "contents", "symlink", "target"].map(narString),
      ...["directory", "entry", "name", "node", "a", "A", "..", ".", "", "a/b", "a\0"].map(narString),
    ],
    floods: {
      "many entries": () => directoryOf(Array.from({ length: 6_000 }, (_, n) => narEntry(String(n).padStart(9, "0")))),
      "an endless directory in a directory": () =>
        Buffer.concat([narString("nix-archive-1"), Buffer.concat(Array(8_000).fill(openDirectory("d")))]),
      "a file of 2^53 - 1 bytes": () =>
        Buffer.concat([...["nix-archive-1", "(", "type", "regular", "contents"].map(narString), hugeLength()]),
    },
    parseChunks: (chunks) => {
      const events: NarEvent[] = [];
      const reader = createNarReader(createEventRecorder(events));
      for (const chunk of chunks) {
        if (reader.push(chunk) < chunk.length) throw new NixParseError("NAR", "something follows");
      }
      reader.finish();
      return narOf(treeOfEvents(events.map(joinChunks)));
    },
    format: (nar) => nar,
    isCanonical: true,
  }),
];

function narInfoWithout(key: string): string {
  const lines = (narInfos[0]?.text ?? "").split(/(?<=\n)/);
  return lines.filter((line) => key === "" || !line.startsWith(`${key}:`)).join("");
}

function manyPaths(count: number): string[] {
  return Array.from({ length: count }, (_, number) => `${String(number).padStart(32, "0")}-x`);
}

function narEntry(name: string): Uint8Array {
  const words = ["entry", "(", "name", name, "node", "(", "type", "regular", "contents", "", ")", ")"];
  return Buffer.concat(words.map(narString));
}

function directoryOf(entries: readonly Uint8Array[]): Uint8Array {
  const start = ["nix-archive-1", "(", "type", "directory"].map(narString);
  return Buffer.concat([...start, ...entries, narString(")")]);
}

function openDirectory(name: string): Uint8Array {
  return Buffer.concat(["(", "type", "directory", "entry", "(", "name", name, "node"].map(narString));
}

function hugeLength(): Uint8Array {
  const length = Buffer.alloc(1024 * 1024);
  length.writeBigUInt64LE(2n ** 53n - 1n);
  return length;
}

/** Length, text, padding. */
function narString(text: string): Uint8Array {
  const length = Buffer.alloc(8);
  length.writeUInt32LE(text.length);
  return Buffer.concat([length, Buffer.from(text), Buffer.alloc((8 - (text.length % 8)) % 8)]);
}

function joinChunks(event: NarEvent): NarEvent {
  return event.type === "regular" ? { ...event, chunks: [new Uint8Array(Buffer.concat(event.chunks))] } : event;
}
