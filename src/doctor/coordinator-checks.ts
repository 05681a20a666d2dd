/** The way to the coordinator, as a command here would go it: address, proxy, TLS, clock, tokens, cache. */
import { readlink } from "node:fs/promises";
import type { Identity } from "../api/tokens.ts";
import { type CoordinatorClient, createCoordinatorClient } from "../client/api/coordinator.ts";
import { createHttpTransport } from "../client/api/transport.ts";
import { NixdeployError } from "../errors.ts";
import { readAnswerText } from "../http/answer.ts";
import { readCertificate } from "../http/certificate.ts";
import { createHttpClient } from "../http/client.ts";
import { failureOfAnswer, failureOfConnection, notACoordinator } from "../http/failure.ts";
import { readNetworkSettings } from "../http/settings.ts";
import type { CacheName } from "../names.ts";
import { parseNarInfo } from "../nix/narinfo.ts";
import { createSignatureVerifier } from "../nix/signature.ts";
import { parsePublicKey } from "../nix/signing-key.ts";
import { type StorePath, storePathContaining, storePathHash } from "../nix/store-path.ts";
import type { Clock, Random } from "../runtime.ts";
import { NIXDEPLOY_VERSION } from "../version.ts";
import { judgeVersion } from "../version-skew.ts";
import { type Check, type Finding, fault, faultOf, ok, skipped, warning } from "./finding.ts";
import { judgeCertificate, judgeClock, judgeToken, judgeUrl, type TokenUse } from "./judge-coordinator.ts";
import { lookOnce } from "./run-checks.ts";

export type Configured = { readonly text: string; readonly source: string };
export type ConfiguredToken = { readonly use: TokenUse } & (
  | { readonly kind: "given"; readonly given: Configured }
  | { readonly kind: "broken"; readonly error: unknown }
);

export type CoordinatorLook = {
  /** An error: why none can be used. */
  readonly url: Configured | NixdeployError;
  readonly tokens: readonly ConfiguredToken[];
  /** Nobody need have a token here: this is a device, which has its key. */
  readonly isDevice: boolean;
  readonly isCi: boolean;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
};

/** The default cache of what a token sees, and how it is read. */
export type SeenCache = {
  readonly name: CacheName;
  readonly publicKeys: readonly string[];
  readonly client: CoordinatorClient;
};

export type CoordinatorChecks = {
  readonly checks: readonly Check[];
  /** Null where no token may read one. @throws NixdeployError when it cannot be asked */
  readonly findCache: () => Promise<SeenCache | null>;
};

export function createCoordinatorChecks(look: CoordinatorLook): CoordinatorChecks {
  const { url } = look;
  if (url instanceof NixdeployError) {
    const check: Check = { group: "coordinator", name: "url", look: async () => [faultOf(url)] };
    return { checks: [check], findCache: async () => null };
  }
  const address = url.text;
  const greet = lookOnce(() => readGreeting(address, look));
  const people = look.tokens.map((token) => ({
    token,
    client: lookOnce(async () => createClient(look, { url: address, token })),
    identity: lookOnce(async () => await createClient(look, { url: address, token }).identify(look.signal)),
  }));
  const findCache = lookOnce(() => findDefaultCache(people, look.signal));
  /** Where nobody answers that is said once. */
  const behind = (ask: (signal: AbortSignal) => Promise<readonly Finding[]>) => async (signal: AbortSignal) =>
    (await greet().catch(() => null)) === null ? [skipped("not without an answer (above)")] : await ask(signal);
  const group = "coordinator" as const;
  const checks: readonly Check[] = [
    { group, name: "url", look: async () => [judgeUrl({ url: address, source: url.source })] },
    { group, name: "proxy", look: async () => [describeProxy(address, look)] },
    { group, name: "answer", look: async () => [describeGreeting(await greet())] },
    { group, name: "tls", look: (signal) => lookAtCertificate(address, { ...look, signal }) },
    { group, name: "clock", look: behind(() => lookAtClock(people, { greet, look })) },
    { group, name: "token", look: behind(() => lookAtTokens(people, look)) },
    { group, name: "cache", look: behind((signal) => lookAtCache(findCache, signal)) },
    { group, name: "signature", look: behind((signal) => lookAtSignature(findCache, signal)) },
  ];
  return { checks, findCache };
}

type Person = {
  readonly token: ConfiguredToken;
  readonly client: () => Promise<CoordinatorClient>;
  readonly identity: () => Promise<Identity>;
};

