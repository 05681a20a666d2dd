/** What a token learns of itself. */
import { expect, test } from "bun:test";
import { identitySchema } from "../../../src/api/tokens.ts";
import { createTestCoordinator } from "../../support/coordinator.ts";

test("kind, workspace, expiry, and the coordinator's own clock", async () => {
  await using server = await createTestCoordinator();
  const created = await server.createToken("push", { expiresInMs: 60_000 });
  const identify = async (token: string) =>
    identitySchema.parse(await (await server.fetch("identity", { token })).json());
  const now = new Date(server.clock.nowMs()).toISOString();
  const { id, expiresAt } = created;
  expect(await identify(created.token)).toMatchObject({
    now,
    version: server.coordinator.services.version,
    token: { id, kind: "push", workspace: "default", expiresAt },
  });
  expect(await identify(server.adminToken)).toMatchObject({ token: { kind: "admin", workspace: null } });
});
