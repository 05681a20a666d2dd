/**
 * Takes up a certificate that was renewed. Its two files are looked at now and then, and read when one of them changed;
 * a pair that is no good (half of it written, say) leaves the old one in use, is said once, and is looked at again.
 */
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { type KeyPair, type KeyPairFiles, readKeyPair, readKeyPairMark } from "./key-pair.ts";

export type Renewal = {
  /** One look. */
  check(): Promise<void>;
};

export function createRenewal(options: {
  readonly files: KeyPairFiles;
  /** What is in use. */
  readonly current: KeyPair;
  /** Takes a new pair into use. @throws when it cannot; the old one is in use then */
  readonly use: (pair: KeyPair) => void;
  readonly log: Logger;
}): Renewal {
  const { files, log } = options;
  let current = options.current;
  let takenMark: string | null = null;
  let lastComplaint = "";
  return {
    async check() {
      // Before reading: what changes in between is looked at again.
      const mark = await readKeyPairMark(files);
      if (mark === takenMark) return;
      try {
        const pair = await readKeyPair(files);
        if (pair.cert !== current.cert || pair.key !== current.key) {
          options.use(pair);
          current = pair;
          log.info("TLS certificate replaced", { validUntil: new Date(pair.validUntilMs).toISOString() });
        }
        takenMark = mark;
        lastComplaint = "";
      } catch (error) {
        const reason = describeError(error);
        if (reason !== lastComplaint) log.error("cannot take the new TLS certificate: the old one stays", { reason });
        lastComplaint = reason;
      }
    },
  };
}
