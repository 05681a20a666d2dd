/** Rows: addresses that lead elsewhere, and credentials that are none. */
import type { BadInput } from "./case.ts";

type Answer = Pick<BadInput, "exitCode" | "says"> & Partial<BadInput>;

const NO_ADDRESS = "it is no http:// or https:// address";

/** `URL → answer`, asked by a command that only reads. */
// biome-ignore format: a table, one row a line
const WRONG_ADDRESSES: Readonly<Record<string, Answer>> = {
  "deploy.example.org": { exitCode: 2, says: NO_ADDRESS, hint: "for example https://deploy.example.org" },
  "ftp://example.org": { exitCode: 2, says: NO_ADDRESS },
  "http://": { exitCode: 2, says: NO_ADDRESS },
  "http://[::1": { exitCode: 2, says: NO_ADDRESS },
  "http://127.0.0.1:99999": { exitCode: 2, says: NO_ADDRESS },
  "https://me:hunter2@example.org": { exitCode: 2, says: "it must have no user name, password", hint: "NIXDEPLOY_TOKEN" },
  "https://example.org/?token=hunter2": { exitCode: 2, says: "it must have no user name, password, query" },
  "{closed}": { exitCode: 75, says: "cannot reach {closed}: the connection was refused", hint: "Is `nixdeploy serve` running there?" },
  "{unknown}": { exitCode: 75, says: "its name is unknown (DNS)", hint: "Check NIXDEPLOY_URL" },
  "{hanging-up}": { exitCode: 75, says: "cannot reach {hanging-up}: the connection broke" },
  "{ssh}": { exitCode: 75, says: "it does not speak HTTP there", hint: "Check NIXDEPLOY_URL" },
  "{http-as-tls}": { exitCode: 75, says: "it does not speak TLS there", hint: "Is the address http:// instead?" },
  "{tls-as-http}": { exitCode: 75, says: "cannot reach {tls-as-http}: the connection ", hint: "https://" },
  "{tls}": { exitCode: 75, says: "its certificate is not trusted", hint: "SSL_CERT_FILE" },
  "{html-200}": { exitCode: 1, says: "it answered HTTP 200 (text/html), a web page", hint: "Is it a nixdeploy coordinator?" },
  "{html-404}": { exitCode: 1, says: "it answered HTTP 404", hint: "Is it a nixdeploy coordinator?" },
  "{html-401}": { exitCode: 77, says: "it answered HTTP 401", hint: "in front of the coordinator" },
  "{html-500}": { exitCode: 1, says: "it answered HTTP 500", hint: "Is it a nixdeploy coordinator?" },
  "{html-502}": { exitCode: 75, says: "it answered HTTP 502", hint: "in front of the coordinator" },
  "{json-other}": { exitCode: 1, says: "its answer has another shape than expected", hint: "Is it a nixdeploy coordinator" },
  "{json-list}": { exitCode: 1, says: "its answer has another shape than expected", hint: "answer: expected object" },
  "{json-cut}": { exitCode: 1, says: "it answered HTTP 200 (application/json)", hint: "Is it a nixdeploy coordinator?" },
  "{json-404}": { exitCode: 1, says: "it answered HTTP 404", hint: "Is it a nixdeploy coordinator?" },
  "{empty}": { exitCode: 1, says: "its answer is empty", hint: "Is it a nixdeploy coordinator" },
  "{redirect-elsewhere}": { exitCode: 1, says: "it redirects to https://login.example.org", hint: "Is https://login.example.org the coordinator's address?" },
  "{redirect-here}": { exitCode: 1, says: "it redirects to /login", hint: "Is it a nixdeploy coordinator?" },
  "{redirect-nowhere}": { exitCode: 1, says: "it answered HTTP 302", hint: "Is it a nixdeploy coordinator?" },
};

/** Every command that talks to a coordinator, as it is when only the address is wrong. */
const CLIENTS = [
  "status",
  "agents",
  "token list",
  "token create --kind push",
  "token revoke 0123456789abcdfg",
  "cache show default",
  "cache set default --public",
  "logs first",
  "push {path}",
  "activate first={path}",
  "activate {absent}",
] as const;

/** For the commands beside `status`: one address of each kind of answer. */
const FOR_ALL = ["{closed}", "{tls}", "{ssh}", "{html-200}", "{json-404}", "{redirect-elsewhere}"];