function createClient(
  look: CoordinatorLook,
  { url, token }: { url: string; token: ConfiguredToken },
): CoordinatorClient {
  if (token.kind === "broken") throw token.error;
  const { environment: env, clock, random } = look;
  const userAgent = `nixdeploy/${NIXDEPLOY_VERSION}`;
  return createCoordinatorClient(createHttpTransport({ url, token: token.given.text, env, clock, random, userAgent }));
}

type Greeting = { readonly roundTripMs: number; readonly coordinatorMs: number | null; readonly url: string };

const GREETING_SILENCE_MS = 8_000;

/** `GET /healthz`, which needs no token. @throws NixdeployError */
async function readGreeting(
  url: string,
  { environment: env, clock, random, signal }: CoordinatorLook,
): Promise<Greeting> {
  await using http = createHttpClient({ userAgent: `nixdeploy/${NIXDEPLOY_VERSION}`, env, clock, random });
  const startedMs = clock.monotonicMs();
  const asked = { url: `${url}/healthz`, followRedirects: false, silenceMaxMs: GREETING_SILENCE_MS, signal };
  await using answer = await http.openBody(asked);
  const text = await readAnswerText(answer.body, url);
  const roundTripMs = clock.monotonicMs() - startedMs;
  const { status, headers } = answer;
  const contentType = headers.get("content-type") ?? "";
  const said = { status, contentType, location: headers.get("location"), text };
  if (status !== 200) throw failureOfAnswer(said, url);
  if (text.trim() !== "ok") throw notACoordinator(said, url);
  const coordinatorMs = Date.parse(headers.get("date") ?? "");
  return { roundTripMs, coordinatorMs: Number.isNaN(coordinatorMs) ? null : coordinatorMs, url };
}

function describeGreeting({ roundTripMs }: Greeting): Finding {
  return ok(`the coordinator answers within ${Math.max(1, Math.round(roundTripMs))} ms`);
}

function describeProxy(url: string, { environment }: CoordinatorLook): Finding {
  const proxy = readNetworkSettings(environment).findProxy(new URL(url));
  // Without the login that the address may hold.
  return ok(proxy === null ? "none: it is reached directly" : `through ${new URL(proxy).origin}`);
}

async function lookAtCertificate(
  url: string,
  { environment, clock, signal }: CoordinatorLook,
): Promise<readonly Finding[]> {
  const target = new URL(url);
  if (target.protocol !== "https:") return [skipped("the address is http://")];
  const settings = readNetworkSettings(environment);
  if (settings.findProxy(target) !== null) return [skipped("behind a proxy the dates are not looked at")];
  const { authorities } = settings;
  try {
    const certificate = await readCertificate(target, { authorities, signal });
    return judgeCertificate(certificate, { host: target.hostname, nowMs: clock.nowMs() });
  } catch (error) {
    signal.throwIfAborted();
    throw failureOfConnection(error, { source: target.origin, isThroughProxy: false });
  }
}

/** An HTTP date has no milliseconds. */
const DATE_ERROR_MS = 1_000;

/** By what the coordinator says itself; else by the date of the answer, which may be that of a proxy before it. */
async function lookAtClock(
  people: readonly Person[],
  { greet, look }: { readonly greet: () => Promise<Greeting>; readonly look: CoordinatorLook },
): Promise<readonly Finding[]> {
  const { roundTripMs, coordinatorMs } = await greet();
  for (const person of people) {
    const identity = await person.identity().catch(() => null);
    if (identity === null) continue;
    const hereMs = look.clock.nowMs();
    return [judgeClock({ hereMs, thereMs: Date.parse(identity.now), errorMs: roundTripMs + DATE_ERROR_MS })];
  }
  if (coordinatorMs === null) return [skipped("the coordinator did not say its time")];
  return [judgeClock({ hereMs: look.clock.nowMs(), thereMs: coordinatorMs, errorMs: roundTripMs + DATE_ERROR_MS })];
}

async function lookAtTokens(people: readonly Person[], look: CoordinatorLook): Promise<readonly Finding[]> {
  if (people.length > 0) {
    return (await Promise.all(people.map(async (person) => await lookAtToken(person, look)))).flat();
  }
  if (look.isDevice) return [skipped("none is set here; the agent has its key")];
  const hint = "Log in (nixdeploy login URL), or set NIXDEPLOY_TOKEN_FILE; `nixdeploy token create` makes tokens.";
  return [fault("no token is set", hint)];
}

