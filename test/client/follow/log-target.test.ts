/** What `logs` may be given, and whose log that is. */
import { expect, test } from "bun:test";
import { createCoordinatorClient } from "../../../src/client/api/coordinator.ts";
import { createHttpTransport } from "../../../src/client/api/transport.ts";
import { findLogTarget } from "../../../src/client/follow/log-target.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { systemClock } from "../../../src/runtime.ts";
import { createDeployment } from "../../support/deployment-example.ts";
import { FAKE_TOKEN, problem, startFakeCoordinator } from "../../support/fake-coordinator.ts";
import { impatientRandom } from "../../support/run-command.ts";

const { signal } = new AbortController();
const SYSTEM = createDeployment().storePath;

/** A coordinator that has had one rollout to two of its three agents. */
async function createFleet() {
  const stack = new AsyncDisposableStack();
  const fake = stack.use(startFakeCoordinator());
  const options = { env: {}, clock: systemClock, random: impatientRandom, userAgent: "test" };
  const client = createCoordinatorClient(
    stack.use(createHttpTransport({ ...options, url: fake.url, token: FAKE_TOKEN })),
  );
  for (const name of ["nuc", "tuc"]) fake.addAgent(name);
  const request = { agents: { nuc: SYSTEM, tuc: SYSTEM }, mode: "switch" as const };
  const rollout = await client.createRollout({ request, idempotencyKey: "one", signal });
  fake.addAgent("new");
  const find = async (text: string) => await findLogTarget(client, { text, workspace: undefined }, signal);
  return { fake, rollout, find, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

const agentsOf = ({ deployments }: Awaited<ReturnType<typeof findLogTarget>>) =>
  deployments.map(({ agent }) => `${agent}`);

test("a deployment by its id is that one alone; a rollout is all of it", async () => {
  await using fleet = await createFleet();
  const [nuc] = fleet.rollout.deployments;
  const one = await fleet.find(nuc?.id ?? "");
  expect([agentsOf(one), one.rolloutId]).toEqual([["nuc"], null]);
  const all = await fleet.find(fleet.rollout.id);
  expect([agentsOf(all), all.rolloutId]).toEqual([["nuc", "tuc"], fleet.rollout.id]);
});

test("an agent is its latest deployment, and its name may look like an id", async () => {
  await using fleet = await createFleet();
  const target = await fleet.find("tuc");
  expect([agentsOf(target), target.rolloutId]).toEqual([["tuc"], null]);
  expect(fleet.fake.requests.filter(({ path }) => path.includes("/deployments/tuc"))).toEqual([]);
});

test("a pattern is all that fit and have had something", async () => {
  await using fleet = await createFleet();
  const { deployments } = fleet.rollout;
  for (const each of deployments) {
    fleet.fake.addAgent(`latest-${each.agent}`, "online", {
      deployment: { id: each.id, state: "queued", storePath: SYSTEM },
    });
  }
  expect(agentsOf(await fleet.find("*"))).toEqual(["nuc", "tuc"]);
});

test.each(["nobody", "aaaaaaaaaaaaaaaa", "not a name!", "n*"])("%p is said to be nothing", async (text) => {
  await using fleet = await createFleet();
  const thrown = await fleet.find(text).catch((error: unknown) => error);
  expect(thrown).toMatchObject({ kind: "not-found", hint: expect.stringContaining("nixdeploy agents") });
});

test("a coordinator that refuses is not taken for one that knows nothing", async () => {
  await using fleet = await createFleet();
  fleet.fake.intercept = async () => problem(new NixdeployError("denied", "cannot show it: the token was revoked"));
  const thrown = await fleet.find("aaaaaaaaaaaaaaaa").catch((error: unknown) => error);
  expect(thrown).toBeInstanceOf(NixdeployError);
  expect(thrown).toMatchObject({ kind: "denied" });
});
