/**
 * From the URL field of a narinfo to the URL that is asked. The field is not covered by the signature, so a cache (or
 * whoever stands between) could send a device anywhere with the device's credential: only files below the cache's own
 * address are accepted. Pure.
 */
import { NixdeployError } from "../../../errors.ts";
import { quoteExcerpt } from "../../parse-error.ts";

/** Control characters, space and backslash: what URL parsers mend silently, each in its own way. */
const SUSPICIOUS = /[^!-~]|\\/;
const SCHEME_OR_HOST = /^([A-Za-z][A-Za-z0-9+.-]*:|\/)/;

/**
 * @param cacheUrl base of the cache, with or without a final slash
 * @throws NixdeployError("remote") for an absolute URL, another host, or a way out of the cache
 */
export function resolveNarUrl(options: { readonly cacheUrl: string; readonly narUrl: string }): string {
  const { cacheUrl, narUrl } = options;
  const base = new URL(cacheUrl.endsWith("/") ? cacheUrl : `${cacheUrl}/`);
  if (SUSPICIOUS.test(narUrl) || SCHEME_OR_HOST.test(narUrl)) throw leadsOut(narUrl);
  // After resolution, because "%2e%2e" counts as ".." too.
  const resolved = new URL(narUrl, base);
  if (resolved.origin !== base.origin || !resolved.pathname.startsWith(base.pathname)) throw leadsOut(narUrl);
  if (resolved.pathname === base.pathname) throw leadsOut(narUrl);
  resolved.hash = "";
  return resolved.href;
}

function leadsOut(narUrl: string): NixdeployError {
  return new NixdeployError("remote", `cannot accept the URL ${quoteExcerpt(narUrl)}: it is no file below the cache`);
}
