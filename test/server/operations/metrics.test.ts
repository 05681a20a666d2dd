/** `/metrics`: what it says of a coordinator that has worked, whom it tells, and whose names it never tells. */
import { describe, expect, test } from "bun:test";
import { formatHashNix32 } from "../../../src/nix/hash.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import { logEntry, numberEntries, outcomeEntry, phaseEntry } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const PATH = createTinyPath("one");

async function readMetrics(server: TestCoordinator, token?: string): Promise<ReadonlyMap<string, number>> {
  const answer = await server.fetch("/metrics", token === undefined ? {} : { token });
  expect(answer.status).toBe(200);
  expect(answer.headers.get("content-type")).toStartWith("text/plain; version=0.0.4");
  const lines = (await answer.text()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => {
      const match = /^([a-z_]+(?:\{.*\})?) (\S+)$/.exec(line);
      if (match === null) throw new Error(`no sample: ${line}`);
      return [match[1] ?? "", Number(match[2])];
    }),
  );
}

describe("metrics", () => {
  test("count what was done", async () => {
    await using server = await createTestCoordinator();
    await server.push(PATH);
    const nuc = await server.connectAgent("nuc");
    const gone = await server.connectAgent("gone");
    await gone.disconnect();
    const rollout = await server.activate(PATH, "nuc", "gone");
    const id = rollout.deployments.find(({ agent }) => agent === "nuc")?.id;
    if (id === undefined) throw new Error("no deployment");
    const before = await readMetrics(server);
    for (const state of ["offered", "queued"])
      expect(before.get(`nixdeploy_deployments{workspace="default",state="${state}"}`)).toBe(1);
    expect(before.get('nixdeploy_deployments_ended_total{workspace="default",state="succeeded"}')).toBe(0);
    const entries = numberEntries([phaseEntry("activating"), logEntry("a"), logEntry("b"), outcomeEntry("succeeded")]);
    await nuc.report(id, entries);
    // The same again, as after a lost connection.
    await nuc.report(id, entries);
    const now = await readMetrics(server);
    const expected = {
      'nixdeploy_agents{workspace="default",contact="online"}': 1,
      'nixdeploy_agents{workspace="default",contact="unknown"}': 1,
      'nixdeploy_agents{workspace="default",contact="offline"}': 0,
      'nixdeploy_deployments{workspace="default",state="offered"}': 0,
      'nixdeploy_deployments_ended_total{workspace="default",state="succeeded"}': 1,
      'nixdeploy_deployments_ended_total{workspace="default",state="failed"}': 0,
      nixdeploy_log_lines_total: 2,
      nixdeploy_cache_uploaded_bytes_total: PATH.file.length,
      'nixdeploy_agent_frames_total{direction="received",kind="report"}': 2,
      'nixdeploy_agent_frames_total{direction="sent",kind="offer"}': 1,
      'nixdeploy_http_request_duration_seconds_count{route="/api/v1/rollouts",method="POST",status="2xx"}': 1,
    };
    for (const [series, value] of Object.entries(expected)) expect([series, now.get(series)]).toEqual([series, value]);
    const removal = await server.fetch("agent-removals", { json: { select: ["gone"] } });
    expect(removal.status).toBe(200);
    expect((await readMetrics(server)).get('nixdeploy_agents{workspace="default",contact="unknown"}')).toBe(0);
    for (const series of ["nixdeploy_database_bytes", "process_resident_memory_bytes", "process_start_time_seconds"])
      expect(now.get(series)).toBeGreaterThan(0);
  });

  test("name workspaces and routes, never agents or what was asked for", async () => {
    await using server = await createTestCoordinator();
    await server.push(PATH);
    await server.connectAgent("secret-agent");
    await server.fetch("/made-up-by-a-client");
    await server.fetch("deployments/0123456789abcdfg");
    await server.fetch("made-up", { method: "PURGE" });
    const text = await (await server.fetch("/metrics")).text();
    expect(text).not.toContain("secret-agent");
    expect(text).not.toContain("made-up");
    expect(text).not.toContain("PURGE");
    expect(text).not.toContain("0123456789abcdfg");
    expect(text).toContain('route="(none)",method="GET",status="4xx"');
    expect(text).toContain('route="/api/v1/deployments/:id",method="GET",status="4xx"');
    expect(text).toContain('route="/api/v1/*",method="(other)",status="4xx"');
  });

  test("are for tokens that may watch, and the control socket", async () => {
    await using server = await createTestCoordinator();
    const statusFor = async (token: string | null) => (await server.fetch("/metrics", { token })).status;
    const statuses: Record<string, number> = { none: await statusFor(null), bad: await statusFor("nd_read_x") };
    for (const kind of ["admin", "activate", "push", "read", "agent"] as const)
      statuses[kind] = await statusFor((await server.createToken(kind)).token);
    expect(statuses).toEqual({ none: 401, bad: 401, admin: 200, activate: 200, push: 404, read: 200, agent: 404 });
    const control = await server.coordinator.fetch(new Request("http://control/metrics"), { control: true });
    expect(control.status).toBe(200);
  });
});

test("bytes of NAR files that are asked for are counted, a range as a range", async () => {
  await using server = await createTestCoordinator();
  await server.push(PATH);
  const { listen } = await import("../../../src/server/listener.ts");
  const controlSocket = `${server.directory}/control.sock`;
  await using listener = listen(server.coordinator, { hostname: "127.0.0.1", port: 0, tls: null, controlSocket });
  const url = `${listener.url}/cache/default/nar/${formatHashNix32(PATH.fileHash)}.nar.zst`;
  const get = async (headers: Record<string, string>, method = "GET") =>
    await (
      await fetch(url, { method, headers: { authorization: `Bearer ${server.adminToken}`, ...headers } })
    ).arrayBuffer();
  for (const headers of [{}, { range: "bytes=0-9" }, { range: "bytes=-3" }]) await get(headers);
  await get({}, "HEAD");
  const metrics = await readMetrics(server);
  expect(metrics.get("nixdeploy_cache_served_bytes_total")).toBe(PATH.file.length + 10 + 3);
  const route = 'route="/cache/:cache/nar/:file",method="GET",status="2xx"';
  expect(metrics.get(`nixdeploy_http_request_duration_seconds_count{${route}}`)).toBe(3);
});
