/** What is seen of the way to a coordinator, judged. Pure. */
import type { Identity } from "../api/tokens.ts";
import type { SeenCertificate } from "../http/certificate.ts";
import { formatSpan } from "../quantity.ts";
import type { TokenKind } from "../token.ts";
import { type Finding, fault, ok, warning } from "./finding.ts";

const DAY_MS = 24 * 3_600_000;
/** A certificate or token that ends sooner is renewed by now, or nobody sees to it. */
const ENDS_SOON_MS = 14 * DAY_MS;
/** Certificates and expiries are judged by the minute; TLS itself fails at hours. */
const SKEW_WARNING_MS = 30_000;
const SKEW_FAULT_MS = 5 * 60_000;

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\]|.*\.localhost)$/;

export function judgeUrl({ url, source }: { readonly url: string; readonly source: string }): Finding {
  const { protocol, hostname } = new URL(url);
  const what = `${url} (${source})`;
  if (protocol === "https:" || LOOPBACK.test(hostname)) return ok(what);
  return warning(
    `${what}: without TLS, whoever is on the way reads the tokens`,
    "Put TLS before the coordinator (docs/operating.md, TLS) and use https://.",
  );
}

export function judgeClock(skew: {
  readonly hereMs: number;
  readonly thereMs: number;
  readonly errorMs: number;
}): Finding {
  const aheadMs = skew.hereMs - skew.thereMs;
  const offMs = Math.max(0, Math.abs(aheadMs) - skew.errorMs);
  if (offMs < SKEW_WARNING_MS) return ok("it agrees with the coordinator's");
  const message = `this machine's clock is ${formatSpan(offMs)} ${aheadMs > 0 ? "ahead of" : "behind"} the coordinator's`;
  const hint = "Compare both with `date -u`, and let systemd-timesyncd, chrony or ntpd keep the wrong one right.";
  return offMs < SKEW_FAULT_MS ? warning(message, hint) : fault(message, hint);
}

const CLOCK_CODES = ["CERT_HAS_EXPIRED", "CERT_NOT_YET_VALID"];

export function judgeCertificate(
  certificate: SeenCertificate,
  about: { host: string; nowMs: number },
): readonly Finding[] {
  const { host, nowMs } = about;
  const { notBeforeMs, notAfterMs, issuer, nameFault, chainFault } = certificate;
  const faults: Finding[] = [];
  if (nowMs >= notAfterMs) {
    faults.push(
      fault(
        `the certificate of ${host} ended on ${formatDay(notAfterMs)}`,
        "Renew it on the coordinator's side; `serve` takes up a renewed one by itself. Or is this machine's clock wrong?",
      ),
    );
  }
  if (nowMs < notBeforeMs) {
    faults.push(
      fault(`the certificate of ${host} begins on ${formatDay(notBeforeMs)}`, "Set this machine's clock (`date`)."),
    );
  }
  if (nameFault !== null) {
    faults.push(
      fault(
        `the certificate is not for ${host}: ${nameFault}`,
        "Use the name in it as the address, or get one for this name.",
      ),
    );
  }
  const isOther = chainFault !== null && !CLOCK_CODES.includes(chainFault) && !chainFault.includes("ALTNAME");
  if (isOther) {
    faults.push(
      fault(
        `the authority of the certificate (${issuer}) is not trusted here (${chainFault})`,
        "For an authority of your own, set NIX_SSL_CERT_FILE or SSL_CERT_FILE to a bundle that has it; else the server may send its certificate without those that signed it.",
      ),
    );
  }
  if (faults.length > 0) return faults;
  const text = `the certificate of ${host} is good until ${formatDay(notAfterMs)}, by ${issuer}`;
  if (notAfterMs - nowMs >= ENDS_SOON_MS) return [ok(text)];
  return [warning(text, "It should have been renewed by now: look at whatever renews it.")];
}

/** "push" is NIXDEPLOY_PUSH_TOKEN, "general" NIXDEPLOY_TOKEN or a login. */
export type TokenUse = "agent" | "activate" | "push" | "general";

const FITTING: Readonly<Record<TokenUse, readonly TokenKind[]>> = {
  agent: ["agent"],
  activate: ["activate", "admin"],
  push: ["push", "admin"],
  general: ["admin", "activate", "push", "read"],
};

export function judgeToken(
  { token }: Pick<Identity, "token">,
  about: { readonly use: TokenUse; readonly source: string; readonly isCi: boolean; readonly nowMs: number },
): Finding {
  const { use, source, isCi, nowMs } = about;
  if (token === null) return ok(`${source}: none is needed`);
  const where = token.workspace === null ? "all workspaces" : `workspace ${token.workspace}`;
  const until = token.expiresAt === null ? "does not expire" : `expires on ${token.expiresAt.slice(0, 10)}`;
  const text = `${source}: kind ${token.kind}, ${where}, ${until}`;
  if (!FITTING[use].includes(token.kind)) {
    const hint = `Make one there: nixdeploy token create --kind ${use === "general" ? "activate" : use}`;
    return fault(`${text}; ${use === "general" ? "that is for devices only" : `it takes one of kind ${use}`}`, hint);
  }
  if (token.expiresAt !== null && Date.parse(token.expiresAt) - nowMs < ENDS_SOON_MS) {
    return warning(text, `Make the next one in time: nixdeploy token create --kind ${token.kind} --expires 90d`);
  }
  if (isCi && token.kind === "admin") {
    return warning(
      `${text}; whoever can change the CI can do everything with it`,
      "Give the CI one of kind push and one of kind activate.",
    );
  }
  return ok(text);
}

const formatDay = (atMs: number) => new Date(atMs).toISOString().slice(0, 10);
