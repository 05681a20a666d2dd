/**
 * Looks at the certificate that a server shows, good or bad, and hangs up. The connections that carry anything check it
 * by themselves; this one only tells people what they will meet. Goes directly, through no proxy.
 */
import { isIP } from "node:net";
import { type ConnectionOptions, checkServerIdentity, connect, type PeerCertificate } from "node:tls";

export type SeenCertificate = {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** The authority's name. */
  readonly issuer: string;
  /** Why the name does not fit; null: it fits. */
  readonly nameFault: string | null;
  /** OpenSSL's code for why the chain is not trusted; null: it is. */
  readonly chainFault: string | null;
};

const HTTPS_PORT = 443;

/** @param authorities PEM; null: the built-in ones. @throws the system's error, or OpenSSL's when nobody speaks TLS there */
export function readCertificate(
  url: URL,
  options: { readonly authorities: string | null; readonly signal: AbortSignal },
): Promise<SeenCertificate> {
  const { authorities, signal } = options;
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const where: ConnectionOptions = {
    host,
    port: Number(url.port || HTTPS_PORT),
    rejectUnauthorized: false,
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ...(authorities === null ? {} : { ca: authorities }),
  };
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const socket = connect(where, () => {
      const certificate = socket.getPeerCertificate(true);
      const chainFault = socket.authorized ? null : codeOf(socket.authorizationError);
      settle(() => resolve(describe(certificate, { host, chainFault })));
    });
    const settle = (finish: () => void) => {
      signal.removeEventListener("abort", onAbort);
      socket.destroy();
      finish();
    };
    const onAbort = () => settle(() => reject(signal.reason));
    signal.addEventListener("abort", onAbort, { once: true });
    socket.once("error", (error) => settle(() => reject(error)));
  });
}

function describe(
  certificate: PeerCertificate,
  { host, chainFault }: { readonly host: string; readonly chainFault: string | null },
): SeenCertificate {
  const nameFault = checkServerIdentity(host, certificate);
  const issuer = [certificate.issuer?.O, certificate.issuer?.CN].flat().filter((part) => part !== undefined);
  return {
    notBeforeMs: Date.parse(certificate.valid_from),
    notAfterMs: Date.parse(certificate.valid_to),
    issuer: issuer.join(" ") || "an authority without a name",
    nameFault: nameFault === undefined ? null : `it names ${certificate.subjectaltname ?? "nothing"}`,
    chainFault,
  };
}

/** Node gives the error itself, Bun its code. */
function codeOf(error: unknown): string {
  if (error instanceof Error && "code" in error) return String(error.code);
  return String(error);
}
