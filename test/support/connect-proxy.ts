/** An HTTP proxy on loopback that notes what it was asked for: `CONNECT host:port`, or a request with a whole URL. */
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

export type ConnectProxy = AsyncDisposable & {
  readonly url: string;
  /** The request lines, without the protocol version; of a tunnel the first. */
  readonly seen: readonly string[];
};

export type ConnectProxyOptions = {
  /** Host names that only this proxy knows, and the ports on loopback that they stand for. */
  readonly hosts?: Readonly<Record<string, number>>;
  /** `user:password` that it asks for; without it, whoever asks is served. */
  readonly login?: string;
};

const HEAD_END = "\r\n\r\n";

export async function startConnectProxy(options: ConnectProxyOptions = {}): Promise<ConnectProxy> {
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
      const end = head.indexOf(HEAD_END);
      if (end === -1) {
        return;
      }
      client.off("data", onHead);
      const text = head.toString("latin1", 0, end);
      const [method = "", target = ""] = text.split(" ");
      seen.push(`${method} ${target}`);
      if (!isAdmitted(text, options.login)) {
        client.end(`HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm="x"${HEAD_END}`);
        return;
      }
      const isTunnel = method === "CONNECT";
      const url = new URL(isTunnel ? `http://${target}` : target);
      const known = options.hosts?.[url.hostname];
      const upstream = track(
        known === undefined ? connect(Number(url.port), url.hostname) : connect(known, "127.0.0.1"),
      );
      upstream.on("close", () => client.destroy());
      upstream.on("connect", () => {
        if (isTunnel) {
          client.write(`HTTP/1.1 200 OK${HEAD_END}`);
        }
        upstream.write(isTunnel ? head.subarray(end + HEAD_END.length) : head);
        if (!isTunnel) client.on("data", (next: Buffer) => seen.push(...findRequestLines(next)));
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

/** Of requests that follow on a connection: a client sends none before it has the answer to the one before. */
function findRequestLines(chunk: Buffer): string[] {
  const line = /^([A-Z]+ http:\S+) HTTP\/1\.1\r\n/.exec(chunk.toString("latin1"))?.[1];
  return line === undefined ? [] : [line];
}

function isAdmitted(head: string, login: string | undefined): boolean {
  const given = /^proxy-authorization: Basic (\S+)$/im.exec(head)?.[1] ?? "";
  return login === undefined || Buffer.from(given, "base64").toString() === login;
}
