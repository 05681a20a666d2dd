/**
 * What the environment says about the network: proxies and certificate authorities, for API calls, downloads and
 * websockets alike.
 *
 *   proxies      https_proxy, HTTPS_PROXY for https: and wss:, http_proxy, HTTP_PROXY for http: and ws:, else all_proxy,
 *                ALL_PROXY; not for what NO_PROXY or no_proxy lists: hosts with their subdomains, host:port, networks
 *                (10.0.0.0/8), or *
 *   authorities  NIX_SSL_CERT_FILE, else SSL_CERT_FILE: a PEM bundle that replaces the built-in one, as in Nix and curl
 */
import { readFileSync } from "node:fs";
import { BlockList, isIP } from "node:net";
import { describeError, NixdeployError } from "../errors.ts";

type Environment = Readonly<Record<string, string | undefined>>;

export type NetworkSettings = {
  /** The proxy's address for this URL; null: directly. @throws NixdeployError "host" when it is no address of an HTTP proxy */
  readonly findProxy: (url: URL) => string | null;
  /** A PEM bundle; null: the built-in authorities. */
  readonly authorities: string | null;
};

const DEFAULT_PORTS: Readonly<Record<string, string>> = { "http:": "80", "ws:": "80", "https:": "443", "wss:": "443" };

/** @throws NixdeployError "host" when the bundle that the environment names cannot be read */
export function readNetworkSettings(env: Environment): NetworkSettings {
  const read = (...names: readonly string[]) => names.map((name) => env[name]).find((text) => text) ?? null;
  const secure = read("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY");
  const plain = read("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY");
  const exceptions = (read("no_proxy", "NO_PROXY") ?? "").split(/[\s,]+/).filter((entry) => entry !== "");
  return {
    findProxy: (url) => {
      const proxy = url.protocol === "https:" || url.protocol === "wss:" ? secure : plain;
      return proxy === null || exceptions.some((entry) => matchesException(url, entry)) ? null : parseProxy(proxy);
    },
    authorities: readAuthorities(env),
  };
}

/** `proxy.example:3128` is written as often as `http://proxy.example:3128`. No message repeats it: it may hold a login. */
function parseProxy(text: string): string {
  const proxy = text.includes("://") ? text : `http://${text}`;
  const url = URL.parse(proxy);
  if (url?.protocol === "http:" || url?.protocol === "https:") return proxy;
  const what = url === null ? "it is no address" : `${url.protocol}// proxies are not known here`;
  throw new NixdeployError("host", `cannot use the proxy that the environment names: ${what}`, {
    hint: "HTTPS_PROXY, HTTP_PROXY and ALL_PROXY take http://HOST:PORT or https://HOST:PORT.",
  });
}

function matchesException(url: URL, entry: string): boolean {
  if (entry === "*") {
    return true;
  }
  const host = url.hostname
    .toLowerCase()
    .replace(/^\[|\]$/g, "")
    .replace(/\.$/, "");
  if (entry.includes("/")) {
    return matchesNetwork(host, entry);
  }
  const { name, port } = splitPort(entry);
  const listed = name.toLowerCase().replace(/^\*?\./, "");
  const isHost = listed !== "" && (host === listed || host.endsWith(`.${listed}`));
  return isHost && (port === null || port === (url.port || DEFAULT_PORTS[url.protocol]));
}

/** `10.0.0.0/8`, `fd00::/8`; matches addresses only, for names are not looked up. What is no network matches nothing. */
function matchesNetwork(host: string, entry: string): boolean {
  const [, address = "", prefix = ""] = /^\[?([0-9a-f.:]+)\]?\/(\d{1,3})$/i.exec(entry) ?? [];
  const family = isIP(address);
  if (family === 0 || isIP(host) !== family || Number(prefix) > (family === 4 ? 32 : 128)) {
    return false;
  }
  const network = new BlockList();
  network.addSubnet(address, Number(prefix), family === 4 ? "ipv4" : "ipv6");
  return network.check(host, family === 4 ? "ipv4" : "ipv6");
}

/** `host`, `host:port`, `[v6]`, `[v6]:port`; what has several colons and no brackets is an IPv6 address without a port. */
function splitPort(entry: string): { readonly name: string; readonly port: string | null } {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(entry) ?? [];
  return { name: bracketed ?? plain ?? entry, port: port ?? null };
}

function readAuthorities(env: Environment): string | null {
  const name = ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"].find((candidate) => env[candidate]);
  const path = name === undefined ? undefined : env[name];
  if (path === undefined) {
    return null;
  }
  const hint = `Correct or unset ${name}.`;
  let bundle: string;
  try {
    bundle = readFileSync(path, "utf8");
  } catch (cause) {
    const why = describeError(cause);
    throw new NixdeployError("host", `cannot read the certificate authorities ${path}: ${why}`, { hint, cause });
  }
  if (bundle.includes("-----BEGIN ")) return bundle;
  const why = "no certificate in PEM form is in that file";
  throw new NixdeployError("host", `cannot use the certificate authorities ${path}: ${why}`, { hint });
}