// biome-ignore format: a table, one row a line
export const ADDRESSES: readonly BadInput[] = [
  ...Object.entries(WRONG_ADDRESSES).map(([url, answer]) => ({
    what: `status --url ${url}`,
    command: ["status", "--url", url],
    ...answer,
  })),
  ...Object.entries(WRONG_ADDRESSES)
    .slice(0, 7)
    .map(([url, answer]) => ({
      what: `NIXDEPLOY_URL=${url}`,
      command: "status",
      env: { NIXDEPLOY_URL: url },
      ...answer,
    })),
  ...CLIENTS.slice(1).flatMap((command) =>
    FOR_ALL.map((url) => ({
      what: `${command} --url ${url}`,
      command: `${command} --url ${url}`,
      ...(WRONG_ADDRESSES[url] ?? { exitCode: 1 as const, says: "" }),
    })),
  ),
  ...CLIENTS.map((command) => ({
    what: `${command}, no address`,
    command,
    env: { NIXDEPLOY_URL: null },
    exitCode: 2 as const,
    says: "cannot find the coordinator: ",
    hint: "NIXDEPLOY_URL",
  })),
  { what: "an address that is empty", command: "status", env: { NIXDEPLOY_URL: "" }, exitCode: 2, says: "neither its URL nor its data directory is given" },
  { what: "certificate authorities that are not there", command: "status", env: { SSL_CERT_FILE: "{rows}/no" }, exitCode: 1, says: "cannot read the certificate authorities {rows}/no: there is no such file", hint: "SSL_CERT_FILE" },
  { what: "certificate authorities that are none", command: "status --url {tls}", env: { NIX_SSL_CERT_FILE: "{text}" }, exitCode: 1, says: "cannot use the certificate authorities {text}: no certificate in PEM form is in that file", hint: "NIX_SSL_CERT_FILE" },
  { what: "a proxy that is no address", command: "status", env: { HTTP_PROXY: "http://user:hunter2@no where" }, exitCode: 1, says: "cannot use the proxy that the environment names" },
  { what: "a proxy that is not there", command: "status --url http://example.org", env: { HTTP_PROXY: "http://user:hunter2@127.0.0.1:9" }, exitCode: 75, says: "through the proxy http://127.0.0.1:9", hint: "HTTP_PROXY" },
  { what: "a certificate that has expired, or the clock is wrong", command: "status --url {tls}", env: { SSL_CERT_FILE: "{authority}" }, through: "20 years later", exitCode: 75, says: "its certificate is not trusted (CERT_HAS_EXPIRED)", hint: "this machine's clock" },
  { what: "a certificate that is not good yet, or the clock is wrong", command: "status --url {tls}", env: { SSL_CERT_FILE: "{authority}" }, through: "20 years earlier", exitCode: 75, says: "its certificate is not trusted (CERT_NOT_YET_VALID)", hint: "this machine's clock" },
];

const NO_TOKEN = "cannot log in to the coordinator: no token is set";
const REFUSED = "cannot log in: the token is missing, unknown here, expired or revoked";

/** What is in NIXDEPLOY_TOKEN. */
// biome-ignore format: a table, one row a line
const WRONG_TOKENS: Readonly<Record<string, Answer>> = {
  "": { exitCode: 2, says: "cannot use NIXDEPLOY_TOKEN: it is set but empty", hint: "CI" },
  hunter2: { exitCode: 77, says: "cannot use the token of NIXDEPLOY_TOKEN: it is no token" },
  "hunter2\nhunter2": { exitCode: 77, says: "it is no token" },
  "hunter2\u0001": { exitCode: 77, says: "it is no token" },
  "Bearer {admin-token}": { exitCode: 77, says: "it is no token: tokens begin with nd_" },
  "{admin-token}{push-token}": { exitCode: 77, says: "it is no whole token" },
  "{false-token}": { exitCode: 77, says: "a character of it is wrong (its checksum does not fit)" },
  nd_admin_0123456789abcdfg_short: { exitCode: 77, says: "it is no whole token", hint: "nixdeploy token create" },
  "{revoked-token}": { exitCode: 77, says: REFUSED, hint: "nixdeploy token create" },
  "{expired-token}": { exitCode: 77, says: REFUSED },
};

/** What NIXDEPLOY_TOKEN_FILE names. */
// biome-ignore format: a table, one row a line
const WRONG_TOKEN_FILES: Readonly<Record<string, Answer>> = {
  "": { exitCode: 2, says: "cannot use NIXDEPLOY_TOKEN_FILE: it is set but empty" },
  "{rows}/no": { exitCode: 2, says: "cannot read {rows}/no (NIXDEPLOY_TOKEN_FILE): there is no such file" },
  "{rows}": { exitCode: 2, says: "cannot read {rows} (NIXDEPLOY_TOKEN_FILE): it is a directory" },
  "{loop}": { exitCode: 2, says: "its symlinks have no end" },
  "{dangling}": { exitCode: 2, says: "there is no such file" },
  "{empty-file}": { exitCode: 2, says: "the file is empty" },
  "{large}": { exitCode: 2, says: "it is larger than 16384 bytes" },
  "{two-lines}": { exitCode: 77, says: "it is no whole token" },
  "{not-utf8}": { exitCode: 77, says: "it is no token" },
  "{admin-token}": { exitCode: 2, says: "cannot use NIXDEPLOY_TOKEN_FILE: it is a secret itself", hint: "the name of that file" },
};

