/**
 * Every parser of the program that meets bytes somebody else wrote: from the network, a disk, the command line, the
 * environment, a daemon. The tests beside this file give each of them the same bad inputs; whoever writes a new parser
 * adds it here.
 */
import type { Parser } from "./parser.ts";
import { agentParsers } from "./table/agent.ts";
import { clientParsers } from "./table/client.ts";
import { contractParsers } from "./table/contracts.ts";
import { daemonParsers } from "./table/daemon.ts";
import { formatParsers } from "./table/formats.ts";
import { serverParsers } from "./table/server.ts";

export const PARSERS: readonly Parser[] = [
  ...formatParsers,
  ...daemonParsers,
  ...contractParsers,
  ...clientParsers,
  ...serverParsers,
  ...agentParsers,
];
