/** A rollout for all agents at once, from the request to the last outcome that is stored; and what each agent costs. */
import { type Bench, type Figure, megabytes } from "../report.ts";
import { AGENTS, AT_ONCE, FEWER_AGENTS } from "./idle.ts";
import { startLoad } from "./load.ts";
import { agentName } from "./load-process.ts";
import { type Served, startServed } from "./served.ts";

type Measured = {
  readonly offersMs: number;
  readonly offersCpu: number;
  readonly outcomesMs: number;
  readonly outcomesCpu: number;
  readonly totalBytes: number;
};

const MS_PER_S = 1_000;

export const rollout: Bench = {
  name: "coordinator-rollout",
  summary: `A rollout for ${AGENTS} agents on one core: offers, then phases, logs, proofs and outcomes, while one follows`,
  async run() {
    const fewer = await measureRollout(FEWER_AGENTS);
    const all = await measureRollout(AGENTS);
    const each = (measured: Measured, agents: number): Figure => ({
      label: `processor for each of ${agents}`,
      value: (measured.outcomesCpu / agents) * MS_PER_S,
      unit: "ms",
    });
    return {
      figures: [
        each(fewer, FEWER_AGENTS),
        each(all, AGENTS),
        { label: "processor until the last offer", value: all.offersCpu, unit: "s" },
        { label: "processor until the last outcome", value: all.outcomesCpu, unit: "s" },
        megabytes("coordinator after it", all.totalBytes),
      ],
      ratios: [
        { label: "each of many by each of few", value: all.outcomesCpu / AGENTS / (fewer.outcomesCpu / FEWER_AGENTS) },
      ],
      reaches: [
        { label: "last offer delivered", value: all.offersMs / MS_PER_S, unit: "s", most: 2 },
        { label: "last outcome stored", value: all.outcomesMs / MS_PER_S, unit: "s", most: 15 },
      ],
    };
  },
};

async function measureRollout(count: number): Promise<Measured> {
  await using served = await startServed();
  await using load = startLoad();
  await load.run({ kind: "set", url: served.agentUrl, token: await served.makeToken() });
  await load.run({ kind: "connect", from: 0, to: count, atOnce: AT_ONCE });
  const { storePath } = await served.push("bench");
  const names = Array.from({ length: count }, (_, index) => agentName(index));
  await load.run({ kind: "reset" });
  await load.run({ kind: "set", plan: { kind: "deployment" } });
  const [startMs, startCpu] = [Date.now(), served.cpuSeconds()];
  const body = { agents: Object.fromEntries(names.map((name) => [name, storePath])), mode: "switch" };
  const answered = served.request("rollouts", body);
  const offered = await load.waitFor("the last offer", ({ offers }) => offers >= count);
  const offersCpu = served.cpuSeconds() - startCpu;
  const following = followToItsEnd(await answered, served);
  const ended = await load.waitFor("the last outcome", ({ done }) => done >= count);
  const outcomesCpu = served.cpuSeconds() - startCpu;
  await following;
  return {
    offersMs: offered.lastOfferMs - startMs,
    offersCpu,
    outcomesMs: ended.lastDoneMs - startMs,
    outcomesCpu,
    totalBytes: served.memory().totalBytes,
  };
}

/** As `activate` does. */
async function followToItsEnd(answer: Response, served: Served): Promise<void> {
  const started: unknown = await answer.json();
  if (typeof started !== "object" || started === null || !("id" in started)) throw new Error("no rollout came");
  const events = await served.request(`rollouts/${started.id}/follow`);
  const reader = events.body?.getReader();
  while (reader !== undefined && !(await reader.read()).done);
}
