/** Rows: directories, files and ports of this host that cannot be used. What was in them before must be there after. */
import { chmod, chown, mkdir, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runChecked } from "../../support/processes.ts";
import type { BadInput } from "./case.ts";
import type { World } from "./world.ts";

const SERVE = "serve --listen 127.0.0.1:0 --data-dir {new}";
const NOISE = new Uint8Array(8_192).map((_, index) => (index * 131 + 7) % 251);

/** A data directory that was in use, and then something happened to it. */
function damaged(
  what: string,
  damage: (directory: string) => Promise<unknown>,
  answer: Pick<BadInput, "says"> & Partial<BadInput>,
): BadInput[] {
  const prepare = async ({ usedDataDirectory }: World, directory: string) => {
    await runChecked(["cp", "-a", usedDataDirectory, directory]);
    await damage(directory);
  };
  return [SERVE, "token list --data-dir {new}"].map((command) => ({
    what: `${command.split(" ")[0]}, ${what}`,
    command,
    prepare,
    exitCode: 1,
    ...answer,
  }));
}

const at = (directory: string) => (name: string) => join(directory, name);
const insteadOf = (name: string, content: Uint8Array | string) => async (directory: string) => {
  await rm(at(directory)(name), { recursive: true, force: true });
  await writeFile(at(directory)(name), content, { mode: 0o600 });
};
const folderInsteadOf = (name: string) => async (directory: string) => {
  await rm(at(directory)(name), { recursive: true, force: true });
  await mkdir(at(directory)(name));
};

const LOOSE = "cannot use the data directory {new}: others may look into it";

// biome-ignore format: a table, one row a line
export const DATA_DIRECTORIES: readonly BadInput[] = [
  ...damaged("a database of noise", insteadOf("coordinator.db", NOISE), { says: "cannot open the database {new}/coordinator.db: it is no database", hint: "Restore it from a backup" }),
  ...damaged("a database of text", insteadOf("coordinator.db", "hello, I am no database, but I am long enough to be looked at\n".repeat(20)), { says: "it is no database" }),
  ...damaged("a database that was cut", (directory) => truncate(join(directory, "coordinator.db"), 9_000), { says: "cannot open the database {new}/coordinator.db: it is damaged", hint: "Restore it from a backup" }),
  ...damaged("a database that is empty", (directory) => truncate(join(directory, "coordinator.db"), 0), { says: "cannot open the database {new}/coordinator.db: it is gone, or empty", hint: "To begin anew" }),
  ...damaged("a database that is gone", (directory) => rm(join(directory, "coordinator.db")), { says: "it is gone, or empty" }),
  ...damaged("a database that is a directory", folderInsteadOf("coordinator.db"), { says: "cannot open the database {new}/coordinator.db: it is no file" }),
  ...damaged("a lock of noise", insteadOf("coordinator.lock", NOISE), { says: "cannot open the lock file {new}/coordinator.lock: it is no database", hint: "Remove it: it holds nothing." }),
  ...damaged("a lock that is a directory", folderInsteadOf("coordinator.lock"), { says: "cannot open the lock file {new}/coordinator.lock: it is no file" }),
  ...damaged("NAR files that are a file", insteadOf("nars", "x"), { says: "cannot use the folder of NAR files {new}/nars: a part of the path is no directory" }),
  ...damaged("a control socket that is a directory", folderInsteadOf("control.sock"), {
    says: "cannot make the control socket {new}/control.sock: ",
  }).slice(0, 1),
  { what: "serve, on a directory that another coordinator works on", command: "serve --listen 127.0.0.1:0 --data-dir {data}", exitCode: 1, says: "cannot use the data directory {data}: another coordinator works on it", hint: "choose another --data-dir" },
  { what: "serve, on a file", command: "serve --listen 127.0.0.1:0 --data-dir {text}", exitCode: 1, says: "cannot use the data directory {text}: it is a file" },
  { what: "serve, below a file", command: "serve --listen 127.0.0.1:0 --data-dir {text}/below", exitCode: 1, says: "a part of the path is no directory" },
  { what: "serve, on a directory that cannot be made", command: "serve --listen 127.0.0.1:0 --data-dir /proc/nixdeploy", exitCode: 1, says: "cannot use the data directory /proc/nixdeploy: " },
  { what: "serve, on a name that is too long", command: `serve --listen 127.0.0.1:0 --data-dir /tmp/${"x".repeat(300)}`, exitCode: 1, says: "the name is too long" },
  { what: "serve, on a directory of something else", command: SERVE, prepare: folderWith("data.txt", 0o755), exitCode: 1, says: LOOSE, hint: "choose an empty one" },
  { what: "token, on a directory of something else", command: "token list --data-dir {new}", prepare: folderWith("data.txt", 0o755), exitCode: 1, says: LOOSE },
  { what: "serve, on a directory of another user", command: SERVE, prepare: (_, directory) => mkdir(directory, { mode: 0o700 }), through: "another user", exitCode: 1, says: "cannot use the data directory {new}: permission denied", hint: "--data-dir" },
  { what: "serve, on a directory that may be read only", command: SERVE, prepare: (_, directory) => mkdir(directory, { mode: 0o755 }), through: "another user", exitCode: 1, says: "cannot use the data directory {new}: that is not permitted to this user" },
  { what: "serve, on a directory without write permission", command: SERVE, prepare: readOnlyFolder, through: "another user", exitCode: 1, says: "cannot use the data directory {new}: permission denied" },
  { what: "a backup of no coordinator", command: "backup {new}/b --data-dir {new}", exitCode: 1, says: "cannot back up {new}/coordinator.db: there is no such database", hint: "--data-dir" },
  { what: "a backup into a folder that is not there", command: "backup {new}/no/b --data-dir {data}", exitCode: 1, says: "cannot write the backup {new}/no/b: there is no such file" },
  { what: "a restore of what is no backup", command: "restore {text} --data-dir {new}", exitCode: 1, says: "cannot use the backup {text}: it is no database", hint: "`nixdeploy backup FILE` writes one." },
  { what: "a restore of nothing", command: "restore {new}/b --data-dir {new}", exitCode: 1, says: "cannot use the backup {new}/b: there is no such file" },
  { what: "a restore while the coordinator runs", command: "restore {data}/coordinator.db --data-dir {data}", exitCode: 1, says: "another coordinator works on it" },
  { what: "token, on a directory that is not there", command: "token list --data-dir {new}", exitCode: 1, says: "cannot use the data directory {new}: there is none", hint: "`nixdeploy serve` makes it" },
  { what: "serve, without a home", command: "serve --listen 127.0.0.1:0", through: "HOME unset, another user", exitCode: 1, says: "cannot use the data directory /nonexistent/.local/state/nixdeploy/server: ", hint: "--data-dir" },
  { what: "serve, with a home that is no path", command: "serve --listen 127.0.0.1:0", env: { HOME: "home", XDG_STATE_HOME: "state" }, through: "another user", exitCode: 2, says: "cannot find the home directory: HOME is not an absolute path" },
  { what: "serve, with a state home that cannot be written", command: "serve --listen 127.0.0.1:0", env: { XDG_STATE_HOME: "{text}" }, through: "another user", exitCode: 1, says: "cannot use the data directory {text}/nixdeploy/server: a part of the path is no directory" },
];

