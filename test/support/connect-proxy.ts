/** An HTTP proxy on loopback that notes what it was asked for: `CONNECT host:port`, or a request with a whole URL. */
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

export type ConnectProxy = AsyncDisposable & {
  readonly url: string;
  /** The request lines, without the protocol version. */
  readonly seen: readonly string[];
};

export async function startConnectProxy(): Promise<ConnectProxy> {
  const seen: string[] = [];
  const sockets = new Set<Socket>();
  const track = (socket: Socket) => {
    sockets.add(socket);
    // A connection that breaks is what the tests look at from the client's side.
    socket.on("error", () => socket.destroy());
    return socket;
  };
  const server = createServer((client) => {
    track(client);
    let head = Buffer.alloc(0);
    client.on("data", function onHead(chunk: Buffer) {
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf("\r\n\r\n");
      if (end === -1) {
        return;
      }
      client.off("data", onHead);
      const [method = "", target = ""] = head.toString("latin1", 0, end).split(" ");
      seen.push(`${method} ${target}`);
      const isTunnel = method === "CONNECT";
      const { hostname, port } = new URL(isTunnel ? `http://${target}` : target);
      const upstream = track(connect(Number(port), hostname));
      upstream.on("connect", () => {
        if (isTunnel) {
          client.write("HTTP/1.1 200 OK\r\n\r\n");
        }
        upstream.write(isTunnel ? head.subarray(end + 4) : head);
        client.pipe(upstream);
        upstream.pipe(client);
      });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) {
        socket.destroy();
      }
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
