/** What an agent says of itself in its hello, as its row keeps it. Pure. */
import type { Hello } from "../../protocol.ts";
import type { AgentFacts } from "../database/agents.ts";

export function factsOf(hello: Hello): Omit<AgentFacts, "last_seen_ms"> {
  return {
    agent_version: hello.agentVersion,
    nix_version: hello.nixVersion,
    system: hello.system,
    host_name: hello.hostName,
    profile: hello.profile,
    state: JSON.stringify(hello.state),
    // A supervisor that speaks for the agent does not know them.
    ...(hello.labels === undefined ? {} : { labels: JSON.stringify(hello.labels) }),
  };
}
