/**
 * Agents that are units of a person's own service manager (`systemd --user`, lingering): Home Manager restarts, replaces
 * and stops them in the middle of the switch, and the supervisor must not go with them. The home's unit is our module's.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { createHolds } from "../support/holds.ts";
import { ensureNixOf } from "../support/nix-versions.ts";
import { renderersOf } from "../support/rendered-modules.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { createSystemdFleet, PROGRAM, type SystemdFleet } from "../support/systemd-fleet.ts";
import { addSystemdUser, importToBox, type SystemdUser } from "../support/systemd-user.ts";
import { waitFor } from "../support/wait-for.ts";

const HOME_UNIT = "nixdeploy-agent-home.service";
const TOOLS_UNIT = "nixdeploy-agent-tools.service";
/** Nobody answers there. */
const DEAF = "http://127.0.0.1:9";
const POLICY = ["--confirm-window", "60s"] as const;

let under: SystemdFleet;
let alice: SystemdUser;
let versions = 0;
/** Where Nix is that evaluates our modules. */
let nix: Readonly<Record<string, string>>;
/** What is live when a test begins. */
let home: string;
let tools: string;

beforeAll(async () => {
  under = await createSystemdFleet("systemd-users");
  alice = await addSystemdUser(under.box, { name: "alice", id: 64_021 });
  nix = { PATH: `${(await ensureNixOf("trixie")).binDirectory}:/usr/bin:/bin` };
  await alice.writeFile("token", `${await under.fleet.makeToken("agent")}\n`);
  home = await buildHome();
  await importToBox(under.box, under.fleet.builder, home);
  await alice.run(["mkdir", "-p", `${alice.home}/.local/state/nix/profiles`]);
  await alice.run([`${home}/activate`, "--driver-version", "1"]);
  await alice.run(["nix-env", "--profile", profileOf("home-manager"), "--set", home]);
  tools = await buildTools();
  await importToBox(under.box, under.fleet.builder, tools);
  await alice.run(["nix-env", "--profile", profileOf("tools"), "--set", tools]);
  await alice.run(["systemctl", "--user", "link", `${profileOf("tools")}/share/systemd/user/${TOOLS_UNIT}`]);
  await alice.run(["systemctl", "--user", "start", TOOLS_UNIT]);
  for (const agent of ["home", "tools"]) {
    await waitFor(`the agent ${agent} to be admitted`, () => readState(agent, "enrolment.json"), { timeoutMs: 30_000 });
  }
}, 120_000);
afterAll(() => under[Symbol.asyncDispose]());

const profileOf = (name: string) => `${alice.home}/.local/state/nix/profiles/${name}`;
const readState = (agent: string, file: string) =>
  readFile(under.box.diskPath(`${alice.home}/.local/state/nixdeploy/agents/${agent}/${file}`), "utf8");

/** As Home Manager writes it of our module. */
async function homeUnit(url: string): Promise<string> {
  const modules = `[ {
    home.homeDirectory = "${alice.home}";
    xdg.stateHome = "${alice.home}/.local/state";
    services.nixdeploy-agent = {
      enable = true;
      name = "home";
      url = "${url}";
      tokenFile = "${alice.home}/token";
      environment.TOLD_BY = "version ${versions}";
    };
  } ]`;
  const [standIn] = renderersOf("home");
  const files = (await standIn?.render({ kind: "home", modules }, nix)) ?? {};
  return files[`systemd/user/${HOME_UNIT}`] ?? "";
}

function toolsUnit(url: string): string {
  return `[Unit]
Description=The agent of tools, told by version ${versions}
StartLimitIntervalSec=0
[Service]
Type=exec
Environment=NIXDEPLOY_URL=${url}
Environment=NIXDEPLOY_AGENT_TOKEN_FILE=%h/token
ExecStart=/usr/local/bin/nixdeploy agent --name tools --profile tools
Restart=always
RestartSec=1
[Install]
WantedBy=default.target
`;
}

type HomeOptions = { readonly url?: string; readonly hasUnit?: boolean; readonly heldAt?: "end" };