const TLS = (certificate: string, key: string) => `${SERVE} --tls-cert ${certificate} --tls-key ${key}`;

// biome-ignore format: a table, one row a line
export const LISTENING: readonly BadInput[] = [
  { what: "no port", command: "serve --data-dir {new} --listen localhost", exitCode: 2, says: "--listen: it must be HOST:PORT" },
  { what: "a port that is none", command: "serve --data-dir {new} --listen 127.0.0.1:99999", exitCode: 2, says: "--listen: it must be HOST:PORT" },
  { what: "a port in use", command: "serve --data-dir {new} --listen 127.0.0.1:{port}", exitCode: 1, says: "cannot listen on 127.0.0.1:{port}: it is in use", hint: "--listen" },
  { what: "an address of another machine", command: "serve --data-dir {new} --listen 203.0.113.1:0", exitCode: 1, says: "cannot listen on 203.0.113.1:0: this machine has no such address", hint: "--listen" },
  { what: "a host that nobody knows", command: "serve --data-dir {new} --listen nowhere.invalid:0", exitCode: 1, says: "cannot listen on nowhere.invalid: no such host is known" },
  { what: "a public URL that is none", command: `${SERVE} --public-url deploy.example.org`, exitCode: 2, says: "--public-url: it must be an http or https URL" },
  { what: "a public URL with a password", command: `${SERVE} --public-url https://me:hunter2@example.org`, exitCode: 2, says: "--public-url: it must have no user name, password" },
  { what: "a certificate without its key", command: `${SERVE} --tls-cert {certificate}`, exitCode: 2, says: "--tls-cert and --tls-key go together" },
  { what: "a key without its certificate", command: `${SERVE} --tls-key {certificate-key}`, exitCode: 2, says: "--tls-cert and --tls-key go together" },
  { what: "a certificate that is not there", command: TLS("{rows}/no", "{certificate-key}"), exitCode: 2, says: "cannot read the TLS certificate {rows}/no: there is no such file" },
  { what: "a certificate that is none", command: TLS("{text}", "{certificate-key}"), exitCode: 2, says: "cannot use the TLS certificate {text}: it is no certificate in PEM form", hint: "-----BEGIN CERTIFICATE-----" },
  { what: "a key that is none", command: TLS("{certificate}", "{bytes}"), exitCode: 2, says: "cannot use the TLS key {bytes}: it is no key in PEM form" },
  { what: "certificate and key swapped", command: TLS("{certificate-key}", "{certificate}"), exitCode: 2, says: "it is no certificate in PEM form" },
  { what: "the key of another certificate", command: TLS("{certificate}", "{rows}/authority.key"), exitCode: 2, says: "is not that of the certificate" },
];

