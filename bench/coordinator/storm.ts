/** All agents come back after a coordinator was killed, each by its own backoff. */
import { type Bench, megabytes } from "../report.ts";
import { AGENTS, AT_ONCE } from "./idle.ts";
import { startLoad } from "./load.ts";
import { startServed } from "./served.ts";

const MS_PER_S = 1_000;

export const storm: Bench = {
  name: "coordinator-storm",
  summary: `${AGENTS} agents return after kill -9 and a new start of the coordinator on one core`,
  async run() {
    await using served = await startServed();
    await using load = startLoad();
    await load.run({ kind: "set", url: served.agentUrl, token: await served.makeToken(), stays: true });
    await load.run({ kind: "connect", from: 0, to: AGENTS, atOnce: AT_ONCE });
    await load.run({ kind: "reset" });
    const killedMs = Date.now();
    await served.restart();
    const readyMs = Date.now();
    const back = await load.waitFor("all agents", ({ connected }) => connected === AGENTS);
    return {
      figures: [
        { label: "until it is ready again", value: (readyMs - killedMs) / MS_PER_S, unit: "s" },
        { label: "processor until all are back", value: served.cpuSeconds(), unit: "s" },
        megabytes("coordinator then", served.memory().totalBytes),
        { label: "complaints of agents", value: back.complaints.length, unit: "" },
      ],
      ratios: [],
      reaches: [{ label: "all back", value: (back.lastWelcomeMs - killedMs) / MS_PER_S, unit: "s", most: 90 }],
    };
  },
};
