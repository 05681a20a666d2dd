/**
 * `bun forward.ts PORT HOST:PORT`: a program of a device, not of the test. It is the device's network: what the agent
 * knows as the coordinator's address goes through it, so a system whose unit for it is another one, or lacks, is cut off.
 */
import { connect, createServer } from "node:net";

const [port, target = ""] = process.argv.slice(2);
const { hostname, port: targetPort } = new URL(`tcp://${target}`);

createServer((client) => {
  const upstream = connect(Number(targetPort), hostname);
  for (const [socket, other] of [
    [client, upstream],
    [upstream, client],
  ] as const) {
    socket.on("error", () => other.destroy());
    socket.on("close", () => other.destroy());
    socket.pipe(other);
  }
}).listen(Number(port), "127.0.0.1");