const AGENT = "agent --name second --profile {new}/profile --state-dir {new}/state";

/** An agent's state directory that was in use, and then something happened to it. */
function damagedState(
  what: string,
  damage: (state: string) => Promise<unknown>,
  answer: Pick<BadInput, "says"> & Partial<BadInput>,
): BadInput {
  const prepare = async ({ usedStateDirectory }: World, directory: string) => {
    await mkdir(directory);
    await runChecked(["cp", "-a", usedStateDirectory, join(directory, "state")]);
    await damage(join(directory, "state"));
  };
  return { what, command: AGENT, prepare, exitCode: 1, ...answer };
}

const KEY = "cannot read the agent's key {new}/state/key: ";
const ENROLMENT = "cannot read {new}/state/enrolment.json: ";
const OFFER = "deployments/0123456789abcdfg/offer.json";
const brokenOffer = (text: string) => async (state: string) => {
  await mkdir(join(state, OFFER, ".."), { recursive: true });
  await writeFile(join(state, OFFER), text);
};

// biome-ignore format: a table, one row a line
export const AGENTS: readonly BadInput[] = [
  damagedState("a key that others may read", (state) => chmod(join(state, "key"), 0o644), { says: "cannot use the agent's key {new}/state/key: other users may read it", hint: "chmod 600 {new}/state/key" }),
  damagedState("a key of noise", insteadOf("key", NOISE.subarray(0, 100)), { says: `${KEY}it is damaged` }),
  damagedState("a key that was cut", (state) => truncate(join(state, "key"), 20), { says: `${KEY}it is damaged (20 characters instead of 44)`, hint: "Restore it from a backup" }),
  damagedState("a key that is empty", (state) => truncate(join(state, "key"), 0), { says: `${KEY}it is damaged` }),
  damagedState("a key that is a directory", folderInsteadOf("key"), { says: "cannot use the agent's key {new}/state/key: other users may read it" }),
  damagedState("an enrolment of noise", insteadOf("enrolment.json", NOISE), { says: `${ENROLMENT}it is damaged (no JSON)`, hint: "Remove the file" }),
  damagedState("an enrolment that was cut", (state) => truncate(join(state, "enrolment.json"), 30), { says: `${ENROLMENT}it is damaged (no JSON)` }),
  damagedState("an enrolment of another shape", insteadOf("enrolment.json", "{}"), { says: `${ENROLMENT}it is damaged (coordinatorUrl, agentId, workspace, pinnedPublicKeys)` }),
  damagedState("an enrolment that is a directory", folderInsteadOf("enrolment.json"), { says: `${ENROLMENT}it is a directory` }),
  damagedState("an offer of noise", brokenOffer("\u0000\u0001\u0002"), { says: "cannot read the deployment {new}/state/deployments/0123456789abcdfg/offer.json: it is damaged (no JSON)", hint: "Remove {new}/state/deployments/0123456789abcdfg" }),
  damagedState("an offer of another shape", brokenOffer('{"kind":"offer"}'), { says: `${OFFER}: it is damaged (deploymentId` }),
  damagedState("deployments that are a file", insteadOf("deployments", "x"), { says: "cannot use the agent's deployments in {new}/state/deployments: " }),
  damagedState("a lock that is a directory", folderInsteadOf("lock"), { says: "cannot write the lock {new}/state/lock: it is a directory" }),
  damagedState("a key of another user", (state) => chmod(state, 0o711), { through: "another user", says: "permission denied" }),
  damagedState("a key that only another user may read", ownedByNobody, { through: "another user", says: `${KEY}permission denied` }),
  { what: "a second agent on one profile", command: "agent --name second --profile {rows}/first/profile --state-dir {new}", exitCode: 1, says: "cannot start the agent: another one keeps the profile {rows}/first/profile", hint: "only one agent may keep a profile" },
  { what: "a second agent on one state directory", command: "agent --name second --profile {new}/profile --state-dir {rows}/first/state", exitCode: 1, says: "cannot start the agent: another one uses the state directory {rows}/first/state" },
  { what: "the same agent once more", command: "agent --name first --profile {rows}/first/profile --state-dir {rows}/first/state", exitCode: 1, says: "cannot start the agent: another one keeps the profile" },
  { what: "a state directory that is a file", command: "agent --name n --profile {new}/profile --state-dir {text}", exitCode: 1, says: "cannot write the lock {text}/lock: {text} is no directory", hint: "--state-dir" },
  { what: "a profile below a file", command: "agent --name n --profile {text}/profile --state-dir {new}", exitCode: 1, says: "cannot write the lock {text}/profile.nixdeploy-lock: {text} is no directory", hint: "--profile" },
  { what: "a state directory that cannot be made", command: "agent --name n --profile {new}/profile --state-dir /proc/nixdeploy", exitCode: 1, says: "cannot write the lock /proc/nixdeploy/lock: " },
  { what: "a profile of root, as another user", command: "agent --name n --profile /nix/var/nix/profiles/system --state-dir {new}", through: "another user", exitCode: 1, says: "permission denied", hint: "--profile" },
  { what: "no home", command: "agent --name n", through: "HOME unset, another user", exitCode: 1, says: "cannot write the lock /nonexistent/.local/state/nix/profiles/home-manager.nixdeploy-lock: ", hint: "--profile" },
  { what: "a home that is no path", command: "agent --name n", env: { HOME: "home" }, through: "another user", exitCode: 2, says: "cannot find the home directory: HOME is not an absolute path" },
  { what: "no address", command: AGENT, env: { NIXDEPLOY_URL: null }, exitCode: 2, says: "cannot find the coordinator" },
  { what: "no token", command: AGENT, env: { NIXDEPLOY_TOKEN: null }, exitCode: 77, says: "cannot log in as second: this coordinator does not know the agent's key", hint: "NIXDEPLOY_AGENT_TOKEN" },
  ...["hunter2", "{push-token}", "{revoked-token}", "{false-token}", "hunter2\nhunter2"].map(
    (token): BadInput => ({
      what: `the token ${JSON.stringify(token)}`,
      command: AGENT,
      env: { NIXDEPLOY_AGENT_TOKEN: token },
      exitCode: 77,
      says: "cannot log in as second: the agent token is unknown, expired or revoked, or it is of another kind",
      hint: "nixdeploy token create --kind agent",
    }),
  ),
  { what: "a token that is empty", command: AGENT, env: { NIXDEPLOY_AGENT_TOKEN: "" }, exitCode: 2, says: "cannot use NIXDEPLOY_AGENT_TOKEN: it is set but empty" },
  { what: "a token file that is not there, before the first contact", command: AGENT, env: { NIXDEPLOY_AGENT_TOKEN_FILE: "/nowhere/token" }, exitCode: 2, says: "cannot read /nowhere/token (NIXDEPLOY_AGENT_TOKEN_FILE): there is no such file" },
  { what: "a token file that is a token", command: AGENT, env: { NIXDEPLOY_AGENT_TOKEN_FILE: "{agent-token}" }, exitCode: 2, says: "cannot use NIXDEPLOY_AGENT_TOKEN_FILE: it is a secret itself" },
];

function folderWith(name: string, mode: number): NonNullable<BadInput["prepare"]> {
  return async (_, directory) => {
    await mkdir(directory);
    await chmod(directory, mode);
    await writeFile(join(directory, name), "somebody's");
  };
}

async function readOnlyFolder(_: World, directory: string): Promise<void> {
  await mkdir(directory, { mode: 0o500 });
  await chown(directory, 65_534, 65_534);
}

/** All of it but the key. */
async function ownedByNobody(state: string): Promise<void> {
  for (const path of [
    join(state, ".."),
    state,
    join(state, "lock"),
    join(state, "deployments"),
    join(state, "enrolment.json"),
  ]) {
    await chown(path, 65_534, 65_534);
  }
}