async function buildHome({ url, hasUnit = true, heldAt }: HomeOptions = {}): Promise<string> {
  versions += 1;
  const units = hasUnit ? { [HOME_UNIT]: await homeUnit(url ?? under.fleet.coordinator.url) } : {};
  const faults = heldAt === undefined ? [] : [{ stage: heldAt, kind: "hold", argument: "home" } as const];
  const version = `${versions}`;
  return await under.fleet.builder.build("home-manager", { name: "home", version, units, faults });
}

async function buildTools(url = under.fleet.coordinator.url): Promise<string> {
  versions += 1;
  const units = { [TOOLS_UNIT]: toolsUnit(url) };
  return await under.fleet.builder.build("profile", { name: "tools", version: `${versions}`, units });
}

async function start(agent: string, path: string, flags: readonly string[] = POLICY) {
  await under.fleet.expectRun(["push", path]);
  const activation = await under.fleet.start(["activate", `${agent}=${path}`, "--json", ...flags]);
  return async () => {
    await activation.exited;
    const text = activation.lines.filter(({ stream }) => stream === "stdout").map((line) => line.text);
    const [deployment] = rolloutResultSchema.parse(JSON.parse(text.join("\n"))).deployments;
    if (deployment === undefined) throw new Error(activation.output());
    return deployment;
  };
}

const deploy = async (agent: string, path: string, flags?: readonly string[]) => (await start(agent, path, flags))();

async function expectRuns(unit: string, profile: string, path: string): Promise<void> {
  expect(await alice.run(["readlink", "-e", profileOf(profile)])).toBe(path);
  const directory = profile === "home-manager" ? "home-files/.config/systemd/user" : "share/systemd/user";
  const wanted = await alice.run(["cat", `${path}/${directory}/${unit}`]);
  expect(await alice.run(["systemctl", "--user", "cat", unit])).toContain(wanted);
  expect(await alice.unit(unit, "ActiveState")).toBe("active");
  await waitFor("nothing of the activation to be left", () => alice.run(LIST_UNITS), {
    until: (units) => !/nixdeploy-(activation|deadline)/.test(units),
  });
}

const LIST_UNITS = ["systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", "nixdeploy-*"];

async function expectHome(path: string): Promise<void> {
  const find = "find . -type l -lname '/nix/store/*-home-manager-files/*' -printf '%P -> %l\\n' | sort";
  const source = await alice.run(["readlink", "-e", `${path}/home-files`]);
  const links = (await alice.run(["/bin/sh", "-c", `cd; ${find}`])).split("\n");
  const wanted = await alice.run([
    "/bin/sh",
    "-c",
    `cd ${source}; find . -type l -printf '%P -> ${source}/%P\\n' | sort`,
  ]);
  expect(links).toEqual(wanted.split("\n"));
  await expectRuns(HOME_UNIT, "home-manager", path);
}

test("doctor finds the unit of a person's own service manager, and says how to ask that", async () => {
  const look = async () => {
    const { stdout } = await alice.exec([
      PROGRAM,
      "doctor",
      "--json",
      "--name",
      "tools",
      "--only",
      "agent.tools units",
    ]);
    return JSON.parse(stdout).findings;
  };
  await waitFor("the agent to run", look, { until: ([{ message }]) => message.startsWith(`${TOOLS_UNIT} runs`) });
  await alice.run(["systemctl", "--user", "stop", TOOLS_UNIT]);
  expect(await look()).toMatchObject([
    {
      verdict: "fault",
      message: `${TOOLS_UNIT} is inactive`,
      hint: expect.stringContaining("systemctl --user restart"),
    },
  ]);
  await alice.run(["systemctl", "--user", "start", TOOLS_UNIT]);
});

test("a generation that changes the agent's own unit is proved by the agent that its script has restarted", async () => {
  const before = await alice.unit(HOME_UNIT, "MainPID");
  const generation = await buildHome();
  expect(await deploy("home", generation)).toMatchObject({ state: "succeeded", previousPath: home });
  expect(await alice.unit(HOME_UNIT, "MainPID")).not.toBe(before);
  await expectHome(generation);
  home = generation;
}, 90_000);

