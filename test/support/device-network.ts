/**
 * A device's network, as a unit of its system: what its agent knows as the coordinator's address is forwarded by that
 * unit alone (forward.ts). So a system can take the network away, and bring it back, as a real one can.
 */
import { createServer } from "node:net";
import { join } from "node:path";
import type { FixtureUnit } from "./builder.ts";

export type DeviceNetwork = {
  /** The coordinator's, for the agent of this device. */
  readonly url: string;
  /** Works. */
  readonly unit: FixtureUnit;
  /** The same unit in a later version: works after some time. */
  readonly slowUnit: FixtureUnit;
  /** The same unit in a later version: starts, and forwards nothing. */
  readonly brokenUnit: FixtureUnit;
};

const FORWARD = join(import.meta.dir, "forward.ts");
const NAME = "network.service";

export async function createDeviceNetwork(coordinatorUrl: string): Promise<DeviceNetwork> {
  const port = await findFreePort();
  const exec = `exec ${process.execPath} ${FORWARD} ${port} ${new URL(coordinatorUrl).host}`;
  return {
    url: `http://127.0.0.1:${port}`,
    unit: { name: NAME, version: "works", exec },
    slowUnit: { name: NAME, version: "slow", exec: `sleep 2; ${exec}` },
    brokenUnit: { name: NAME, version: "broken", exec: "exec sleep infinity" },
  };
}

function findFreePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => {
        if (typeof address === "object" && address !== null) resolve(address.port);
        else reject(new Error("the listener has no port"));
      });
    });
  });
}
