/**
 * The opening of the worker protocol, and the settings of the session.
 *
 *   C→S int "nixc"      S→C int "dxio", int server version      C→S int client version; the smaller one counts
 *   from 1.38: C→S list of features, S→C list of features (ours is empty, so none is in use)
 *   C→S int 0 (CPU affinity, obsolete), int 0 (reserve space, obsolete)
 *   S→C str Nix version; from 1.35: int 0 trust unknown | 1 trusted | 2 not trusted
 *   S→C stderr loop
 *
 * Source: Nix src/libstore/daemon.cc (processConnection) and remote-store.cc (initConnection), 2.8.0 to 2.34.
 */
import { NixdeployError } from "../../errors.ts";
import type { DaemonChannel } from "./channel.ts";
import { DaemonError, ProtocolError } from "./daemon-error.ts";
import { readReply } from "./reply.ts";
import {
  CLIENT_MAGIC,
  FEATURES_MINOR,
  LIST_MAX_LENGTH,
  operations,
  PROTOCOL_MAJOR,
  PROTOCOL_MINOR_MAX,
  PROTOCOL_MINOR_MIN,
  SERVER_MAGIC,
  TEXT_MAX_BYTES,
  TRUST_MINOR,
  WireEncoder,
} from "./wire.ts";

export type DaemonTrust = "trusted" | "not-trusted" | "unknown";

export type Session = {
  /** What both sides speak: "1.34" … "1.38". */
  readonly protocolVersion: string;
  /** As the daemon gives it, for example "2.8.0"; null when it gives none. */
  readonly nixVersion: string | null;
  /** Daemons below 1.35 do not say. */
  readonly trust: DaemonTrust;
};

/** Opens the session: handshake, then SetOptions (few log messages, no substitution). */
export async function openSession(channel: DaemonChannel): Promise<Session> {
  const what = `use the Nix daemon at ${channel.peer}`;
  const minor = await negotiateVersion(channel, what);
  if (minor >= FEATURES_MINOR) {
    await channel.send(new WireEncoder().texts([]).finish());
    await channel.reader.readTexts({ maxLength: LIST_MAX_LENGTH, textMaxBytes: TEXT_MAX_BYTES });
  }
  await channel.send(new WireEncoder().int(0).int(0).finish());
  const nixVersion = await channel.reader.readText(TEXT_MAX_BYTES);
  const trust = minor >= TRUST_MINOR ? parseTrust(await channel.reader.readInt()) : "unknown";
  await expectReady(channel, what);
  await channel.send(encodeSettings());
  await expectReady(channel, what);
  return {
    protocolVersion: `${PROTOCOL_MAJOR}.${minor}`,
    nixVersion: nixVersion === "" ? null : nixVersion,
    trust,
  };
}

/** @returns the minor version that both sides speak */
async function negotiateVersion(channel: DaemonChannel, what: string): Promise<number> {
  await channel.send(new WireEncoder().int(CLIENT_MAGIC).finish());
  const magic = await channel.reader.readInt().catch((error: unknown) => {
    throw error instanceof ProtocolError ? notADaemon(what) : error;
  });
  if (magic !== SERVER_MAGIC) throw notADaemon(what);
  const version = await channel.reader.readInt();
  const major = Math.floor(version / 256);
  const minor = version % 256;
  if (major < PROTOCOL_MAJOR || (major === PROTOCOL_MAJOR && minor < PROTOCOL_MINOR_MIN)) {
    throw new NixdeployError(
      "host",
      `cannot ${what}: it speaks protocol ${major}.${minor}, older than ${PROTOCOL_MAJOR}.${PROTOCOL_MINOR_MIN} (Nix 2.8)`,
      { hint: "Upgrade Nix on this machine to 2.8 or newer, and restart nix-daemon." },
    );
  }
  if (major > PROTOCOL_MAJOR) {
    throw new NixdeployError(
      "host",
      `cannot ${what}: it speaks protocol ${major}.${minor}, which this program is too old for`,
      {
        hint: "Upgrade nixdeploy.",
      },
    );
  }
  const common = Math.min(minor, PROTOCOL_MINOR_MAX);
  await channel.send(new WireEncoder().int(PROTOCOL_MAJOR * 256 + common).finish());
  return common;
}

function notADaemon(what: string): NixdeployError {
  return new NixdeployError("host", `cannot ${what}: what answers there is not a Nix daemon`, {
    hint: "Check NIX_DAEMON_SOCKET_PATH and NIX_STATE_DIR.",
  });
}

async function expectReady(channel: DaemonChannel, what: string): Promise<void> {
  const reply = await readReply(channel.reader);
  if (reply.kind === "refused") throw new DaemonError(what, reply.report);
}

function parseTrust(value: number): DaemonTrust {
  if (value === 1) return "trusted";
  return value === 2 ? "not-trusted" : "unknown";
}

/** Everything off: errors only in the log, and no question to the daemon ever goes to a substituter. */
function encodeSettings(): Uint8Array {
  const request = new WireEncoder().int(operations.setOptions);
  request.bool(false).bool(false).bool(false); // keep failed, keep going, try fallback
  request.int(0).int(1).int(0); // verbosity (errors), build jobs, silence (no limit)
  request.bool(true).int(0).int(0).int(0); // build hook (obsolete), verbose builds, log type, print trace (obsolete)
  request.int(0).bool(false); // cores (all), use substitutes
  request.int(0); // further settings: none
  return request.finish();
}
