import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { readNetworkSettings } from "../../src/http/settings.ts";

const CERTIFICATE = join(import.meta.dir, "../fixtures/tls/certificate.pem");

describe("proxies", () => {
  const both = { HTTP_PROXY: "http://plain:1", HTTPS_PROXY: "http://secure:2" };
  const cases: readonly (readonly [env: Record<string, string>, url: string, proxy: string | null])[] = [
    [{}, "https://a.example/", null],
    [both, "http://a.example/", "http://plain:1"],
    [both, "ws://a.example/", "http://plain:1"],
    [both, "https://a.example/", "http://secure:2"],
    [both, "wss://a.example/", "http://secure:2"],
    [{ ...both, https_proxy: "http://lower:3" }, "https://a.example/", "http://lower:3"],
    [{ ALL_PROXY: "http://all:4" }, "https://a.example/", "http://all:4"],
    [{ HTTP_PROXY: "http://plain:1" }, "https://a.example/", null],
    [{ HTTPS_PROXY: "proxy.example:3128" }, "https://a.example/", "http://proxy.example:3128"],
    [{ HTTPS_PROXY: "" }, "https://a.example/", null],
    [{ ...both, NO_PROXY: "a.example" }, "https://a.example/", null],
    [{ ...both, NO_PROXY: "a.example" }, "https://sub.a.example/", null],
    [{ ...both, NO_PROXY: "a.example" }, "https://nota.example/", "http://secure:2"],
    [{ ...both, NO_PROXY: ".a.example" }, "https://sub.a.example/", null],
    [{ ...both, NO_PROXY: "*.a.example" }, "https://sub.a.example/", null],
    [{ ...both, NO_PROXY: "x.example, A.Example" }, "https://a.example/", null],
    [{ ...both, no_proxy: "*" }, "https://a.example/", null],
    [{ ...both, NO_PROXY: "a.example:8443" }, "https://a.example/", "http://secure:2"],
    [{ ...both, NO_PROXY: "a.example:443" }, "https://a.example/", null],
    [{ ...both, NO_PROXY: "a.example:8470" }, "ws://a.example:8470/", null],
    [{ ...both, NO_PROXY: "127.0.0.1,::1" }, "http://[::1]:8470/", null],
    [{ ...both, NO_PROXY: "[::1]:8470" }, "http://[::1]:8470/", null],
    [{ ...both, NO_PROXY: "[::1]:8471" }, "http://[::1]:8470/", "http://plain:1"],
    [{ ...both, NO_PROXY: "2001:db8:1:2:3:4:5:6" }, "https://[2001:db8:1:2:3:4:5:6]/", null],
    [{ ...both, NO_PROXY: "[::1]" }, "https://[::1]/", null],
    [{ ...both, NO_PROXY: "10.0.0.0/8" }, "https://10.20.30.40/", null],
    [{ ...both, NO_PROXY: "10.0.0.0/8" }, "https://11.20.30.40/", "http://secure:2"],
    [{ ...both, NO_PROXY: "10.0.0.0/8" }, "https://10.example/", "http://secure:2"],
    [{ ...both, NO_PROXY: "fd00::/8" }, "https://[fd12::1]:8470/", null],
    [{ ...both, NO_PROXY: "fd00::/8" }, "https://10.20.30.40/", "http://secure:2"],
    [{ ...both, NO_PROXY: "0.0.0.0/0" }, "https://10.20.30.40/", null],
    [{ ...both, NO_PROXY: "10.0.0.0/33,/8,x/8" }, "https://10.20.30.40/", "http://secure:2"],
  ];
  for (const [env, url, proxy] of cases) {
    test(`${JSON.stringify(env)}: ${url} by ${proxy ?? "no proxy"}`, () => {
      expect(readNetworkSettings(env).findProxy(new URL(url))).toBe(proxy);
    });
  }
});

describe("certificate authorities", () => {
  test("the built-in ones without a variable", () => {
    expect(readNetworkSettings({}).authorities).toBeNull();
    expect(readNetworkSettings({ SSL_CERT_FILE: "" }).authorities).toBeNull();
  });

  test("NIX_SSL_CERT_FILE wins over SSL_CERT_FILE", () => {
    const env = { NIX_SSL_CERT_FILE: CERTIFICATE, SSL_CERT_FILE: "/absent" };
    expect(readNetworkSettings(env).authorities).toContain("BEGIN CERTIFICATE");
  });

  test("a file that cannot be read is an error that names it", () => {
    const read = () => readNetworkSettings({ SSL_CERT_FILE: "/absent/ca.pem" });
    expect(read).toThrow("cannot read the certificate authorities /absent/ca.pem");
  });
});