async function lookAtToken({ token, identity }: Person, look: CoordinatorLook): Promise<readonly Finding[]> {
  if (token.kind === "broken") return [faultOf(token.error)];
  const { source } = token.given;
  try {
    const seen = await identity();
    const judged = judgeToken(seen, { ...look, use: token.use, source, nowMs: look.clock.nowMs() });
    const versions = judgeVersion(NIXDEPLOY_VERSION, seen.version);
    if (versions !== "newer" && versions !== "outdated") return [judged];
    const text = `nixdeploy is ${NIXDEPLOY_VERSION} here and ${seen.version} there`;
    return [judged, warning(text, "Update the coordinator first, then what uses it.")];
  } catch (error) {
    const found = faultOf(error);
    return [{ ...found, message: `${source}: ${found.message}` }];
  }
}

/** @throws NixdeployError of the last token that was tried, when none could be used */
async function findDefaultCache(people: readonly Person[], signal: AbortSignal): Promise<SeenCache | null> {
  let failure: unknown = null;
  for (const person of people) {
    try {
      const { token } = await person.identity();
      if (token?.kind === "agent") continue;
      const client = await person.client();
      const caches = await client.listCaches(undefined, signal);
      const chosen = caches.find((cache) => cache.default) ?? caches[0];
      if (chosen !== undefined) return { name: chosen.name, publicKeys: chosen.publicKeys, client };
    } catch (error) {
      failure = error;
    }
  }
  if (failure !== null) throw failure;
  return null;
}

const CACHE_FILE_BYTES_MAX = 1024 * 1024;
const NO_CACHE = [skipped("no token here may read a cache")];
const SEEN_ABOVE = [skipped("not without a token that works (above)")];

async function lookAtCache(
  findCache: () => Promise<SeenCache | null>,
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const cache = await findCache().catch(() => "unknown" as const);
  if (cache === "unknown") return SEEN_ABOVE;
  if (cache === null) return NO_CACHE;
  const { name, client } = cache;
  const info = await client.cacheReader(name).readFile("nix-cache-info", { bytesMax: CACHE_FILE_BYTES_MAX, signal });
  if (info !== null) return [ok(`the cache ${name} answers as vanilla Nix asks it`)];
  return [fault(`the cache ${name} has no nix-cache-info`, "Does a proxy before the coordinator leave out /cache/?")];
}

async function lookAtSignature(
  findCache: () => Promise<SeenCache | null>,
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const cache = await findCache().catch(() => "unknown" as const);
  if (cache === "unknown") return SEEN_ABOVE;
  if (cache === null) return NO_CACHE;
  for (const path of await listLikelyPaths(cache.client, signal)) {
    const reader = cache.client.cacheReader(cache.name);
    const file = `${storePathHash(path)}.narinfo`;
    const text = await reader.readFile(file, { bytesMax: CACHE_FILE_BYTES_MAX, signal });
    if (text === null) continue;
    const info = parseNarInfo(Buffer.from(text).toString("utf8"));
    const signature = createSignatureVerifier(cache.publicKeys.map(parsePublicKey)).verify(info);
    if (signature !== null) return [ok(`${path} is signed by ${signature.split(":")[0]}`)];
    const hint =
      "Something before the coordinator may change answers, or the cache's key was exchanged: compare `nixdeploy cache show`.";
    return [fault(`${path} is in the cache ${cache.name}, and signed by none of its keys`, hint)];
  }
  return [skipped(`the cache ${cache.name} has nothing yet that this machine knows of`)];
}

const PATHS_TRIED_MAX = 8;

/** What was deployed lately, where the token may see that, and what this machine runs. */
async function listLikelyPaths(client: CoordinatorClient, signal: AbortSignal): Promise<readonly StorePath[]> {
  const deployed = await client.listDeployments({ limit: PATHS_TRIED_MAX }, signal).catch(() => []);
  const links = ["/run/current-system", "/nix/var/nix/profiles/system", "result"];
  const here = await Promise.all(links.map(async (link) => storePathContaining(await readlink(link).catch(() => ""))));
  const paths = [...deployed.map(({ storePath }) => storePath), ...here.filter((path) => path !== null)];
  return [...new Set(paths)].slice(0, PATHS_TRIED_MAX);
}