const asTokenFile = (file: string) => ({ NIXDEPLOY_TOKEN: null, NIXDEPLOY_TOKEN_FILE: file });

// biome-ignore format: a table, one row a line
export const TOKENS: readonly BadInput[] = [
  ...Object.entries(WRONG_TOKENS).map(([token, answer]) => ({
    what: `NIXDEPLOY_TOKEN=${JSON.stringify(token)}`,
    command: "status",
    env: { NIXDEPLOY_TOKEN: token },
    ...answer,
  })),
  ...Object.entries(WRONG_TOKEN_FILES).map(([file, answer]) => ({
    what: `NIXDEPLOY_TOKEN_FILE=${file}`,
    command: "status",
    env: asTokenFile(file),
    ...answer,
  })),
  ...CLIENTS.flatMap((command): BadInput[] => [
    {
      what: `${command}, no token`,
      command,
      env: { NIXDEPLOY_TOKEN: null },
      exitCode: 2,
      says: NO_TOKEN,
      hint: "NIXDEPLOY_TOKEN_FILE",
    },
    {
      what: `${command}, a revoked token`,
      command,
      env: { NIXDEPLOY_TOKEN: "{revoked-token}" },
      exitCode: 77,
      says: REFUSED,
    },
  ]),
  { what: "a token file of somebody else", command: "status", env: asTokenFile("{private}"), through: "another user", exitCode: 2, says: "cannot read {private} (NIXDEPLOY_TOKEN_FILE): permission denied" },
  { what: "the control socket of another user", command: "token list --data-dir {data}", through: "another user", exitCode: 1, says: "permission denied", hint: "as the user that runs `nixdeploy serve`" },
  ...(
    [
      ["push", "status", "This token is of kind push; what was asked for takes one of kind admin or activate or read."],
      ["push", "token list", "takes one of kind admin."],
      ["push", "activate first={path}", "takes one of kind admin or activate."],
      ["activate", "push {path}", "takes one of kind admin or push."],
      ["activate", "token create --kind admin", "takes one of kind admin."],
      ["read", "cache set default --public", "takes one of kind admin."],
      ["agent", "status", "This token is of kind agent"],
    ] as const
  ).map(
    ([kind, command, hint]): BadInput => ({
      what: `${command} with a token of kind ${kind}`,
      command,
      env: { NIXDEPLOY_TOKEN: `{${kind}-token}` },
      exitCode: 1,
      says: "it does not exist, or this token may not see it",
      hint,
    }),
  ),
];

// biome-ignore format: a table, one row a line
const WRONG_KEYS: Readonly<Record<string, Answer>> = {
  "{rows}/no": { exitCode: 2, says: "cannot read {rows}/no (--signing-key-file): there is no such file" },
  "{rows}": { exitCode: 2, says: "it is a directory" },
  "{empty-file}": { exitCode: 2, says: "the file is empty" },
  "{large}": { exitCode: 2, says: "it is larger than 16384 bytes" },
  "{text}": { exitCode: 2, says: "cannot use the signing key: ", hint: "It is one line NAME:BASE64" },
  "{bytes}": { exitCode: 2, says: "cannot use the signing key: " },
  "{not-utf8}": { exitCode: 2, says: "cannot use the signing key: " },
  "{two-lines}": { exitCode: 2, says: "cannot use the signing key: " },
};

// biome-ignore format: a table, one row a line
export const KEYS: readonly BadInput[] = [
  ...Object.entries(WRONG_KEYS).map(([file, answer]) => ({
    what: `push --signing-key-file ${file}`,
    command: `push {path} --signing-key-file ${file}`,
    ...answer,
  })),
  ...["hunter2", "team-1:hunter2", "team-1:aHVudGVyMg==", ":aHVudGVyMg=="].map((key) => ({
    what: `NIXDEPLOY_SIGNING_KEY=${key}`,
    command: "push {path}",
    env: { NIXDEPLOY_SIGNING_KEY: key },
    exitCode: 2 as const,
    says: "cannot use the signing key: ",
  })),
  { what: "a signing key that is empty", command: "push {path}", env: { NIXDEPLOY_SIGNING_KEY: "" }, exitCode: 2, says: "cannot use NIXDEPLOY_SIGNING_KEY: it is set but empty" },
  { what: "a signing key file of somebody else", command: "push {path} --signing-key-file {private}", env: { NIX_REMOTE: "daemon" }, through: "another user", exitCode: 2, says: "cannot read {private} (--signing-key-file): permission denied" },
];
