/**
 * `nixdeploy doctor` where systemd is PID 1: what it says of the units of an agent and of a coordinator as the modules make
 * them, when all is well, and when each of them is broken in its own way.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { z } from "zod";
import { createOwnHost, OWN_AGENT_UNIT, OWN_HOST, type OwnHost, SERVE_UNIT } from "../support/own-host.ts";
import { waitFor } from "../support/wait-for.ts";

const UNDO_UNIT = `nixdeploy-undo-${OWN_HOST}.service`;
/** Comes before /etc/systemd/system, which belongs to the system here. */
const OVERRIDES = "/run/systemd/system.control";
const DATA_DIRECTORY = "/var/lib/nixdeploy/server";

const reportSchema = z.object({
  findings: z.array(
    z.object({
      group: z.string(),
      check: z.string(),
      verdict: z.string(),
      message: z.string(),
      hint: z.string().nullable(),
    }),
  ),
});

let host: OwnHost;

beforeAll(async () => {
  host = await createOwnHost("systemd-doctor");
}, 120_000);
afterAll(() => host[Symbol.asyncDispose]());

const sh = (script: string) => host.box.run(["/bin/sh", "-c", script]);

/** `verdict: message`, and what to do behind it. */
async function look(...words: readonly string[]): Promise<string[]> {
  const { stdout, stderr } = await host.box.exec(["/usr/local/bin/nixdeploy", "doctor", "--json", ...words]);
  if (stdout === "") throw new Error(stderr);
  return reportSchema
    .parse(JSON.parse(stdout))
    .findings.map(({ verdict, message, hint }) => `${verdict}: ${message}${hint === null ? "" : ` | ${hint}`}`);
}
const lookAtAgent = (name = OWN_HOST) => look("--name", name, "--only", `agent.${name} units`);
const lookAtServer = () => look("--data-dir", DATA_DIRECTORY, "--only", "server.unit");

const UNDO_IS_WELL = `ok: ${UNDO_UNIT} is there for each boot`;
const AGENT_IS_WELL = `ok: ${OWN_AGENT_UNIT} runs, and is started at boot`;
const SERVER_IS_WELL = `ok: ${SERVE_UNIT} runs, and is started at boot`;

/** With this said about a unit (a file of it, a link, a folder with either) until it is disposed of. */
async function override(script: string): Promise<AsyncDisposable> {
  await sh(`mkdir -p ${OVERRIDES}; cd ${OVERRIDES}; ${script}; systemctl daemon-reload`);
  return {
    async [Symbol.asyncDispose]() {
      await sh(`rm -rf ${OVERRIDES}; systemctl daemon-reload; systemctl reset-failed`);
      await sh(`systemctl start ${SERVE_UNIT} ${OWN_AGENT_UNIT}`);
      await waitFor("all to be well again", async () => [...(await lookAtAgent()), ...(await lookAtServer())], {
        until: (findings) => Bun.deepEquals(findings, [AGENT_IS_WELL, UNDO_IS_WELL, SERVER_IS_WELL]),
      });
    },
  };
}

/** Of a service, and started anew. */
const overrideService = (unit: string, ...lines: readonly string[]) =>
  override(
    `mkdir -p ${unit}.d; printf '%s\\n' '[Service]' ${lines.map((line) => `'${line}'`).join(" ")} > ${unit}.d/test.conf; ` +
      `systemctl daemon-reload; systemctl restart ${unit} || true`,
  );

const PROGRAM_FAILS = ["ExecStart=", "ExecStart=/bin/false"] as const;
const overruled = (unit: string) => `mkdir -p multi-user.target.wants; ln -s /dev/null multi-user.target.wants/${unit}`;

test("as the modules make them, all is well", async () => {
  expect(await lookAtAgent()).toEqual([AGENT_IS_WELL, UNDO_IS_WELL]);
  expect(await lookAtServer()).toEqual([SERVER_IS_WELL]);
  const all = await look("--data-dir", DATA_DIRECTORY);
  expect(all.filter((line) => line.startsWith("fault"))).toEqual([]);
});

