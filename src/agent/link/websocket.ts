/**
 * Websockets: the only importer of `ws` (Bun's own implementation of its interface, which knows handshake timeout,
 * size limit and refused upgrades). Gives a `MessageSocket`; nothing here knows what the messages mean.
 */
import { WebSocket } from "ws";
import { describeError, NixdeployError } from "../../errors.ts";
import { guessAddress, hintForProxy, nameSource, statusOfProxy } from "../../http/failure.ts";
import type { NetworkSettings } from "../../http/settings.ts";
import { createMessageQueue } from "./message-queue.ts";
import type { DialMessageSocket, DialOptions, MessageSocket } from "./message-socket.ts";

/** Received messages that wait to be read; more, and the connection is paused. */
const QUEUE_LENGTH_MAX = 64;

/** Through the proxy and with the certificate authorities that the settings name. */
export function createWebSocketDialer(settings: NetworkSettings): DialMessageSocket {
  return async (options) => {
    options.signal.throwIfAborted();
    const ca = settings.authorities;
    const proxy = settings.findProxy(new URL(options.url));
    const { source } = nameSource(options.url, proxy);
    const socket = new WebSocket(options.url, {
      handshakeTimeout: options.handshakeMaxMs,
      maxPayload: options.messageBytesMax,
      perMessageDeflate: false,
      ...(ca === null ? {} : { ca }),
      ...(proxy === null ? {} : { proxy }),
    });
    const messages = wrap(socket, options.signal);
    await opened(socket, { ...options, source });
    return messages;
  };
}

function wrap(socket: WebSocket, signal: AbortSignal): MessageSocket {
  const queue = createMessageQueue({
    lengthMax: QUEUE_LENGTH_MAX,
    onFull: () => socket.pause(),
    onDrained: () => socket.resume(),
  });
  let closeReason = "";
  const onAbort = () => socket.terminate();
  signal.addEventListener("abort", onAbort, { once: true });
  socket.on("message", (data) => queue.push(String(data)));
  socket.on("error", (error) => {
    closeReason ||= describeError(error);
  });
  socket.on("close", (code, reason) => {
    closeReason ||= reason.length > 0 ? String(reason) : `closed with code ${code}`;
    signal.removeEventListener("abort", onAbort);
    queue.end();
  });
  return {
    send(text) {
      if (socket.readyState === WebSocket.OPEN) socket.send(text);
    },
    messages: queue.messages,
    get bufferedBytes() {
      return socket.bufferedAmount;
    },
    get closeReason() {
      return closeReason;
    },
    close: () => socket.close(1000),
    destroy: () => socket.terminate(),
  };
}

type Dialing = Pick<DialOptions, "signal"> & {
  /** How messages name the other side. */
  readonly source: string;
};

function opened(socket: WebSocket, { source, signal }: Dialing): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => {
      socket.terminate();
      reject(signal.aborted ? signal.reason : error);
    };
    socket.once("open", () => resolve());
    socket.once("error", (error) => fail(explainFailure(source, error)));
    socket.once("close", (code) => fail(explainFailure(source, new Error(`closed with code ${code}`))));
    socket.once("unexpected-response", (_request, { statusCode = 0, headers }) =>
      fail(explainAnswer(source, { status: statusCode, location: headers.location ?? "" })),
    );
  });
}

const CERTIFICATE_TROUBLE = /CERT|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL|certificate/i;

function explainFailure(source: string, error: unknown): NixdeployError {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const text = `${code} ${describeError(error)}`;
  const proxyStatus = statusOfProxy(error);
  if (proxyStatus !== null) {
    const hint = hintForProxy(proxyStatus);
    return unreachable(source, `the proxy answered with status ${proxyStatus}`, { hint, cause: error });
  }
  if (/WRONG_VERSION_NUMBER/.test(text)) {
    return unreachable(source, "it does not speak TLS there", {
      hint: "Is the address http:// instead?",
      cause: error,
    });
  }
  if (/Parse Error|HPE_|Malformed/.test(text)) {
    return unreachable(source, "it does not speak HTTP there", { hint: "Check the URL.", cause: error });
  }
  if (CERTIFICATE_TROUBLE.test(text)) {
    const isClock = /expired|not yet valid|HAS_EXPIRED|NOT_YET_VALID/i.test(text);
    return unreachable(source, `its TLS certificate is not accepted (${describeError(error)})`, {
      hint: isClock
        ? "Renew the certificate there, or set this device's clock."
        : "Let SSL_CERT_FILE or NIX_SSL_CERT_FILE name the certificate authority, if it is your own.",
      cause: error,
    });
  }
  if (/ECONNREFUSED/.test(text)) return unreachable(source, "nothing listens there", { cause: error });
  if (/ENOTFOUND|EAI_|getaddrinfo|resolve/i.test(text)) {
    return unreachable(source, "its host name is not known", { hint: "Check the URL, and DNS.", cause: error });
  }
  return unreachable(source, describeError(error), { cause: error });
}

type Refusal = { readonly status: number; readonly location: string };

function explainAnswer(source: string, { status, location }: Refusal): NixdeployError {
  const target = status >= 300 && status < 400 ? URL.parse(location) : null;
  if (target !== null) {
    const hint = `Is ${guessAddress(target)} the coordinator's address?`;
    return unreachable(source, `it redirects to ${target.origin}`, { hint });
  }
  const hint =
    status >= 500
      ? "The coordinator, or a proxy before it, is in trouble; it is tried again."
      : "Is it a nixdeploy coordinator? A proxy before it must pass websockets on, without a login of its own.";
  return unreachable(source, `it answered with status ${status} instead of a websocket`, { hint });
}

function unreachable(source: string, why: string, options: { hint?: string; cause?: unknown }): NixdeployError {
  return new NixdeployError("unreachable", `cannot connect to ${source}: ${why}`, options);
}