test("a generation whose agent does not reach the coordinator is undone within the window", async () => {
  const deployment = await deploy("home", await buildHome({ url: DEAF }), ["--confirm-window", "4s"]);
  expect(deployment.state).toBe("rolled-back");
  expect(deployment.reason).toContain("nobody has logged in from it");
  await expectHome(home);
}, 90_000);

test("a generation without the unit that runs the agent is refused, untouched", async () => {
  const before = await alice.unit(HOME_UNIT, "MainPID");
  const deployment = await deploy("home", await buildHome({ hasUnit: false }));
  expect(deployment.state).toBe("failed");
  expect(deployment.reason).toContain(`it does not contain this agent's unit ${HOME_UNIT}`);
  expect(await alice.unit(HOME_UNIT, "MainPID")).toBe(before);
  await expectHome(home);
}, 90_000);

test("the supervisor is a unit of its own: it goes on when the agent's is stopped, and again when it is killed", async () => {
  const holds = createHolds(under.box);
  await holds.set("home");
  const generation = await buildHome({ heldAt: "end" });
  const end = await start("home", generation);
  await holds.reached("home");
  const supervisor = "nixdeploy-activation-home.service";
  const killed = await alice.unit(supervisor, "MainPID");
  expect(await readFile(under.box.hostPath(`/proc/${killed}/cgroup`), "utf8")).toContain(`/${supervisor}`);
  await alice.run(["systemctl", "--user", "stop", HOME_UNIT]);
  await alice.run(["kill", "-9", killed]);
  await waitFor("another supervisor", () => alice.unit(supervisor, "MainPID"), {
    until: (id) => id !== "0" && id !== killed,
  });
  await holds.releaseAll();
  expect(await end()).toMatchObject({ state: "succeeded" });
  await expectHome(generation);
  home = generation;
}, 90_000);

test("when the supervisor is gone for good, the person's own timer goes back", async () => {
  const end = await start("home", await buildHome({ url: DEAF }), ["--confirm-window", "5s"]);
  const supervisor = "nixdeploy-activation-home.service";
  await waitFor("the timer", () => alice.unit("nixdeploy-deadline-home-confirming.timer", "ActiveState"), {
    timeoutMs: 40_000,
    until: (state) => state === "active",
  });
  await alice.run(["systemctl", "--user", "mask", "--runtime", supervisor]);
  // One after the other: the supervisor restarts the agent, which would take back that it is to be stopped.
  for (const unit of [supervisor, HOME_UNIT]) await alice.run(["systemctl", "--user", "stop", unit]);
  expect(await end()).toMatchObject({ state: "rolled-back" });
  await alice.run(["systemctl", "--user", "unmask", "--runtime", supervisor]);
  await expectHome(home);
}, 90_000);

test("a plain profile that holds the agent's unit is proved by the agent as the supervisor restarts it", async () => {
  const before = await alice.unit(TOOLS_UNIT, "MainPID");
  const path = await buildTools();
  expect(await deploy("tools", path)).toMatchObject({ state: "succeeded", previousPath: tools });
  expect(await alice.unit(TOOLS_UNIT, "MainPID")).not.toBe(before);
  await expectRuns(TOOLS_UNIT, "tools", path);
  tools = path;
  const deployment = await deploy("tools", await buildTools(DEAF), ["--confirm-window", "4s"]);
  expect(deployment.state).toBe("rolled-back");
  expect(deployment.reason).toContain("nobody has logged in from it");
  await expectRuns(TOOLS_UNIT, "tools", tools);
}, 90_000);

test("what a reboot interrupts is undone when the person's services start again", async () => {
  const end = await start("home", await buildHome({ url: DEAF }));
  await waitFor("the proof to be awaited", () => readState("home", "activation.json"), {
    timeoutMs: 40_000,
    until: (record) => record.includes('"stage": "confirming"'),
  });
  await under.box.powerCut();
  await under.box.boot();
  alice = await addSystemdUser(under.box, { name: "alice", id: 64_021 });
  const deployment = await end();
  expect(deployment.state).toBe("rolled-back");
  expect(deployment.reason).toContain("rebooted before the new version had proved itself");
  await expectHome(home);
}, 120_000);