describe("the agent's unit", () => {
  test("was stopped", async () => {
    await using _ = await override(`systemctl stop ${OWN_AGENT_UNIT}`);
    expect(await lookAtAgent()).toEqual([
      `fault: ${OWN_AGENT_UNIT} is inactive | See why: journalctl -u ${OWN_AGENT_UNIT} -e; then: systemctl restart ${OWN_AGENT_UNIT}`,
      UNDO_IS_WELL,
    ]);
  });

  test("is started again and again", async () => {
    await using _ = await overrideService(OWN_AGENT_UNIT, ...PROGRAM_FAILS, "Type=exec", "RestartSec=60");
    const found = await waitFor("systemd to see it end", lookAtAgent, {
      until: ([first]) => /start$|each start/.test(first ?? ""),
    });
    expect(found[0]).toContain(`fault: ${OWN_AGENT_UNIT} ends soon after each start | See why: journalctl`);
  });

  test("stands still while somebody runs the agent by hand", async () => {
    await using _ = await override(`systemctl stop ${OWN_AGENT_UNIT}`);
    const program = `/usr/local/bin/nixdeploy agent --name ${OWN_HOST}`;
    await sh(`systemd-run --quiet --collect --unit=by-hand --setenv=NIXDEPLOY_URL=${host.url} ${program}`);
    const found = await waitFor("the agent by hand", lookAtAgent, {
      until: ([first]) => first?.startsWith("warning") === true,
    });
    await sh("systemctl stop by-hand");
    expect(found[0]).toContain(`warning: the agent runs, but not by ${OWN_AGENT_UNIT}, which is inactive`);
  });

  test("is not started at boot", async () => {
    await using _ = await override(overruled(OWN_AGENT_UNIT));
    expect((await lookAtAgent())[0]).toBe(
      `warning: ${OWN_AGENT_UNIT} runs, but nothing starts it at boot | systemctl enable ${OWN_AGENT_UNIT}`,
    );
  });

  test("has the name that the document gives it", async () => {
    const unit = "nixdeploy-agent.service";
    const program = "ExecStart=/usr/local/bin/nixdeploy agent --name second --profile second";
    await using _ = await override(
      `printf '%s\\n' '[Service]' 'Environment=NIXDEPLOY_URL=http://127.0.0.1:9' '${program}' > ${unit}; ` +
        `systemctl daemon-reload; systemctl start ${unit}`,
    );
    const found = await waitFor("the second agent", () => lookAtAgent("second"), {
      until: (lines) => lines.length > 0,
    });
    expect(found).toEqual([`warning: ${unit} runs, but nothing starts it at boot | systemctl enable ${unit}`]);
    // The first one is not taken for it, nor it for the first one.
    expect((await lookAtAgent())[0]).toBe(AGENT_IS_WELL);
    await sh(`systemctl stop ${unit}`);
    expect((await lookAtAgent("second"))[0]).toContain(`fault: ${unit} is inactive`);
    await sh(`rm ${OVERRIDES}/${unit}; systemctl daemon-reload`);
    expect((await lookAtAgent("second"))[0]).toContain("warning: there is no unit nixdeploy-agent-second.service");
    await sh("rm -r /var/lib/nixdeploy/agents/second");
  });
});

describe("the unit of the way back", () => {
  test("is masked", async () => {
    await using _ = await override(`ln -s /dev/null ${UNDO_UNIT}`);
    expect(await lookAtAgent()).toEqual([
      AGENT_IS_WELL,
      `fault: ${UNDO_UNIT} is masked: nothing can start it | systemctl unmask ${UNDO_UNIT}`,
    ]);
  });

  test("is not started at boot", async () => {
    await using _ = await override(overruled(UNDO_UNIT));
    expect((await lookAtAgent())[1]).toContain(`fault: nothing starts ${UNDO_UNIT} at boot: nobody would go back`);
  });
});

describe("the coordinator's unit", () => {
  test("was stopped", async () => {
    await using _ = await override(`systemctl stop ${SERVE_UNIT}`);
    expect((await lookAtServer())[0]).toContain(`fault: ${SERVE_UNIT} is inactive | See why: journalctl`);
  });

  test("failed", async () => {
    await using _ = await overrideService(SERVE_UNIT, ...PROGRAM_FAILS, "Type=exec", "Restart=no");
    const found = await waitFor("it to fail", lookAtServer, { until: ([first]) => first?.includes("failed") === true });
    expect(found[0]).toContain(`fault: ${SERVE_UNIT} is failed`);
  });

  test("lets it open few files", async () => {
    await using _ = await overrideService(SERVE_UNIT, "LimitNOFILE=512");
    const found = await waitFor("it to be back", () => look("--data-dir", DATA_DIRECTORY, "--only", "server.files"), {
      until: ([first]) => first?.startsWith("skipped") === false,
    });
    expect(found[0]).toContain("warning: the coordinator may open 512 files");
  });
});
