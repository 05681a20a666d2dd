/** The closures of a whole fleet are measured while everybody else has a turn, and what they share counts in each of them. */
import { expect, test } from "bun:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { StorePath } from "../../../src/nix/store-path.ts";
import { checkClosures } from "../../../src/server/completeness/completeness.ts";
import { createTestCoordinator } from "../../support/coordinator.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const SYSTEMS = 40;

test("many closures at once hold up nobody", async () => {
  await using server = await createTestCoordinator();
  const shared = createTinyPath("shared");
  const tools = Array.from({ length: SYSTEMS }, (_, index) =>
    createTinyPath(`tool-${index}`, { references: [shared.storePath] }),
  );
  const systems = tools.map((tool, index) =>
    createTinyPath(`system-${index}`, { references: [tool.storePath, shared.storePath] }),
  );
  await server.publishUnseen(shared, ...tools, ...systems);
  const { services } = server.coordinator;
  const { id: workspaceId } = await services.database.selectFrom("workspaces").select("id").executeTakeFirstOrThrow();
  const paths = new Set<StorePath>(systems.map(({ storePath }) => storePath));
  let turns = 0;
  let isOver = false;
  const others = (async () => {
    for (; !isOver; turns += 1) await nextTurn();
  })();
  const { faults, sizes } = await checkClosures(services, { workspaceId, paths });
  isOver = true;
  await others;
  expect(faults).toEqual([]);
  expect([...sizes]).toEqual(
    systems.map((system, index) => {
      return [system.storePath, system.nar.length + (tools[index]?.nar.length ?? 0) + shared.nar.length];
    }),
  );
  expect(turns).toBeGreaterThanOrEqual(SYSTEMS);
});
